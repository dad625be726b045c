//! The transaction status that ReadyForQuery reports.

/// Where a session stands between batches
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-READYFORQUERY>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// `I`: no transaction block is open.
    #[default]
    Idle,
    /// `T`: a transaction block is open.
    InTransaction,
    /// `E`: a transaction block failed; everything is refused until it ends.
    Failed,
}

impl TransactionStatus {
    /// Returns the status that `byte` means, if it means one.
    #[inline]
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// Returns the byte on the wire.
    #[inline]
    #[must_use]
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}
