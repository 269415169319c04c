//! What a dispatcher is told while it runs: which client to go on with, when to leave, how patient to
//! be. Nobody waits to tell.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::Limits;
use crate::{
    broker::{self, Absent, Broker},
    routing::{BrokerKind, Table, WhenFull},
};

/// A client.
pub struct Client {
    /// `None` where it only stands in for a broker that is not there.
    pub kind: Option<broker::Kind>,
    /// What it was built from, where that is known: equal settings are the same connection.
    pub settings: Option<Arc<BrokerKind>>,
    pub broker: Box<dyn Broker>,
}

impl Client {
    /// One that makes dead letters of everything, for this reason.
    pub fn absent(reason: &str) -> Client {
        Client { kind: None, settings: None, broker: Box::new(Absent::new(reason)) }
    }
}

/// What a dispatcher is to become.
pub struct Order {
    /// The client to go on with; `None`: its broker is in the routing table no more.
    pub client: Option<Client>,
    /// The terms on which the present one is left, unless the new one is of the same type.
    pub farewell: Farewell,
}

/// How the present client is left: not before everything is settled that was owed until then.
pub struct Farewell {
    /// The tables that were in force. While a request runs on one of them, there may be more.
    pub tables: Vec<Weak<Table>>,
    /// How long it goes on, from now or from when it takes over; then what is left becomes dead
    /// letters.
    pub time: Duration,
    /// Why it does.
    pub reason: ByteString,
}

/// How patient a dispatcher is, by the present table.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long a message that fails by itself is tried.
    pub retry_for: Duration,
    /// The same for some routes, which comes first.
    pub route_retries: Arc<FxHashMap<ByteString, Duration>>,
    /// Bytes of the main journal that the broker may hold back before they are parked.
    pub held_bytes: u64,
    /// Bytes that it may have parked.
    pub backlog_bytes: u64,
    pub when_full: WhenFull,
}

impl Policy {
    /// What holds where the table says nothing.
    pub fn of(limits: &Limits) -> Policy {
        Policy {
            retry_for: limits.retry_for,
            route_retries: Arc::default(),
            held_bytes: limits.backlog_bytes,
            backlog_bytes: limits.backlog_bytes,
            when_full: WhenFull::Refuse,
        }
    }

    /// How long a message of this route is tried.
    pub fn retry_for(&self, route: &ByteString) -> Duration {
        self.route_retries.get(route).copied().unwrap_or(self.retry_for)
    }
}

/// Tells a dispatcher. A cheap handle.
#[derive(Clone)]
pub struct Orders(Arc<Mailbox>);

struct Mailbox {
    state: Mutex<State>,
    told: Notify,
    policy: ArcSwap<Policy>,
}

#[derive(Default)]
struct State {
    /// In the order in which they were given. At most one a reload since the dispatcher last looked.
    orders: VecDeque<Order>,
    /// Somebody is about to tell it something: it must not end meanwhile.
    is_held: bool,
    has_ended: bool,
}

impl Orders {
    pub(super) fn new(policy: Policy) -> Orders {
        let (state, told) = Default::default();
        Orders(Arc::new(Mailbox { state, told, policy: ArcSwap::from_pointee(policy) }))
    }

    /// Keeps the dispatcher from ending of its own accord until it is told something or let go;
    /// `false` if it has ended already.
    pub fn hold(&self) -> bool {
        let mut state = self.lock();
        state.is_held = !state.has_ended;
        state.is_held
    }

    /// There is nothing to tell it after all.
    pub fn let_go(&self) {
        self.lock().is_held = false;
    }

    /// Tells it what to become. One that has ended does not hear it: see [`hold`](Self::hold).
    pub fn tell(&self, order: Order) {
        let mut state = self.lock();
        state.orders.push_back(order);
        state.is_held = false;
        self.0.told.notify_one();
    }

    /// How patient it is from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.0.policy.store(Arc::new(policy));
    }

    pub(super) fn policy(&self) -> arc_swap::Guard<Arc<Policy>> {
        self.0.policy.load()
    }

    /// Waits until there is an order. Cancel-safe.
    pub(super) async fn told(&self) {
        self.0.told.notified().await;
    }

    pub(super) fn take(&self) -> VecDeque<Order> {
        std::mem::take(&mut self.lock().orders)
    }

    /// The dispatcher ends, unless somebody has something to tell it.
    pub(super) fn end(&self) -> bool {
        let mut state = self.lock();
        state.has_ended = state.orders.is_empty() && !state.is_held;
        state.has_ended
    }

    /// No method leaves it half-made.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
