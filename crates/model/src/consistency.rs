//! The levels of consistency: what a read may see. One enum for the hint, the setting, the rule and the router.

use std::fmt;

/// What a read may see, from the least to the most that is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Consistency {
    /// A state at most `max_lag` old.
    Eventual,
    /// Every write that this session committed, and never an older state than it has already seen.
    #[default]
    Session,
    /// Every write that was committed anywhere before the read began.
    Strong,
}

impl Consistency {
    /// Every level, the default first, as the documentation lists them.
    pub const ALL: &'static [Consistency] = &[
        Consistency::Session,
        Consistency::Eventual,
        Consistency::Strong,
    ];

    /// Returns its name in the configuration, in `SET pgweir.consistency` and in hints.
    pub fn name(self) -> &'static str {
        match self {
            Consistency::Eventual => "eventual",
            Consistency::Session => "session",
            Consistency::Strong => "strong",
        }
    }

    /// Returns the level of this name, whatever its case.
    pub fn from_name(name: &str) -> Option<Self> {
        let named = |level: &&Consistency| level.name().eq_ignore_ascii_case(name);
        Consistency::ALL.iter().find(named).copied()
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints_whatever_its_case() {
        for level in Consistency::ALL {
            let text = level.to_string();
            assert_eq!(Consistency::from_name(&text), Some(*level));
            assert_eq!(
                Consistency::from_name(&text.to_ascii_uppercase()),
                Some(*level)
            );
        }
        assert_eq!(Consistency::from_name("never"), None);
    }
}
