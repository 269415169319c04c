//! The dispatchers, one a broker, and how they come to be what a table says: everything that can fail
//! is done first ([`Fleet::plan`], [`Fleet::prepare`]), then the table is put in force, then they are told
//! ([`Fleet::commit`]).

use std::{
    collections::BTreeMap,
    future,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use rustc_hash::FxHashMap;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Error, brokers,
    damage::Teller,
    open::{Opener, dispatch_limits, parked_journal},
};
use crate::{
    admin,
    dispatch::{Client, Dispatcher, Farewell, Order, Orders, Policy},
    journal::Journal,
    routing::{BrokerKind, BrokerPolicy, BrokerSettings, Table, UNROUTED},
};

/// How long a removed broker goes on through its old client, unless it said otherwise.
const DRAIN_FOR: Duration = Duration::from_secs(300);

/// See the module.
pub struct Fleet {
    opener: Opener,
    members: BTreeMap<ByteString, Member>,
    running: JoinSet<(ByteString, Result<(), Error>)>,
    /// For whoever looks.
    shown: Arc<ArcSwap<Vec<admin::Broker>>>,
    stop: CancellationToken,
}

/// A dispatcher that runs.
struct Member {
    role: Role,
    /// How long it goes on once it is removed.
    drain_for: Duration,
    orders: Orders,
    shown: admin::Broker,
}

/// Whose dispatcher it is.
enum Role {
    /// A broker's of the table in force.
    Listed(Box<BrokerKind>),
    /// Of what no route takes.
    Unrouted,
    /// A broker's that is in the table no more.
    Removed,
}

impl Role {
    fn shown(&self) -> admin::Role {
        match self {
            Role::Listed(kind) => admin::Role::Listed(kind.of_type()),
            Role::Unrouted => admin::Role::Unrouted,
            Role::Removed => admin::Role::Removed,
        }
    }
}

/// What a table changes.
#[derive(Default)]
pub struct Plan {
    added: Vec<BrokerSettings>,
    /// Their dispatchers are kept from ending until they are told something, or let go.
    changed: Vec<BrokerSettings>,
    removed: Vec<ByteString>,
}

/// What a table needs, ready to be put in force.
#[derive(Default)]
pub struct Prepared {
    added: Vec<Addition>,
    changed: Vec<(BrokerSettings, Client)>,
    removed: Vec<ByteString>,
}

/// A dispatcher that does not run yet.
struct Addition {
    name: ByteString,
    role: Role,
    client: Client,
    dispatcher: Dispatcher,
    parked: Journal,
    /// Whether no broker had this name before.
    is_new: bool,
}

impl Prepared {
    /// The names of the brokers that are added, changed and removed.
    pub fn names(&self) -> [Vec<String>; 3] {
        let names = |names: &mut dyn Iterator<Item = &ByteString>| {
            names.map(|name| name.to_string()).collect()
        };
        [
            names(&mut self.added.iter().map(|added| &added.name)),
            names(&mut self.changed.iter().map(|(settings, _)| &settings.name)),
            names(&mut self.removed.iter()),
        ]
    }
}

impl Fleet {
    pub fn new(opener: Opener) -> Fleet {
        let (members, running, shown, stop) = Default::default();
        Fleet { opener, members, running, shown, stop }
    }

    /// Whoever cancels this ends all, once they are drained.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// What whoever looks is shown.
    pub fn shown(&self) -> Arc<ArcSwap<Vec<admin::Broker>>> {
        self.shown.clone()
    }

    /// What the first table needs, and what was left by those before: what is still owed to names
    /// that are not in the table becomes dead letters. Blocks.
    pub fn prepare_first(&self, table: &Table) -> Result<Prepared, Error> {
        let mut prepared = Prepared::default();
        self.opener.open(table.brokers().to_vec(), Vec::new(), &mut prepared)?;
        let no_route = Client::absent("no route takes the event");
        prepared.added.push(self.opener.addition(UNROUTED.into(), Role::Unrouted, no_route)?);
        for name in self.opener.shared.main.place_names() {
            if name != UNROUTED && !table.brokers().iter().any(|broker| *broker.name == *name) {
                let absent = Client::absent(&not_listed(&name));
                prepared.added.push(self.opener.addition(name.into(), Role::Removed, absent)?);
            }
        }
        Ok(prepared)
    }

    /// What a table that is to be put in force changes. It must be [prepared](Self::prepare). The error
    /// is one that the daemon cannot go on with.
    pub async fn plan(&mut self, table: &Table) -> Result<Plan, Error> {
        let listed = |name: &ByteString| table.brokers().iter().any(|broker| broker.name == *name);
        let mut plan = Plan::default();
        for settings in table.brokers() {
            match self.members.get(&settings.name) {
                Some(Member { role: Role::Listed(kind), .. }) if **kind == settings.kind => {}
                Some(member) if member.orders.hold() => plan.changed.push(settings.clone()),
                Some(_) => {
                    // It has left by now; its files are free once it has ended.
                    while self.members.contains_key(&settings.name) {
                        self.ended().await?;
                    }
                    plan.added.push(settings.clone());
                }
                None => plan.added.push(settings.clone()),
            }
        }
        for (name, member) in &self.members {
            if matches!(member.role, Role::Listed(_)) && !listed(name) {
                plan.removed.push(name.clone());
            }
        }
        Ok(plan)
    }

    /// Does everything that can fail. What is prepared must be committed or
    /// [abandoned](Self::abandon); on an error all is as it was.
    pub async fn prepare(&self, plan: Plan) -> Result<Prepared, Error> {
        let Plan { added, changed, removed } = plan;
        let held: Vec<ByteString> = changed.iter().map(|settings| settings.name.clone()).collect();
        let opener = self.opener.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let mut prepared = Prepared { removed, ..Prepared::default() };
            let opened = opener.open(added, changed, &mut prepared);
            (prepared, opened)
        });
        let (prepared, error) = match opening.await {
            Ok((prepared, Ok(()))) => return Ok(prepared),
            Ok((prepared, Err(error))) => (prepared, error),
            Err(panicked) => (Prepared::default(), Error::Panicked(panicked)),
        };
        self.let_go(&held);
        self.abandon(prepared).await;
        Err(error)
    }

    /// The table is not put in force after all.
    pub async fn abandon(&self, prepared: Prepared) {
        let held: Vec<_> =
            prepared.changed.into_iter().map(|(settings, _)| settings.name).collect();
        self.let_go(&held);
        for Addition { name, dispatcher, parked, is_new, .. } in prepared.added {
            drop(dispatcher);
            parked.close().await;
            if !is_new {
                continue;
            }
            if let Err(error) = self.opener.shared.main.forget_place(&name).await {
                tracing::warn!(broker = %name, %error, "a place that nobody needs stays behind");
            }
        }
    }

    fn let_go(&self, names: &[ByteString]) {
        for member in names.iter().filter_map(|name| self.members.get(name)) {
            member.orders.let_go();
        }
    }

    /// Tells the dispatchers what the table says, which is in force by now; `past` are those that
    /// were.
    pub fn commit(&mut self, table: &Table, prepared: Prepared, past: &[Weak<Table>]) {
        let Prepared { added, changed, removed } = prepared;
        for (BrokerSettings { name, kind, .. }, client) in changed {
            let Some(member) = self.members.get_mut(&name) else { continue };
            let reason = format!("broker `{name}` became one of type {}", kind.of_type().name());
            member.tell(Role::Listed(Box::new(kind)), Some(client), past, reason);
        }
        for name in removed {
            let Some(member) = self.members.get_mut(&name) else { continue };
            let drain_for = humantime::format_duration(member.drain_for);
            tracing::info!(broker = %name, %drain_for, "a broker is removed: what it is owed goes first");
            let reason = format!("broker `{name}` was removed from routes.yaml");
            member.tell(Role::Removed, None, past, reason);
        }
        added.into_iter().for_each(|addition| self.start(addition));
        self.set_policies(table);
        self.show();
    }

    fn start(&mut self, addition: Addition) {
        let Addition { name, role, client, dispatcher, parked, .. } = addition;
        let orders = dispatcher.orders();
        let shown = admin::Broker {
            name: name.clone(),
            role: role.shown(),
            stats: dispatcher.stats(),
            parked: parked.clone(),
            backlog_bytes: self.opener.settings.backlog_bytes(),
        };
        if let Role::Removed = role {
            let reason = not_listed(&name).into();
            let farewell = Farewell { tables: Vec::new(), time: Duration::ZERO, reason };
            orders.tell(Order { client: None, farewell });
        }
        let member = Member { role, drain_for: DRAIN_FOR, orders, shown };
        self.members.insert(name.clone(), member);
        let teller = Teller {
            journal: parked.clone(),
            whose: name.clone(),
            dead_letters: self.opener.shared.dead_letters.clone(),
            data_dir: self.opener.settings.data_dir.clone(),
            window: None,
        };
        let stop = self.stop.clone();
        self.running.spawn(async move {
            let outcome = tokio::select! {
                biased;
                error = parked.failed() => Err(Error::JournalFailed(error)),
                ended = dispatcher.run(client, stop) => {
                    ended.map_err(|cause| Error::Dispatcher { broker: name.clone(), cause })
                }
                never = teller.run() => match never {},
            };
            (name, outcome)
        });
    }

    fn set_policies(&mut self, table: &Table) {
        let retries: FxHashMap<ByteString, Duration> =
            table.route_retries().map(|(route, retry_for)| (route.clone(), retry_for)).collect();
        let retries = Arc::new(retries);
        for BrokerSettings { name, policy, .. } in table.brokers() {
            let Some(member) = self.members.get_mut(name) else { continue };
            member.drain_for = policy.drain_for.unwrap_or(DRAIN_FOR);
            let policy = self.opener.policy(policy, retries.clone());
            let bounds = parked_journal(&self.opener.settings, policy.backlog_bytes);
            member.shown.parked.set_bounds(bounds.segment_bytes, bounds.max_bytes);
            member.shown.backlog_bytes = policy.backlog_bytes;
            member.orders.set_policy(policy);
        }
    }

    fn show(&self) {
        let shown = self.members.values().map(|member| member.shown.clone()).collect();
        self.shown.store(Arc::new(shown));
    }

    /// Waits until a dispatcher has ended: a removed broker's, which is then forgotten. Any other end
    /// is an error, unless all were told to `stop`: who waits may see that later than their end.
    /// Cancel-safe.
    pub async fn ended(&mut self) -> Result<(), Error> {
        let Some(ended) = self.running.join_next().await else { return future::pending().await };
        let name = outcome(ended)?;
        let removed = matches!(self.members.get(&name), Some(Member { role: Role::Removed, .. }));
        if self.stop.is_cancelled() {
            return Ok(());
        }
        if !removed {
            let what = format!("the dispatcher of broker `{name}`");
            return Err(Error::Ended(what.into()));
        }
        self.members.remove(&name);
        self.show();
        Ok(())
    }

    /// Waits until all have ended, after `stop`.
    pub async fn drained(mut self) -> Result<(), Error> {
        while let Some(ended) = self.running.join_next().await {
            outcome(ended)?;
        }
        Ok(())
    }
}

impl Member {
    fn tell(&mut self, role: Role, client: Option<Client>, past: &[Weak<Table>], reason: String) {
        let reason = format!("{reason}, and its time to drain (drain.for) is over").into();
        let farewell = Farewell { tables: past.to_vec(), time: self.drain_for, reason };
        self.shown.role = role.shown();
        self.role = role;
        self.orders.tell(Order { client, farewell });
    }
}

impl Opener {
    /// Opens the dispatchers of the brokers that are added, and builds the clients of all. Blocks.
    fn open(
        &self,
        added: Vec<BrokerSettings>,
        changed: Vec<BrokerSettings>,
        prepared: &mut Prepared,
    ) -> Result<(), Error> {
        let client = |settings: &BrokerSettings| brokers::client(settings, &self.settings.data_dir);
        // Clients first, of which any may be refused; nothing of them is to be undone.
        let clients: Vec<Client> = added.iter().map(client).collect::<Result<_, _>>()?;
        for settings in changed {
            let client = client(&settings)?;
            prepared.changed.push((settings, client));
        }
        let known = self.shared.main.place_names();
        for (settings, client) in added.into_iter().zip(clients) {
            let BrokerSettings { name, kind, policy } = settings;
            let is_new = !known.iter().any(|known| **known == *name);
            let addition = self.addition_of(name, Role::Listed(Box::new(kind)), client, &policy)?;
            prepared.added.push(Addition { is_new, ..addition });
        }
        Ok(())
    }

    fn addition(&self, name: ByteString, role: Role, client: Client) -> Result<Addition, Error> {
        self.addition_of(name, role, client, &BrokerPolicy::default())
    }

    fn addition_of(
        &self,
        name: ByteString,
        role: Role,
        client: Client,
        policy: &BrokerPolicy,
    ) -> Result<Addition, Error> {
        let backlog_bytes = policy.backlog_bytes.unwrap_or(self.settings.backlog_bytes());
        let (dispatcher, parked) = self.dispatcher(&name, backlog_bytes)?;
        Ok(Addition { name, role, client, dispatcher, parked, is_new: false })
    }

    /// What the table says, and the settings where it does not.
    fn policy(
        &self,
        given: &BrokerPolicy,
        route_retries: Arc<FxHashMap<ByteString, Duration>>,
    ) -> Policy {
        let default = Policy::of(&dispatch_limits(&self.settings));
        let backlog_bytes = given.backlog_bytes.unwrap_or(default.backlog_bytes);
        Policy {
            retry_for: given.retry_for.unwrap_or(default.retry_for),
            route_retries,
            // It is told by whole segments, and never more than the journal can spare.
            held_bytes: backlog_bytes
                .max(2 * self.settings.journal.segment_bytes)
                .min(default.held_bytes),
            backlog_bytes,
            when_full: given.when_full,
        }
    }
}

fn not_listed(name: &str) -> String {
    format!("broker `{name}` is not in the routing table")
}

/// Whose dispatcher has ended; the error is why it failed.
fn outcome(ended: Result<(ByteString, Result<(), Error>), JoinError>) -> Result<ByteString, Error> {
    let (name, outcome) = ended.map_err(Error::Panicked)?;
    outcome.map(|()| name)
}
