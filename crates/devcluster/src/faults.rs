//! Faults: what a real cluster suffers, on command.
//!
//! Each returns when its effect is there (or its deadline has passed), so that a test can look at
//! once. All are per node; promotion is [`Cluster::promote`](crate::Cluster::promote).

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::error::ClusterError;
use crate::folder::release_shared_memory;
use crate::node::{Node, START_DEADLINE};
use crate::process;
use crate::wait;

/// How a server is told to stop
/// (<https://www.postgresql.org/docs/current/server-shutdown.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Disconnects clients (57P01), rolls back, writes a checkpoint.
    Fast,
    /// Aborts at once (57P02); the next start recovers.
    Immediate,
}

impl Node {
    /// Stops the server and waits for its end. A stopped server is left as it is.
    ///
    /// # Errors
    /// [`ClusterError::Deadline`] if it does not end within a minute.
    pub fn stop(&self, mode: StopMode) -> Result<(), ClusterError> {
        let mut process = self.lock();
        let Some(child) = process.as_mut() else {
            return Ok(());
        };
        let signal = match mode {
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        };
        process::send(i32::try_from(child.id()).unwrap_or(0), signal);
        let ended = wait::until(START_DEADLINE, || {
            child
                .try_wait()
                .map_err(ClusterError::io("wait for", self.data_dir()))
        })?;
        if ended.is_none() {
            return Err(ClusterError::Deadline {
                what: format!("the stop of {}", self.name()),
                waited: START_DEADLINE,
                detail: self.log_tail(),
            });
        }
        *process = None;
        Ok(())
    }

    /// Kills all the server's processes with SIGKILL, as a machine that loses power would.
    ///
    /// # Errors
    /// [`ClusterError::NotRunning`] if there is nothing to kill.
    pub fn kill(&self) -> Result<(), ClusterError> {
        let postmaster = self.running()?;
        // Stopped first, it can neither restart its children nor tell them goodbye.
        process::send(postmaster, Signal::SIGSTOP);
        for pid in process::of_server(Some(postmaster), self.data_dir()) {
            process::send(pid, Signal::SIGKILL);
        }
        let child = self.lock().take();
        if let Some(mut child) = child {
            child
                .wait()
                .map_err(ClusterError::io("wait for", self.data_dir()))?;
        }
        release_shared_memory(self.data_dir());
        Ok(())
    }

    /// Freezes all the server's processes with SIGSTOP: connections stay open, and nothing answers.
    ///
    /// # Errors
    /// [`ClusterError::NotRunning`] if there is nothing to freeze.
    pub fn freeze(&self) -> Result<(), ClusterError> {
        self.signal_all(Signal::SIGSTOP)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// [`ClusterError::NotRunning`] if it was stopped or killed in the meantime.
    pub fn thaw(&self) -> Result<(), ClusterError> {
        self.signal_all(Signal::SIGCONT)
    }

    /// Starts a stopped or killed server on its old port and waits until it accepts connections. A running one is left alone.
    ///
    /// # Errors
    /// [`ClusterError::Exited`] or [`ClusterError::Deadline`], with the end of its log.
    pub fn start(&self) -> Result<(), ClusterError> {
        self.launch()
    }

    /// Stops and starts the server.
    ///
    /// # Errors
    /// As for [`Node::stop`] and [`Node::start`].
    pub fn restart(&self, mode: StopMode) -> Result<(), ClusterError> {
        self.stop(mode)?;
        self.start()
    }

    /// Pauses WAL replay on a replica; WAL is still received. Returns when replay has stopped.
    ///
    /// # Errors
    /// [`ClusterError::Sql`] if the node is no replica; [`ClusterError::Deadline`] if replay goes on.
    pub fn pause_replay(&self) -> Result<(), ClusterError> {
        self.sql("postgres", "SELECT pg_wal_replay_pause()")?;
        // PostgreSQL 13 has no pg_get_wal_replay_pause_state; there the request is all there is to see.
        let paused = if self.shared.binaries.version().major >= 14 {
            "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        } else {
            "SELECT pg_is_wal_replay_paused()"
        };
        self.wait_true("paused replay", paused, START_DEADLINE)
    }

    /// Resumes WAL replay on a replica.
    ///
    /// # Errors
    /// [`ClusterError::Sql`] if the node is no replica.
    pub fn resume_replay(&self) -> Result<(), ClusterError> {
        self.sql("postgres", "SELECT pg_wal_replay_resume()")
            .map(drop)
    }

    /// Delays the replay of each commit on a replica (`recovery_min_apply_delay`); zero ends the delay.
    /// Returns when the server has taken the setting.
    ///
    /// # Errors
    /// [`ClusterError::Sql`] if the node refuses; [`ClusterError::Deadline`] if it does not take it.
    pub fn delay_apply(&self, delay: Duration) -> Result<(), ClusterError> {
        let ms = delay.as_millis();
        let set = format!("ALTER SYSTEM SET recovery_min_apply_delay = '{ms}ms'");
        self.sql("postgres", &set)?;
        self.sql("postgres", "SELECT pg_reload_conf()")?;
        // Each look is a new session, which sees the setting once the postmaster has it.
        let taken = format!(
            "SELECT setting = '{ms}' FROM pg_settings WHERE name = 'recovery_min_apply_delay'"
        );
        self.wait_true("the apply delay", &taken, START_DEADLINE)
    }

    /// Promotes a replica and waits until it accepts writes.
    pub(crate) fn promote(&self) -> Result<(), ClusterError> {
        self.sql("postgres", "SELECT pg_promote(false)")?;
        self.wait_true(
            "promotion",
            "SELECT NOT pg_is_in_recovery()",
            START_DEADLINE,
        )
    }

    /// Waits until a replica has replayed the WAL up to `lsn` (`X/X`).
    ///
    /// # Errors
    /// [`ClusterError::Deadline`] if it does not within `within`.
    pub fn wait_replayed(&self, lsn: &str, within: Duration) -> Result<(), ClusterError> {
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn");
        self.wait_true(&format!("replay up to {lsn}"), &replayed, within)
    }

    /// Waits until a query of one boolean answers true.
    pub(crate) fn wait_true(
        &self,
        what: &str,
        sql: &str,
        within: Duration,
    ) -> Result<(), ClusterError> {
        let found = wait::until(within, || {
            Ok::<_, ClusterError>((self.sql("postgres", sql)? == "t").then_some(()))
        })?;
        found.ok_or_else(|| ClusterError::Deadline {
            what: format!("{what} on {}", self.name()),
            waited: within,
            detail: self.log_tail(),
        })
    }

    fn signal_all(&self, signal: Signal) -> Result<(), ClusterError> {
        let postmaster = self.running()?;
        // The postmaster first, so that it starts no child that would be missed.
        process::send(postmaster, signal);
        for pid in process::of_server(Some(postmaster), self.data_dir()) {
            process::send(pid, signal);
        }
        Ok(())
    }

    fn running(&self) -> Result<i32, ClusterError> {
        self.pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| ClusterError::NotRunning {
                node: self.name().to_owned(),
            })
    }
}
