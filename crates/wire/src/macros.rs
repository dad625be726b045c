//! The anatomy that messages share, written once: tag constants, the enum of a direction, messages without a body, and
//! debug output that hides data.

/// Defines `mod tag`, the direction's `Message` enum, its decoder and its encoder from one table.
macro_rules! messages {
    ($(#[$meta:meta])* $direction:literal: $($(#[doc = $doc:literal])* $tag:ident = $byte:literal => $name:ident($view:ty),)*) => {
        #[doc = concat!("The tag bytes of ", $direction, " messages.")]
        pub mod tag {
            $(
                #[doc = concat!("`", stringify!($byte), "`: ", stringify!($name), ".")]
                pub const $tag: u8 = $byte;
            )*

            #[doc = concat!("Returns the name of the ", $direction, " message with this tag, as the protocol chapter spells it.")]
            #[must_use]
            pub fn name(tag: u8) -> Option<&'static str> {
                match tag {
                    $($tag => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }

        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Message<'a> {
            $(
                $(#[doc = $doc])*
                $name($view),
            )*
        }

        impl<'a> Message<'a> {
            /// Decodes a whole frame.
            ///
            /// # Errors
            ///
            /// [`DecodeError::UnknownTag`](crate::DecodeError::UnknownTag), or what the message's own decoder raises.
            pub fn decode(frame: $crate::Frame<'a>) -> Result<Self, $crate::DecodeError> {
                match frame.tag {
                    $(tag::$tag => <$view>::decode(frame.body()).map(Self::$name),)*
                    tag => Err($crate::DecodeError::UnknownTag { tag }),
                }
            }

            /// Appends the whole frame to `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(message) => message.encode(out),)*
                }
            }

            /// Returns the tag byte.
            #[must_use]
            pub fn tag(&self) -> u8 {
                match self {
                    $(Self::$name(_) => tag::$tag,)*
                }
            }
        }
    };
}

/// Defines a message that has no body.
macro_rules! empty_message {
    ($(#[$meta:meta])* $name:ident, $tag:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name;

        impl $name {
            /// The whole message: it never differs.
            pub const BYTES: [u8; 5] = [$tag, 0, 0, 0, 4];

            /// Decodes the body, which is empty.
            ///
            /// # Errors
            ///
            /// [`DecodeError::Trailing`](crate::DecodeError::Trailing) when it is not.
            pub fn decode(body: &[u8]) -> Result<Self, $crate::DecodeError> {
                $crate::Reader::new(stringify!($name), body).finish().map(|()| Self)
            }

            /// Appends the message to `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&Self::BYTES);
            }
        }
    };
}

/// Implements `Debug` with some fields shown and the bytes of others only counted.
macro_rules! redacted_debug {
    ($name:ident { $($shown:ident),* } hides { $($hidden:ident),* }) => {
        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($hidden), &$crate::redact::Redacted(self.$hidden)))*
                    .finish()
            }
        }
    };
}

/// Implements `Debug` with a C string shown as text.
macro_rules! text_debug {
    ($name:ident { $($shown:ident),* } text { $($text:ident),* }) => {
        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($text), &String::from_utf8_lossy(self.$text)))*
                    $(.field(stringify!($shown), &self.$shown))*
                    .finish()
            }
        }
    };
}
