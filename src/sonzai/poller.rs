//! Fetches what is pending for polling, and puts it into the same stream as the webhooks.
//!
//! The platform stores every proactive message for polling, whether or not it was pushed. So the
//! poller is what is left when push does not work, and otherwise finds what is known already, and takes
//! it. In the order in which a stranger meets them:
//!
//! - [`list`] is a list of pending notifications and how to ask for it, [`cycle`] one look at one:
//!   list, let in, wait until it is durable, take ([`take`]). [`look`] says what follows from it.
//! - [`pace`] says how soon the next round begins, and [`deliveries`] whether push works.
//! - [`circuit`] is what keeps a list, or the whole source, from being polled.
//! - [`memory`] holds what is not looked at again each time ([`recent`], [`stuck`]), and how much a list
//!   is asked for at a time ([`page_size`]).
//! - [`agents`] finds whom to poll; [`around`] looks past a page of items that cannot be taken.
//! - [`tell`] notes what came of all that, for the next round and for people.
//!
//! A round looks at every list in turn, some at once, one request in flight a list. All of it is one
//! task; dropping it at any point loses nothing: what is durable and not yet taken is known at the next
//! start, and taken then.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::{
    circuit::{Circuit, Failure},
    cycle::Cycle,
    list::List,
    look::Next,
    memory::Memory,
    pace::{Pace, Pauses},
};
use crate::{
    admit::Admit,
    clock::Steady,
    quiet::Quiet,
    routing::{Table, path::Path},
    settings,
    sonzai::{client::Client, webhooks::plan::Wanted},
    source::sonzai::settings::{self as of_source, Agents, Mode, Register, Whose},
};

mod agents;
mod around;
pub mod circuit;
mod cycle;
pub mod deliveries;
mod list;
mod look;
mod memory;
pub mod pace;
mod page_size;
mod recent;
mod stats;
mod stuck;
mod take;
mod tell;

pub use agents::{Found, find as find_agents};
pub use stats::{Poll, Stats, TroubleStatus};

/// How often agents are looked for.
const FIND_AGENTS_EVERY: Duration = Duration::from_secs(600);

/// Pages of one list in a row; then it is the others' turn.
const MAX_LOOKS_IN_A_ROW: usize = 100;

/// How often a list is asked again, with growing pauses, that still has what was just taken.
const MAX_LATER: u32 = 5;
const FIRST_LATER: Duration = Duration::from_millis(500);

/// How long a look at the platform's attempts to deliver may take.
const DELIVERIES_WITHIN: Duration = Duration::from_secs(60);

/// Lists that fail one after the other until it is the source that is in trouble, unless one did not fail
/// so shortly before: some of many agents may be gone, or somebody else's.
const OF_ALL_AFTER: usize = 3;
const OF_ALL_WITHOUT_SUCCESS_FOR: Duration = Duration::from_secs(60);

/// What a poller may cost, and how patient it is. See [`settings::Sonzai`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_concurrent_lists: usize,
    pub max_agents: usize,
    pub slow_every: Duration,
    pub push_grace: Duration,
}

impl From<&settings::Sonzai> for Limits {
    fn from(settings: &settings::Sonzai) -> Limits {
        Limits {
            max_concurrent_lists: settings.max_concurrent_lists,
            max_agents: settings.max_agents,
            slow_every: settings.slow_every,
            push_grace: settings.push_grace,
        }
    }
}

/// What a poller is made of.
pub struct Parts {
    pub source: ByteString,
    pub client: Client,
    pub poll: of_source::Poll,
    /// To see whether what is registered, and leads to this path, gets through.
    pub register: Option<Register>,
    pub path: Path,
    pub limits: Limits,
    pub table: Arc<ArcSwap<Table>>,
    pub admit: Admit,
    pub stats: Arc<Stats>,
}

/// See the module.
pub struct Poller {
    cycle: Cycle,
    poll: of_source::Poll,
    register: Option<Register>,
    path: Path,
    limits: Limits,
    clock: Steady,
    /// Cancelled once the API has answered.
    contacted: CancellationToken,
    state: Mutex<State>,
    /// Held by whoever tries first whether trouble is over.
    probe: tokio::sync::Mutex<()>,
    quiet: Quiet,
}

struct State {
    pace: Pace,
    circuit: Circuit,
    /// Lists that failed since the last one that did not.
    failed_in_a_row: usize,
    last_success_ms: Option<u64>,
    /// What this round has seen so far.
    round: Round,
    found: Found,
    find_not_before_ms: u64,
    deliveries_not_before_ms: u64,
    around_not_before_ms: u64,
    /// What could not be seen the last time.
    hidden: u64,
}

#[derive(Default)]
struct Round {
    not_pushed: bool,
    oldest_pending_ms: Option<u64>,
    /// Lists of agents behind whose full pages something may be out of sight.
    hidden: u64,
}

impl Poller {
    pub fn new(parts: Parts) -> Poller {
        let Parts { source, client, poll, register, path, limits, table, admit, stats } = parts;
        let clock = Steady::start();
        // That of the poller before this one is not this one's.
        stats.set_trouble(None);
        let pauses = Pauses { mode: poll.mode, fast: poll.every, slow: limits.slow_every };
        let pace = Pace::new(pauses, clock.now_ms());
        let cycle = Cycle {
            source,
            client,
            table,
            admit,
            take: poll.take,
            kind: poll.kind.clone(),
            push_grace: limits.push_grace,
            stats,
            memory: Mutex::new(Memory::new(poll.take)),
            clock,
            quiet: Quiet::default(),
        };
        let state = State {
            pace,
            circuit: Circuit::default(),
            failed_in_a_row: 0,
            last_success_ms: None,
            round: Round::default(),
            found: Found::default(),
            find_not_before_ms: 0,
            deliveries_not_before_ms: 0,
            around_not_before_ms: 0,
            hidden: 0,
        };
        let (contacted, probe, quiet) = Default::default();
        let state = Mutex::new(state);
        Poller { cycle, poll, register, path, limits, clock, contacted, state, probe, quiet }
    }

    /// Cancelled once the API has answered.
    pub fn contacted(&self) -> CancellationToken {
        self.contacted.clone()
    }

    /// Polls until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                let began_ms = self.clock.now_ms();
                let looked = timeout(DELIVERIES_WITHIN, self.look_at_deliveries());
                // One that comes to no end is taken up again at its next turn.
                let (_, ()) = tokio::join!(looked, self.round());
                let next_ms = self.end_round(began_ms);
                self.sleep_until(next_ms).await;
            }
        })
        .await;
    }

    /// Visits every list once.
    async fn round(&self) {
        let lists = self.lists().await;
        let at_once = self.limits.max_concurrent_lists.max(1);
        let visits = lists.into_iter().map(|list| self.visit_whole(list).boxed());
        stream::iter(visits).buffer_unordered(at_once).for_each(async |()| {}).await;
    }

    /// Whose lists are due.
    async fn lists(&self) -> Vec<List> {
        match &self.poll.whose {
            Whose::Project(project) => vec![List::of_project(project)],
            Whose::Agents { agents, users } => {
                let agents: Vec<Arc<str>> = match agents {
                    Agents::All => self.found(None).await.agents,
                    Agents::Named(names) => {
                        let named = names.iter().take(self.limits.max_agents);
                        self.note_agents(names.len(), named.len() < names.len());
                        named.map(|name| Arc::from(&**name)).collect()
                    }
                };
                of_agents(&agents, users)
            }
        }
    }

    /// The agents of a project, or of the key's own; looked for again now and then.
    async fn found(&self, project: Option<&str>) -> Found {
        if self.clock.now_ms() >= self.state().find_not_before_ms {
            let turn = self.gate().await;
            let found = find_agents(&self.cycle.client, project, self.limits.max_agents).await;
            self.note_call(found.as_ref().err().map(Failure::from));
            drop(turn);
            if let Ok(found) = found {
                self.note_agents(found.agents.len(), found.more);
                let mut state = self.state();
                let every = FIND_AGENTS_EVERY.as_millis() as u64;
                state.find_not_before_ms = self.clock.now_ms() + every;
                if state.found != found {
                    state.found = found;
                    drop(state);
                    self.forget_agents_that_are_gone();
                }
            }
        }
        self.state().found.clone()
    }

    fn note_agents(&self, polled: usize, more: bool) {
        let stats = &self.cycle.stats;
        if more && stats.agents_left_out.get() == 0 {
            let (source, max) = (&self.cycle.source, self.limits.max_agents);
            tracing::error!(
                %source, max_agents = max,
                "there are more agents than are polled: raise sonzai.max_agents"
            );
        }
        stats.agents.set(polled as u64);
        stats.agents_left_out.set(u64::from(more));
    }

    fn forget_agents_that_are_gone(&self) {
        let found = self.state().found.clone();
        let agents: rustc_hash::FxHashSet<Arc<str>> = found.agents.into_iter().collect();
        self.cycle.memory().keep_lists(|list| match list {
            List::Agent { agent, .. } | List::Project { agent: Some(agent), .. } => {
                agents.contains(agent)
            }
            List::Project { agent: None, .. } => true,
        });
    }

    /// Sees whether push works, now and then.
    async fn look_at_deliveries(&self) {
        let now_ms = self.clock.now_ms();
        let due = now_ms >= self.state().deliveries_not_before_ms;
        if self.poll.mode == Mode::Always || !due || self.state().circuit.trouble().is_some() {
            return;
        }
        self.state().deliveries_not_before_ms = now_ms + self.limits.slow_every.as_millis() as u64;
        let ours =
            Wanted { register: self.register.as_ref(), path: &self.path, authorization: None };
        match deliveries::fail(&self.cycle.client, ours, crate::clock::now_ms()).await {
            Ok(fail) => {
                self.contacted.cancel();
                self.cycle.stats.deliveries_fail.set(u64::from(fail));
                self.state().pace.attempts(fail, self.clock.now_ms());
            }
            // Polling will meet the same, and says so; a key that may only poll is no trouble.
            Err(error) => {
                let source = &self.cycle.source;
                tracing::debug!(%source, %error, "cannot see whether push works");
            }
        }
    }

    /// Looks at a list until nothing more can be had of it now.
    async fn visit_whole(&self, list: List) {
        let behind = self.visit(&list).await == Next::Behind;
        match &list {
            List::Project { project, .. } if behind => self.look_around(project).await,
            List::Project { .. } => self.state().hidden = 0,
            List::Agent { .. } => self.state().round.hidden += u64::from(behind),
        }
    }

    /// Looks at a list again and again, as long as that brings more; what kept it from bringing more.
    async fn visit(&self, list: &List) -> Next {
        let mut later = 0;
        for _ in 0..MAX_LOOKS_IN_A_ROW {
            if !self.cycle.memory().lets_through(list, self.clock.now_ms()) {
                return Next::Enough;
            }
            let turn = self.gate().await;
            let looked = self.cycle.look(list).await;
            let failed = looked.failure.is_some();
            let next = looked.look.next(list.can_be_narrowed());
            self.note(list, looked);
            drop(turn);
            match next {
                _ if failed => return Next::Enough,
                Next::Again => later = 0,
                Next::Later if later < MAX_LATER => {
                    let pause = FIRST_LATER.saturating_mul(1 << later).min(self.poll.every);
                    tokio::time::sleep(pause).await;
                    later += 1;
                }
                Next::Enough | Next::Later | Next::Behind => return next,
            }
        }
        Next::Again
    }

    /// Waits as long as trouble says so, and lets one at a time see whether it is over.
    async fn gate(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.state().circuit.trouble()?;
        let turn = self.probe.lock().await;
        let not_before_ms = self.state().circuit.trouble()?.not_before_ms;
        self.sleep_until(not_before_ms).await;
        Some(turn)
    }

    async fn sleep_until(&self, ms: u64) {
        let wait_ms = ms.saturating_sub(self.clock.now_ms());
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it, and it is never held over an await.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each agent's list, or those of the users in turn.
fn of_agents(agents: &[Arc<str>], users: &[String]) -> Vec<List> {
    let users: Vec<Option<Arc<str>>> = match users {
        [] => vec![None],
        users => users.iter().map(|user| Some(Arc::from(&**user))).collect(),
    };
    let of_agent = |agent: &Arc<str>| {
        let list =
            |user: &Option<Arc<str>>| List::Agent { agent: agent.clone(), user: user.clone() };
        users.iter().map(list).collect::<Vec<_>>()
    };
    agents.iter().flat_map(of_agent).collect()
}
