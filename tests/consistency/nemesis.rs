//! The nemesis: faults of the servers and of the network, dealt from a shuffled deck so that a long run sees them all.

use std::{
    fmt,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use pgweir_devcluster::{ClusterError, StopMode};
use pgweir_testkit::{Rng, patience::PATIENCE};

use super::stage::Stage;

/// Which faults a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    /// Replicas that replay late; nothing fails.
    Delays,
    /// Everything.
    All,
}

/// A fault of one node, with what ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// `recovery_min_apply_delay`.
    Delay(Duration),
    PauseReplay,
    Stop(StopMode),
    Kill,
    Freeze,
    /// The network to it closes connections.
    Cut,
    /// The network to it passes nothing.
    Silence,
}

/// How the primary goes when a replica is promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Stop(StopMode),
    Kill,
}

/// Whether the old primary comes up as it was, on its old timeline, before it is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Return {
    Rebuilt,
    AsItWas,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Card {
    OnReplica(Fault),
    OnPrimary(Fault),
    Promote(Loss, Return),
}

const DELAYS: [Card; 3] = [
    Card::OnReplica(Fault::Delay(Duration::from_millis(300))),
    Card::OnReplica(Fault::Delay(Duration::from_millis(1500))),
    Card::OnReplica(Fault::PauseReplay),
];

const ALL: [Card; 18] = [
    DELAYS[0],
    DELAYS[1],
    DELAYS[2],
    Card::OnReplica(Fault::Stop(StopMode::Fast)),
    Card::OnReplica(Fault::Stop(StopMode::Immediate)),
    Card::OnReplica(Fault::Kill),
    Card::OnReplica(Fault::Freeze),
    Card::OnReplica(Fault::Cut),
    Card::OnReplica(Fault::Silence),
    Card::OnPrimary(Fault::Stop(StopMode::Fast)),
    Card::OnPrimary(Fault::Stop(StopMode::Immediate)),
    Card::OnPrimary(Fault::Kill),
    Card::OnPrimary(Fault::Freeze),
    Card::OnPrimary(Fault::Cut),
    Card::OnPrimary(Fault::Silence),
    Card::Promote(Loss::Kill, Return::Rebuilt),
    Card::Promote(Loss::Stop(StopMode::Fast), Return::Rebuilt),
    Card::Promote(Loss::Kill, Return::AsItWas),
];

/// What was done, and when.
pub(super) type Log = Vec<(Duration, String)>;

/// Plays until the time is over or the run is; every fault is healed at the end.
pub(super) struct Nemesis<'a> {
    stage: &'a Stage,
    rng: Rng,
    began_at: Instant,
    log: Log,
    /// Hears nothing; closed when the run ends early.
    over: Receiver<()>,
}

impl<'a> Nemesis<'a> {
    /// The nemesis stops when the sender is dropped.
    pub(super) fn new(stage: &'a Stage, rng: Rng, began_at: Instant) -> (Self, Sender<()>) {
        let (alive, over) = channel();
        let nemesis = Self {
            stage,
            rng,
            began_at,
            log: Log::new(),
            over,
        };
        (nemesis, alive)
    }

    /// Injects faults for so long; returns what was done, and the first thing that a server refused to suffer.
    pub(super) fn play(
        mut self,
        faults: Faults,
        time: Duration,
    ) -> (Log, Result<(), ClusterError>) {
        let played = self.deal(faults, time);
        if let Err(error) = &played {
            self.note(format!("could not go on: {error}"));
        }
        (self.log, played)
    }

    fn deal(&mut self, faults: Faults, time: Duration) -> Result<(), ClusterError> {
        let cards: &[Card] = match faults {
            Faults::Delays => &DELAYS,
            Faults::All => &ALL,
        };
        let mut deck: Vec<Card> = Vec::new();
        let _over = self.hold(500..800);
        while self.began_at.elapsed() < time {
            if deck.is_empty() {
                deck.extend(cards);
            }
            let card = deck.swap_remove(self.rng.below(deck.len()));
            if self.play_card(card)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn play_card(&mut self, card: Card) -> Result<std::ops::ControlFlow<()>, ClusterError> {
        let replicas = self.replicas();
        let chosen = self.rng.below(replicas.len());
        let other = replicas.get(1 - chosen).copied();
        // One replica may replay late beside whatever else goes wrong.
        let late = self
            .rng
            .pick(&DELAYS)
            .copied()
            .filter(|_| self.rng.chance(1, 2));
        let late = match late {
            Some(Card::OnReplica(fault)) => other.map(|node| (node, fault)),
            _ => None,
        };
        match card {
            Card::Promote(loss, returns) => self.promote(loss, returns, late)?,
            Card::OnReplica(fault) => {
                let node = replicas.get(chosen).copied();
                self.suffer(late.into_iter().chain(node.map(|node| (node, fault))))?;
            }
            Card::OnPrimary(fault) => {
                let primary = (self.primary(), fault);
                self.suffer(late.into_iter().chain([primary]))?;
            }
        }
        Ok(self.hold(200..600))
    }

    /// Injects faults, holds them, and heals them.
    fn suffer(&mut self, faults: impl Iterator<Item = (usize, Fault)>) -> Result<(), ClusterError> {
        let faults: Vec<_> = faults.collect();
        for (node, fault) in &faults {
            self.inject(*node, *fault)?;
        }
        let _over = self.hold(300..2500);
        for (node, fault) in faults.iter().rev() {
            self.heal(*node, *fault)?;
        }
        Ok(())
    }

    /// Loses the primary for good and promotes the replica that has received most; the other one follows it, and the old
    /// primary is rebuilt as a replica.
    fn promote(
        &mut self,
        loss: Loss,
        returns: Return,
        late: Option<(usize, Fault)>,
    ) -> Result<(), ClusterError> {
        let cluster = &self.stage.cluster;
        // What is paused cannot connect to another primary, PostgreSQL's own rule; what is only late can.
        let late = late.filter(|(_, fault)| *fault != Fault::PauseReplay);
        cluster.wait_streaming(PATIENCE)?;
        if let Some((node, fault)) = late {
            self.inject(node, fault)?;
        }
        let old = self.primary();
        match loss {
            Loss::Kill => self.inject(old, Fault::Kill)?,
            Loss::Stop(mode) => self.inject(old, Fault::Stop(mode))?,
        }
        let _over = self.hold(0..1000);
        let new = cluster.most_advanced()?;
        self.note(format!("promote {}", self.name(new)));
        cluster.promote(new)?;
        let others: Vec<usize> = self.replicas().into_iter().filter(|n| *n != old).collect();
        for node in others {
            cluster.follow(node, PATIENCE)?;
            self.note(format!("{} follows", self.name(node)));
        }
        if let Some((node, fault)) = late {
            self.heal(node, fault)?;
        }
        if returns == Return::AsItWas {
            cluster.node(old).start()?;
            self.note(format!("{} is back on its old timeline", self.name(old)));
            let _over = self.hold(500..1500);
        }
        cluster.rejoin(old)?;
        self.note(format!("{} is rebuilt as a replica", self.name(old)));
        Ok(())
    }

    fn inject(&mut self, n: usize, fault: Fault) -> Result<(), ClusterError> {
        self.note(format!("{fault} {}", self.name(n)));
        let node = self.stage.cluster.node(n);
        let relay = self.stage.relays.get(n);
        match fault {
            Fault::Delay(delay) => node.delay_apply(delay)?,
            Fault::PauseReplay => node.pause_replay()?,
            Fault::Stop(mode) => node.stop(mode)?,
            Fault::Kill => node.kill()?,
            Fault::Freeze => node.freeze()?,
            Fault::Cut => relay.into_iter().for_each(|relay| relay.cut()),
            Fault::Silence => relay.into_iter().for_each(|relay| relay.silence()),
        }
        Ok(())
    }

    fn heal(&mut self, n: usize, fault: Fault) -> Result<(), ClusterError> {
        let node = self.stage.cluster.node(n);
        let relay = self.stage.relays.get(n);
        match fault {
            Fault::Delay(_) => node.delay_apply(Duration::ZERO)?,
            Fault::PauseReplay => node.resume_replay()?,
            Fault::Stop(_) | Fault::Kill => node.start()?,
            Fault::Freeze => node.thaw()?,
            Fault::Cut | Fault::Silence => relay.into_iter().for_each(|relay| relay.heal()),
        }
        self.note(format!("healed: {fault} {}", self.name(n)));
        Ok(())
    }

    fn primary(&self) -> usize {
        let nodes = self.stage.cluster.nodes();
        let primary = self.stage.cluster.primary().name();
        let found = nodes.iter().position(|node| node.name() == primary);
        found.unwrap_or_default()
    }

    fn replicas(&self) -> Vec<usize> {
        let primary = self.primary();
        let nodes = 0..self.stage.cluster.nodes().len();
        nodes.filter(|node| *node != primary).collect()
    }

    fn name(&self, node: usize) -> &'a str {
        self.stage.cluster.node(node).name()
    }

    fn note(&mut self, what: String) {
        self.log.push((self.began_at.elapsed(), what));
    }

    /// Lets some milliseconds pass, unless the run ends.
    fn hold(&mut self, ms: std::ops::Range<usize>) -> std::ops::ControlFlow<()> {
        let ms = ms.start + self.rng.below(ms.end - ms.start);
        let time = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        match self.over.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => std::ops::ControlFlow::Continue(()),
            _ => std::ops::ControlFlow::Break(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Delay(delay) => write!(f, "delay apply by {delay:?} on"),
            Fault::PauseReplay => f.write_str("pause replay on"),
            Fault::Stop(StopMode::Fast) => f.write_str("stop"),
            Fault::Stop(StopMode::Immediate) => f.write_str("stop at once"),
            Fault::Kill => f.write_str("kill -9"),
            Fault::Freeze => f.write_str("freeze"),
            Fault::Cut => f.write_str("cut the network to"),
            Fault::Silence => f.write_str("silence the network to"),
        }
    }
}
