//! What a repair found, line by line and in the end.

use serde::{Deserialize, Serialize};

/// Reasons that are told one by one; more are counted.
const MAX_REASONS: usize = 20;

/// Which of the two places is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Agents' histories of notifications.
    History,
    /// Failed attempts at webhooks.
    Attempts,
}

impl Step {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Step::History => "notifications",
            Step::Attempts => "failed attempts",
        }
    }
}

/// A line of a repair's answer, one JSON object each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "line")]
pub enum Line {
    /// How far it is: so many of `total` agents or webhooks are `done`.
    Progress { step: Step, done: u64, total: u64, found: u64, new: u64 },
    /// The last one.
    Summary(Summary),
}

/// Of one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events since the time that was asked for.
    pub found: u64,
    /// Those that were appended, or would be.
    pub new: u64,
    /// Those that had come before.
    pub known: u64,
    /// Those that no route takes, of a source that says `unrouted: drop`.
    pub dropped: u64,
    /// Events, or places that may hold some, that cannot be had.
    pub out_of_reach: u64,
}

/// What a repair came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub source: String,
    /// RFC 3339.
    pub since: String,
    pub dry_run: bool,
    pub notifications: Counts,
    pub failed_attempts: Counts,
    /// What cannot be had, and why.
    pub reasons: Vec<String>,
    /// Further ones.
    pub more_reasons: u64,
    /// Why it is not complete; running it again may help.
    pub trouble: Vec<String>,
    pub warnings: Vec<String>,
}

impl Summary {
    pub fn new(source: &str, since: String, dry_run: bool) -> Summary {
        Summary { source: source.to_owned(), since, dry_run, ..Summary::default() }
    }

    pub fn found(&self) -> u64 {
        self.notifications.found + self.failed_attempts.found
    }

    pub fn new_ones(&self) -> u64 {
        self.notifications.new + self.failed_attempts.new
    }

    pub fn known(&self) -> u64 {
        self.notifications.known + self.failed_attempts.known
    }

    pub fn out_of_reach(&self) -> u64 {
        self.notifications.out_of_reach + self.failed_attempts.out_of_reach
    }

    /// Everything that is not as it should be, in words.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> =
            [&self.trouble, &self.reasons, &self.warnings].into_iter().flatten().cloned().collect();
        if self.more_reasons > 0 {
            notes.push(format!("and {} more", self.more_reasons));
        }
        notes
    }

    pub(super) fn counts(&mut self, step: Step) -> &mut Counts {
        match step {
            Step::History => &mut self.notifications,
            Step::Attempts => &mut self.failed_attempts,
        }
    }

    /// So many cannot be had, for this reason.
    pub(super) fn out_of_reach_because(&mut self, step: Step, count: u64, reason: String) {
        self.counts(step).out_of_reach += count;
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason);
        } else {
            self.more_reasons += 1;
        }
    }

    pub(super) fn trouble_because(&mut self, trouble: String) {
        if self.trouble.len() < MAX_REASONS {
            self.trouble.push(trouble);
        } else {
            self.more_reasons += 1;
        }
    }
}
