//! What a session counts as its messages pass by: plain numbers, taken out by whoever adds them up.
//!
//! Only this crate looks at the messages, so only it can count them. It counts in fields of the session, which cost an
//! addition each; nothing is allocated but for a pipeline whose answers come together, or an error.

use smallvec::SmallVec;

/// A batch of the client's that a server has answered to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchAnswer {
    /// Rows that its statements returned or changed, by their command tags.
    pub rows: u64,
    /// The client was sent an error for it.
    pub is_error: bool,
    /// No transaction is open behind it.
    pub ends_transaction: bool,
}

/// What was counted since it was last taken out.
#[derive(Debug, Default)]
pub struct Tally {
    /// Parse messages of the client.
    pub client_parses: u32,
    /// Parse messages to servers.
    pub server_parses: u32,
    /// Bind messages of the client.
    pub binds: u32,
    /// Errors of servers that the client was sent, by the class of their SQLSTATE. Bounded by what one read holds.
    pub errors: Vec<[u8; 2]>,
    /// Batches that were answered, oldest first.
    answers: SmallVec<[BatchAnswer; 1]>,
    /// What is known of the batch that is being answered.
    present: BatchAnswer,
}

impl Tally {
    /// Returns whether a batch was answered.
    #[inline]
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Takes out the batch that was answered, if it was only one.
    #[inline]
    pub fn take_only_answer(&mut self) -> Option<BatchAnswer> {
        match self.answers.len() {
            1 => self.answers.pop(),
            _ => None,
        }
    }

    /// Takes out the batches that were answered, oldest first.
    pub fn take_answers(&mut self) -> SmallVec<[BatchAnswer; 1]> {
        std::mem::take(&mut self.answers)
    }

    /// Adds the rows of a statement.
    #[inline]
    pub(crate) fn add_rows(&mut self, rows: u64) {
        self.present.rows = self.present.rows.saturating_add(rows);
    }

    /// Notes an error of a server: `sqlstate` is that of one that the client is sent, and `is_heard` says whether it is sent that
    /// one or another in its place.
    pub(crate) fn note_error(&mut self, sqlstate: Option<[u8; 5]>, is_heard: bool) {
        self.present.is_error |= is_heard;
        self.errors
            .extend(sqlstate.map(|[one, two, ..]| [one, two]));
    }

    /// Notes that the batch at hand has been answered to its end.
    #[inline]
    pub(crate) fn end_batch(&mut self, ends_transaction: bool) {
        let answer = BatchAnswer {
            ends_transaction,
            ..self.present
        };
        self.present = BatchAnswer::default();
        self.answers.push(answer);
    }

    /// Forgets what is known of the batch that is being answered: it runs again, or its server is gone.
    pub(crate) fn forget_batch(&mut self) {
        self.present = BatchAnswer::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_has_its_own_rows_and_errors() {
        let mut tally = Tally::default();
        tally.add_rows(2);
        tally.add_rows(3);
        tally.end_batch(true);
        tally.note_error(Some(*b"23505"), true);
        tally.end_batch(false);
        tally.add_rows(7);
        tally.forget_batch();
        tally.end_batch(true);
        let answer = |rows, is_error, ends_transaction| BatchAnswer {
            rows,
            is_error,
            ends_transaction,
        };
        let expected = [
            answer(5, false, true),
            answer(0, true, false),
            answer(0, false, true),
        ];
        assert!(tally.has_answers());
        assert_eq!(tally.take_answers().as_slice(), expected);
        assert!(!tally.has_answers());
        assert_eq!(tally.errors, [*b"23"]);
    }
}
