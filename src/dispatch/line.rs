//! The line of succession: the client that goes on, those that take over from it one after the other,
//! and the terms on which each is left.

use std::{collections::VecDeque, sync::Arc};

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    job::{Job, LaneKind},
    orders::{Client, Farewell, Order},
};
use crate::{broker, journal::Position, routing::BrokerKind};

/// See the module. It is bounded: there is at most one client of a type behind the present one.
pub(super) struct Line {
    /// The present client's type; `None` where that stands in for a broker that is not there.
    kind: Option<broker::Kind>,
    /// What the present client was built from.
    settings: Option<Arc<BrokerKind>>,
    /// On which the present client is left; `None` while it stays.
    terms: Option<Terms>,
    successors: VecDeque<Successor>,
    /// What lies below this is older than the first order.
    began: Position,
}

/// A client that takes over once all is settled that the one before it was owed.
struct Successor {
    client: Client,
    /// On which it is left in turn. Each but the last has them; if the last has, too, nobody comes
    /// after it.
    terms: Option<Terms>,
}

/// How a client is left.
struct Terms {
    farewell: Farewell,
    /// Everything that it is owed lies below this; `None` while more may come.
    boundary: Option<Position>,
    /// Its time, which begins once it is told or takes over.
    time: Option<Time>,
}

struct Time {
    until: Instant,
    is_over: bool,
    /// Dead letters of this dispatcher before.
    dead_before: u64,
}

/// How a client was left, in the end.
pub(super) struct Left {
    /// Dead letters meanwhile.
    pub dead_letters: u64,
    /// Whether its time was over.
    pub was_over: bool,
}

impl Line {
    /// Nobody yet.
    pub fn vacant(began: Position) -> Line {
        Line { kind: None, settings: None, terms: None, successors: VecDeque::new(), began }
    }

    /// One client, and none after it; from the journal's end on.
    pub fn of(client: &Client, began: Position) -> Line {
        Line { kind: client.kind, settings: client.settings.clone(), ..Line::vacant(began) }
    }

    pub fn kind(&self) -> Option<broker::Kind> {
        self.kind
    }

    /// Takes in an order. Gives back a client that takes the present one's place at once: it is of the
    /// same type, and nobody waits behind that. One that is built from the same settings is not needed:
    /// the present one stays after all, with what it has in flight.
    pub fn follow(&mut self, order: Order, now: Instant, dead_letters: u64) -> Option<Client> {
        let Order { mut client, farewell } = order;
        let (last, terms) = match self.successors.back_mut() {
            Some(last) => (last.client.kind, &mut last.terms),
            None => (self.kind, &mut self.terms),
        };
        if let Some(client) = client.take_if(|client| last.is_none() || client.kind == last) {
            let was_over = terms.take().is_some_and(|terms| terms.is_over());
            return if was_over || !self.is_last(&client) {
                self.replace_last(client)
            } else {
                None
            };
        }
        // If it is left already, its time has begun; nothing came for it since.
        terms.get_or_insert_with(|| Terms::new(farewell));
        self.begin(now, dead_letters);
        if let Some(client) = client {
            // What waits for an older client of its type is for this one as well.
            self.successors.retain(|successor| successor.client.kind != client.kind);
            self.successors.push_back(Successor { client, terms: None });
        }
        None
    }

    /// Whether the last client in the line is built from the same settings.
    fn is_last(&self, client: &Client) -> bool {
        let last = match self.successors.back() {
            Some(last) => &last.client.settings,
            None => &self.settings,
        };
        last.is_some() && *last == client.settings
    }

    fn replace_last(&mut self, client: Client) -> Option<Client> {
        match self.successors.back_mut() {
            Some(last) => {
                last.client = client;
                None
            }
            None => {
                (self.kind, self.settings) = (client.kind, client.settings.clone());
                Some(client)
            }
        }
    }

    /// All that the present client was owed is settled: who takes over.
    pub fn next(&mut self, now: Instant, dead_letters: u64) -> Option<Client> {
        let Successor { client, terms } = self.successors.pop_front()?;
        (self.kind, self.settings, self.terms) = (client.kind, client.settings.clone(), terms);
        self.begin(now, dead_letters);
        Some(client)
    }

    /// The present client's time begins, if it is left and that has not begun.
    fn begin(&mut self, now: Instant, dead_before: u64) {
        if let Some(Terms { farewell, time, .. }) = &mut self.terms {
            let until = now + farewell.time;
            time.get_or_insert(Time { until, is_over: false, dead_before });
        }
    }

    /// With the journal's end: that is the boundary of those on whose tables no request runs any more.
    /// Whether there is a new one.
    pub fn find_boundaries(&mut self, end: Position) -> bool {
        let queued = self.successors.iter_mut().filter_map(|successor| successor.terms.as_mut());
        let open = self.terms.iter_mut().chain(queued).filter(|terms| terms.boundary.is_none());
        let mut found = false;
        for terms in open.filter(|terms| !terms.may_grow()) {
            terms.boundary = Some(end);
            found = true;
        }
        found
    }

    /// If the present client's time is over since the last look: the reason for which what is left
    /// becomes dead letters.
    pub fn runs_out(&mut self, now: Instant) -> Option<ByteString> {
        let Terms { farewell, time, .. } = self.terms.as_mut()?;
        let time = time.as_mut().filter(|time| !time.is_over && time.until <= now)?;
        time.is_over = true;
        Some(farewell.reason.clone())
    }

    /// Whether what the present client is still owed becomes dead letters.
    pub fn is_over(&self) -> bool {
        self.terms.as_ref().is_some_and(Terms::is_over)
    }

    /// Everything that the present client is owed lies below this, if it is left and that is known.
    pub fn boundary(&self) -> Option<Position> {
        self.terms.as_ref()?.boundary
    }

    /// Whether a job is for one that takes over: by its address, and where a client of the same type
    /// comes back behind one of another, by its place.
    pub fn is_for_successor(&self, job: &Job) -> bool {
        let Ok(address) = &job.message.address else { return false };
        let kind = broker::Kind::of(address);
        let past = |position| job.lane == LaneKind::Main && job.position >= position;
        let is_for_present = match self.kind {
            // It may be of a time when that was not to be seen in the address.
            Some(present) if !past(self.began) => present.takes(address),
            present => present == Some(kind),
        };
        let is_late = self.boundary().is_some_and(past);
        let waits = || self.successors.iter().any(|next| next.client.kind == Some(kind));
        (!is_for_present || is_late) && waits()
    }

    /// How the present client was left, if it was.
    pub fn left(&self, dead_letters: u64) -> Option<Left> {
        let terms = self.terms.as_ref()?;
        let before = terms.time.as_ref().map_or(dead_letters, |time| time.dead_before);
        Some(Left { dead_letters: dead_letters - before, was_over: terms.is_over() })
    }
}

impl Terms {
    fn new(farewell: Farewell) -> Terms {
        Terms { farewell, boundary: None, time: None }
    }

    fn is_over(&self) -> bool {
        self.time.as_ref().is_some_and(|time| time.is_over)
    }

    /// Whether a request still runs on a table that was in force before.
    fn may_grow(&self) -> bool {
        self.farewell.tables.iter().any(|table| table.strong_count() > 0)
    }
}
