//! Fetches what an outage lost, and puts it into the same stream.
//!
//! Two places keep what was not delivered: an agent's history of notifications ([`history`]), and the
//! bodies of failed attempts at a webhook ([`attempts`]). Both are read as far back as is asked for;
//! what is known already falls out by the window of known events, as it does wherever an event
//! comes in ([`intake`]). What cannot be had is said: *out of reach*.
//!
//! One repair of a source at a time. Polling goes on meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio_util::sync::CancellationToken;

use self::intake::Intake;
use super::{
    client,
    poller::{self, deliveries, find_agents},
    service::{Account, Service},
};
use crate::{
    clock::{now_ms, rfc3339},
    source::sonzai::settings::{Agents, Scope, Whose},
};

mod attempts;
mod history;
mod intake;
mod summary;

pub use summary::{Counts, Line, Step, Summary};

/// The furthest that is looked back.
pub const MOST_SINCE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Agents whose calls fail one after the other until it is the API that is in trouble.
const TROUBLE_AFTER: u32 = 3;

/// What to repair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// May be left out where there is one source only.
    pub source: Option<String>,
    pub since_seconds: u64,
    /// These agents alone, by id.
    pub agents: Vec<String>,
    /// This project instead of the one in the routing table.
    pub project: Option<String>,
    /// Append nothing, and say what would be.
    pub dry_run: bool,
}

/// Whose turn it is to repair a source; outlives its account.
#[derive(Debug, Default)]
pub struct Turns {
    turn: Arc<Mutex<()>>,
    /// Whether the one after the start was made.
    after_start: AtomicBool,
}

/// Why there is no repair.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a repair of source `{0}` is under way: wait for its end")]
    Busy(ByteString),
    #[error(
        "it is to reach back for more than nothing, and at most for {}",
        humantime::format_duration(MOST_SINCE)
    )]
    Since,
    #[error("name agents or a project, not both")]
    AgentsAndProject,
}

/// Lines that wait for whoever asked.
const MAX_LINES: usize = 16;

/// Where the lines of a repair go: to whoever asked, who may go away, which ends it; or nowhere.
pub struct Listener(Option<mpsc::Sender<Line>>);

impl Listener {
    pub fn nobody() -> Listener {
        Listener(None)
    }

    /// One whose lines are received.
    pub fn channel() -> (Listener, mpsc::Receiver<Line>) {
        let (lines, received) = mpsc::channel(MAX_LINES);
        (Listener(Some(lines)), received)
    }

    /// Tells how far it is, if that does not hold it up.
    fn progress(&self, step: Step, done: u64, total: u64, summary: &Summary) {
        let Some(lines) = &self.0 else { return };
        let (found, new) = (summary.found(), summary.new_ones());
        // Who reads slowly misses some of it, and gets the summary all the same.
        lines.try_send(Line::Progress { step, done, total, found, new }).ok();
    }

    async fn end(&self, summary: &Summary) {
        if let Some(lines) = &self.0 {
            // Nobody may listen any more.
            lines.send(Line::Summary(summary.clone())).await.ok();
        }
    }

    /// Returns once nobody listens any more who did.
    async fn gone(&self) {
        match &self.0 {
            Some(lines) => lines.closed().await,
            None => std::future::pending().await,
        }
    }
}

/// A repair whose turn it is.
pub struct Repair {
    service: Service,
    account: Arc<Account>,
    request: Request,
    turn: OwnedMutexGuard<()>,
}

impl Repair {
    pub fn begin(
        service: Service,
        account: Arc<Account>,
        request: Request,
    ) -> Result<Repair, Error> {
        let since = Duration::from_secs(request.since_seconds);
        if since.is_zero() || since > MOST_SINCE {
            return Err(Error::Since);
        }
        if !request.agents.is_empty() && request.project.is_some() {
            return Err(Error::AgentsAndProject);
        }
        let turn = account.repairs.turn.clone().try_lock_owned();
        let turn = turn.map_err(|_| Error::Busy(account.source.clone()))?;
        Ok(Repair { service, account, request, turn })
    }

    /// Repairs, and tells `listener` how far it is and what came of it. Ends early when the account is
    /// replaced, the daemon ends, or the listener goes away.
    pub async fn run(self, listener: Listener) -> Summary {
        let Repair { service, account, request, turn } = self;
        let (service, account, request) = (&service, &*account, &request);
        let since = Duration::from_secs(request.since_seconds);
        let since_ms = now_ms().saturating_sub(since.as_millis() as u64);
        let mut work = Work {
            account,
            request,
            since_ms,
            listener: &listener,
            max_agents: service.settings().max_agents,
            intake: Intake::new(service, account, request.dry_run),
            summary: Summary::new(&account.source, rfc3339(since_ms), request.dry_run),
        };
        let remembers_for = service.admit().remembers_for();
        if since > remembers_for {
            work.summary.warnings.push(format!(
                "{} is further back than events are remembered (dedupe.window, {}): what came in \
                 before that comes again",
                humantime::format_duration(since),
                humantime::format_duration(remembers_for)
            ));
        }
        let ended = tokio::select! {
            () = work.all() => true,
            () = account.stop.cancelled() => false,
            () = listener.gone() => false,
        };
        let mut summary = work.summary;
        if !ended {
            summary.trouble_because("it was ended before it was through: run it again".to_owned());
        }
        // Who does not read the end holds up nobody who comes after.
        drop(turn);
        listener.end(&summary).await;
        summary
    }
}

/// What `poll: {repair: …}` asks for: once, after the API has answered for the first time. If the
/// account is replaced before it is through, it is left to the next one.
pub async fn after_start(
    service: Service,
    account: Arc<Account>,
    contacted: CancellationToken,
    since: Duration,
) {
    if account.repairs.after_start.load(Relaxed) {
        return;
    }
    if account.stop.run_until_cancelled(contacted.cancelled()).await.is_none() {
        return;
    }
    let (source, repairs) = (account.source.clone(), account.repairs.clone());
    let stop = account.stop.clone();
    let request = Request { since_seconds: since.as_secs(), ..Request::default() };
    match Repair::begin(service, account, request) {
        Ok(repair) => {
            let summary = repair.run(Listener::nobody()).await;
            if stop.is_cancelled() {
                // Other settings are in force by now: whoever works with those does it.
                return;
            }
            repairs.after_start.store(true, Relaxed);
            let (found, new, known) = (summary.found(), summary.new_ones(), summary.known());
            let out_of_reach = summary.out_of_reach();
            let notes = summary.notes().join("; ");
            if summary.trouble.is_empty() {
                tracing::info!(
                    %source, found, new, known, out_of_reach, notes, "repaired after the start"
                );
            } else {
                tracing::warn!(
                    %source, found, new, known, out_of_reach, notes,
                    "the repair after the start is not complete: run `waypost sonzai repair`"
                );
            }
        }
        Err(error) => tracing::warn!(%source, %error, "no repair after the start"),
    }
}

/// A repair under way.
struct Work<'w> {
    account: &'w Account,
    request: &'w Request,
    since_ms: u64,
    listener: &'w Listener,
    max_agents: usize,
    intake: Intake<'w>,
    summary: Summary,
}

impl Work<'_> {
    async fn all(&mut self) {
        self.histories().await;
        if !self.intake.is_full() {
            self.attempts().await;
        }
    }

    /// Whose history is read.
    async fn agents(&mut self) -> Vec<String> {
        if !self.request.agents.is_empty() {
            return self.request.agents.clone();
        }
        let poll = self.account.settings.poll.as_ref().map(|poll| &poll.whose);
        let project = match (&self.request.project, poll) {
            (Some(project), _) => Some(project.clone()),
            (None, Some(Whose::Agents { agents: Agents::Named(named), .. })) => {
                return named.clone();
            }
            (None, Some(Whose::Project(project))) => Some(project.clone()),
            (None, _) => match self.account.settings.register.as_ref().map(|it| &it.scope) {
                Some(Scope::Project(project)) => Some(project.clone()),
                _ => None,
            },
        };
        match find_agents(&self.account.client, project.as_deref(), self.max_agents).await {
            Ok(found) => {
                if found.more {
                    let max = self.max_agents;
                    self.summary.out_of_reach_because(
                        Step::History,
                        1,
                        format!("agents beyond the first {max} (sonzai.max_agents)"),
                    );
                }
                found.agents.iter().map(ToString::to_string).collect()
            }
            Err(error) => {
                self.trouble("cannot find the agents", &error);
                Vec::new()
            }
        }
    }

    /// Which webhooks' attempts are read.
    async fn webhooks(&mut self) -> Option<(Scope, Vec<String>)> {
        let register = self.account.settings.register.as_ref();
        let client = &self.account.client;
        let found = match (&self.request.project, register) {
            (Some(project), _) => {
                let scope = Scope::Project(project.clone());
                client.webhooks(&scope).await.map(|webhooks| {
                    let types = webhooks.into_iter().map(|webhook| webhook.event_type).collect();
                    (scope, types)
                })
            }
            (None, register) => deliveries::registered(client, register).await,
        };
        match found {
            Ok(found) => Some(found),
            Err(error) => {
                self.trouble("cannot see which webhooks are registered", &error);
                None
            }
        }
    }

    fn trouble(&mut self, what: &str, error: &client::Error) {
        self.summary.trouble_because(format!("{what}: {error}"));
    }

    /// Whether every further call would fail as this one did.
    fn is_of_all(error: &client::Error) -> bool {
        let kind = poller::circuit::Kind::of(error);
        kind.is_of_all()
    }
}
