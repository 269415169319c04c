//! What a poller counts, and what it tells about itself.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::{circuit, pace};
use crate::{
    clock::{now_ms, rfc3339},
    meter::{Counter, Gauge},
    source::sonzai::settings::{self, Agents, Mode, Whose},
};

/// See the module. Goes on through reloads that keep the source's `api:` and `poll:`.
#[derive(Debug, Default)]
pub struct Stats {
    /// Looks at lists, and how many of them failed.
    pub looks: Counter,
    pub failures: Counter,
    /// Items in answers, those that were seen before included.
    pub listed: Counter,
    pub unreadable: Counter,
    pub appended: Counter,
    /// Known already, mostly since their webhook came.
    pub duplicates: Counter,
    /// No route takes them, and the source says `unrouted: drop`.
    pub dropped: Counter,
    pub taken: Counter,
    /// How many there are now that can be taken no more, and that can never get in.
    pub stuck: Gauge,
    pub too_large: Gauge,
    /// Lists whose pages are full of what cannot be taken: what is behind them is out of sight.
    pub hidden_lists: Gauge,
    /// Lists that are in trouble of their own, while others are not.
    pub lists_in_trouble: Gauge,
    /// Agents that are polled, and whether there are more than may be.
    pub agents: Gauge,
    pub agents_left_out: Gauge,
    /// Whether the platform's newest attempts to deliver fail.
    pub deliveries_fail: Gauge,
    /// When a list last answered; Unix time, 0 for never.
    pub last_success_ms: Gauge,
    /// When the oldest item that is still pending was created; 0 if none is.
    pub oldest_pending_ms: Gauge,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    why: Option<pace::Why>,
    trouble: Option<Trouble>,
}

#[derive(Clone, Debug)]
struct Trouble {
    kind: circuit::Kind,
    words: String,
    since_ms: u64,
}

/// How a poller is, for operators.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Poll {
    pub source: String,
    /// `project …`, `all agents`, `n agents`.
    pub whose: String,
    pub mode: Mode,
    pub fast: bool,
    pub why: pace::Why,
    pub take: bool,
    pub listed: u64,
    pub appended: u64,
    pub duplicates: u64,
    pub taken: u64,
    /// Cannot be taken, and can never get in: now.
    pub stuck: u64,
    pub too_large: u64,
    /// Entries of lists that could not be read, since the start.
    pub unreadable: u64,
    /// Lists behind whose full pages something may be out of sight.
    pub hidden_lists: u64,
    pub lists_in_trouble: u64,
    pub agents: u64,
    /// Agents that may be polled (`sonzai.max_agents`).
    pub max_agents: u64,
    pub agents_left_out: bool,
    pub deliveries_fail: bool,
    /// RFC 3339.
    pub last_success: Option<String>,
    /// How long the oldest item that is still pending has been; 0 if none is.
    pub oldest_pending_seconds: f64,
    pub trouble: Option<TroubleStatus>,
}

/// What keeps it from polling.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TroubleStatus {
    pub kind: circuit::Kind,
    /// RFC 3339.
    pub since: String,
    pub since_seconds: u64,
    pub words: String,
}

impl Stats {
    /// Why rounds follow each other as they do from now on; whether that is news.
    pub fn set_why(&self, why: pace::Why) -> bool {
        self.lock().why.replace(why) != Some(why)
    }

    /// What keeps the source from being polled, if anything does.
    pub fn set_trouble(&self, trouble: Option<&circuit::Trouble>) {
        self.lock().trouble = trouble.map(|trouble| Trouble {
            kind: trouble.kind,
            words: trouble.words.clone(),
            since_ms: trouble.since_ms,
        });
    }

    pub fn why(&self) -> pace::Why {
        self.lock().why.unwrap_or(pace::Why::Started)
    }

    /// Whether nothing but people can end the trouble.
    pub fn is_open(&self) -> bool {
        self.lock().trouble.as_ref().is_some_and(|trouble| trouble.kind.is_for_people())
    }

    pub fn is_in_trouble(&self) -> bool {
        self.lock().trouble.is_some()
    }

    pub fn oldest_pending_seconds(&self) -> f64 {
        match self.oldest_pending_ms.get() {
            0 => 0.0,
            ms => now_ms().saturating_sub(ms) as f64 / 1000.0,
        }
    }

    /// How it is, for operators.
    pub fn status(&self, source: &str, poll: &settings::Poll, max_agents: u64) -> Poll {
        let why = self.why();
        let last_success_ms = self.last_success_ms.get();
        Poll {
            source: source.to_owned(),
            whose: whose(&poll.whose),
            mode: poll.mode,
            fast: why.is_fast(),
            why,
            take: poll.take,
            listed: self.listed.get(),
            appended: self.appended.get(),
            duplicates: self.duplicates.get(),
            taken: self.taken.get(),
            stuck: self.stuck.get(),
            too_large: self.too_large.get(),
            unreadable: self.unreadable.get(),
            hidden_lists: self.hidden_lists.get(),
            lists_in_trouble: self.lists_in_trouble.get(),
            agents: self.agents.get(),
            max_agents,
            agents_left_out: self.agents_left_out.get() > 0,
            deliveries_fail: self.deliveries_fail.get() > 0,
            last_success: (last_success_ms > 0).then(|| rfc3339(last_success_ms)),
            oldest_pending_seconds: self.oldest_pending_seconds(),
            trouble: self.trouble(),
        }
    }

    fn trouble(&self) -> Option<TroubleStatus> {
        let trouble = self.lock().trouble.clone()?;
        Some(TroubleStatus {
            kind: trouble.kind,
            since: rfc3339(trouble.since_ms),
            since_seconds: now_ms().saturating_sub(trouble.since_ms) / 1000,
            words: trouble.words,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nobody panics while holding it, and what it holds is whole at any time.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// For people.
fn whose(whose: &Whose) -> String {
    match whose {
        Whose::Project(project) => format!("project {project}"),
        Whose::Agents { agents: Agents::All, .. } => "all agents".to_owned(),
        Whose::Agents { agents: Agents::Named(names), .. } => match &names[..] {
            [one] => format!("agent {one}"),
            names => format!("{} agents", names.len()),
        },
    }
}
