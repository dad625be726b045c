//! Named limits of the codec, with the reason for each.

/// The largest frame that PostgreSQL takes or sends, in bytes: its allocator refuses more
/// (`src/include/utils/memutils.h` `MaxAllocSize`). Smaller would refuse what a server accepts; larger could never be answered.
pub const MAX_MESSAGE: usize = 0x3fff_ffff;

/// The largest startup packet, in bytes (`src/include/libpq/pqcomm.h` `MAX_STARTUP_PACKET_LENGTH`).
/// It bounds what an unauthenticated peer can make us hold.
pub const MAX_STARTUP_PACKET: usize = 10_000;

/// The smallest startup packet, in bytes: length and code.
pub const MIN_STARTUP_PACKET: usize = 8;

/// The shortest secret of a backend key, in bytes; protocol 3.0 knows only this length.
pub const MIN_SECRET: usize = 4;

/// The longest secret of a backend key, in bytes (protocol 3.2).
pub const MAX_SECRET: usize = 256;

/// The longest statement or portal name, in bytes, that a head decoder looks for.
/// PostgreSQL keeps 63 bytes of a name, so generous; without a limit a peer could stall a fixed read buffer with an endless name.
pub const MAX_NAME: usize = 4096;

/// The most elements in a list: counts on the wire are unsigned 16-bit numbers.
pub const MAX_LIST: usize = 65_535;
