//! The routing table in force, and what became of the last attempt to change it: `/api/config`, and
//! who asks for an attempt: `/-/reload`.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{
    clock::{now_ms, rfc3339},
    meter::{Counter, Gauge},
};

/// Requests for a reload that may wait while one is under way; they share the next.
pub const MAX_ASKING: usize = 16;

/// What became of an attempt to put the file in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is in force.
    Applied,
    /// It was in force already.
    Unchanged,
    /// What was in force stays.
    Rejected,
}

impl Outcome {
    const ALL: [(Outcome, &'static str); 3] = [
        (Outcome::Applied, "applied"),
        (Outcome::Unchanged, "unchanged"),
        (Outcome::Rejected, "rejected"),
    ];
}

/// An attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// RFC 3339.
    pub at: String,
    pub outcome: Outcome,
    /// Of the file's text; `None` where it does not compile or could not be read.
    pub hash: Option<String>,
    /// Since when what the file says is in force, RFC 3339; `None` where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What it changed when it came into force.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub changes: Changes,
    /// Why it was rejected, each with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What is doubtful about it, and keeps nothing from being in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Attempt {
    /// One that ends now.
    pub fn now(outcome: Outcome, hash: Option<String>) -> Attempt {
        let (since, changes, problems, warnings) = Default::default();
        Attempt { at: rfc3339(now_ms()), outcome, hash, since, changes, problems, warnings }
    }
}

/// What a table changed, by name. A source whose secret file holds another secret has changed, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    pub brokers_added: Vec<String>,
    pub brokers_changed: Vec<String>,
    pub brokers_removed: Vec<String>,
    pub sources_added: Vec<String>,
    pub sources_changed: Vec<String>,
    pub sources_removed: Vec<String>,
    pub routes_added: Vec<String>,
    pub routes_changed: Vec<String>,
    pub routes_removed: Vec<String>,
    pub commands_added: Vec<String>,
    pub commands_changed: Vec<String>,
    pub commands_removed: Vec<String>,
}

impl Changes {
    /// Each kind of change with its names.
    pub fn each(&self) -> [(&'static str, &Vec<String>); 12] {
        [
            ("brokers added", &self.brokers_added),
            ("brokers changed", &self.brokers_changed),
            ("brokers removed", &self.brokers_removed),
            ("sources added", &self.sources_added),
            ("sources changed", &self.sources_changed),
            ("sources removed", &self.sources_removed),
            ("routes added", &self.routes_added),
            ("routes changed", &self.routes_changed),
            ("routes removed", &self.routes_removed),
            ("commands added", &self.commands_added),
            ("commands changed", &self.commands_changed),
            ("commands removed", &self.commands_removed),
        ]
    }

    fn is_empty(&self) -> bool {
        self.each().iter().all(|(_, names)| names.is_empty())
    }
}

/// The table that decides now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InForce {
    /// The first 12 hexadecimal digits of the SHA-256 of its text.
    pub hash: String,
    /// RFC 3339.
    pub since: String,
    /// Whether it is the last good one, since the file was bad when the daemon started.
    pub last_good: bool,
    pub sources: BTreeSet<String>,
    pub brokers: BTreeSet<String>,
    /// In the order of the file.
    pub routes: Vec<String>,
    /// Commands that are taken from brokers.
    #[serde(default)]
    pub commands: BTreeSet<String>,
}

/// What `/api/config` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub file: PathBuf,
    pub in_force: InForce,
    pub last_attempt: Attempt,
    /// Process settings that differ in `waypost.toml` from those in use.
    pub restart_needed: Vec<String>,
    /// Why the daemon could not start with `waypost.toml` as it is now.
    pub settings_problem: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Config {
    facts: Mutex<Facts>,
    success_ms: Gauge,
    /// By outcome.
    attempts: [Counter; Outcome::ALL.len()],
}

impl Config {
    /// As the daemon starts.
    pub fn new(facts: Facts) -> Config {
        let (success_ms, attempts) = Default::default();
        let config = Config { facts: Mutex::new(facts), success_ms, attempts };
        config.note_success();
        config
    }

    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    /// An attempt has come to its end, with another table in force or not.
    pub fn attempted(&self, attempt: Attempt, in_force: Option<InForce>) {
        self.attempts[attempt.outcome as usize].inc();
        {
            let mut facts = self.lock();
            // In force is what the file says: it is not the last good one instead.
            facts.in_force.last_good &= attempt.outcome == Outcome::Rejected;
            facts.last_attempt = attempt;
            if let Some(in_force) = in_force {
                facts.in_force = in_force;
            }
        }
        self.note_success();
    }

    fn note_success(&self) {
        if self.is_good() {
            self.success_ms.set(now_ms());
        }
    }

    /// Which settings differ from those in use, or why that cannot be told.
    pub fn set_settings(&self, differing: Result<Vec<String>, String>) {
        let mut facts = self.lock();
        facts.settings_problem = differing.as_ref().err().cloned();
        facts.restart_needed = differing.unwrap_or_default();
    }

    /// Whether the last attempt was not rejected.
    pub fn is_good(&self) -> bool {
        self.lock().last_attempt.outcome != Outcome::Rejected
    }

    /// When the last good attempt was, Unix seconds; 0 if none was.
    pub fn success_s(&self) -> f64 {
        self.success_ms.get() as f64 / 1000.0
    }

    /// How many attempts there were since the start, by outcome.
    pub fn attempts(&self) -> [(&'static str, u64); 3] {
        Outcome::ALL.map(|(outcome, name)| (name, self.attempts[outcome as usize].get()))
    }

    /// No method leaves it half-made.
    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who wants a reload, and is told what became of it.
pub type Asking = oneshot::Sender<Attempt>;

/// Asks for reloads. A cheap handle.
#[derive(Clone)]
pub struct Reloads(pub mpsc::Sender<Asking>);

impl Reloads {
    /// Asks for one and waits for it; `None` while too many ask or the daemon ends.
    pub async fn ask(&self) -> Option<Attempt> {
        let (tell, told) = oneshot::channel();
        self.0.try_send(tell).ok()?;
        told.await.ok()
    }
}
