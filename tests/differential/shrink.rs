//! Makes a failing script short: drops steps as long as it still fails.

use std::time::{Duration, Instant};

use super::{
    step::Step,
    twins::{Failure, Reached, Twins},
};

/// Enough for some hundred replays.
const TIME: Duration = Duration::from_secs(60);

/// A script that fails, and how.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) steps: Vec<Step>,
    pub(super) client: usize,
    pub(super) text: String,
}

impl Failing {
    pub(super) fn new(failure: Failure, steps: &[Step]) -> Self {
        Self {
            steps: steps.to_vec(),
            client: failure.client,
            text: failure.text,
        }
    }

    /// Tells one failure from another: the first words and the SQLSTATE of the first lines that differ.
    pub(super) fn kind(&self) -> String {
        let first = |mark| {
            let line = self
                .text
                .lines()
                .find(|line| line.starts_with(mark))
                .unwrap_or_default();
            let words = line.split_whitespace().take(2);
            let sqlstate = line.split_whitespace().find(|word| word.starts_with("C="));
            words.chain(sqlstate).collect::<Vec<_>>().join(" ")
        };
        format!("{} {}", first("- "), first("+ "))
    }

    /// Returns the end of it.
    pub(super) fn last(&self, count: usize) -> Self {
        let skipped = self.steps.len().saturating_sub(count);
        Self {
            steps: self.steps.iter().skip(skipped).cloned().collect(),
            text: self.text.clone(),
            ..*self
        }
    }
}

/// Returns a shorter script that fails, or the given one when it does not fail again.
pub(super) fn shrink(twins: &Twins, failing: Failing) -> Failing {
    let deadline = Instant::now() + TIME;
    let kind = failing.kind();
    let again = |steps: &[Step]| replay(twins, steps).filter(|failing| failing.kind() == kind);
    let Some(mut best) = again(&failing.steps) else {
        return Failing {
            text: format!("{}(it does not fail when played again)\n", failing.text),
            ..failing
        };
    };
    let mut piece = best.steps.len().div_ceil(2);
    while piece > 0 && Instant::now() < deadline {
        let mut at = 0;
        let before = best.steps.len();
        while at < best.steps.len() && Instant::now() < deadline {
            let mut shorter = best.steps.clone();
            shorter.drain(at..(at + piece).min(best.steps.len()));
            match again(&shorter) {
                Some(failing) => best = failing,
                None => at += piece,
            }
        }
        let is_done = piece == 1 && best.steps.len() == before;
        piece = if piece > 1 {
            piece.div_ceil(2).min(piece - 1)
        } else {
            usize::from(!is_done)
        };
    }
    best
}

/// Plays the steps on a fresh stage; returns what failed, without the steps after it.
pub(super) fn replay(twins: &Twins, steps: &[Step]) -> Option<Failing> {
    let mut clients: Vec<usize> = steps.iter().map(|step| step.client).collect();
    clients.sort_unstable();
    clients.dedup();
    let mut stage = match twins.stage(clients) {
        Ok(stage) => stage,
        Err(failure) => return Some(Failing::new(failure, steps)),
    };
    let mut played = 0;
    while played < steps.len() {
        let rest = steps.get(played..).unwrap_or_default();
        let together = rest.iter().take_while(|step| step.with_next).count() + 1;
        let now = rest.get(..together).unwrap_or(rest);
        played += now.len();
        match stage.play_all(now) {
            Ok(Reached::End) => {}
            Ok(Reached::Stuck) => return None,
            Err(failure) => {
                let played = steps.get(..played).unwrap_or_default();
                return Some(Failing::new(failure, played));
            }
        }
    }
    None
}
