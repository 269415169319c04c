//! One look at one list: list, let in, wait until it is durable, take.
//!
//! The order is the promise: nothing is taken upstream that is not on disk here, or owes nothing.
//! What ends between two steps, by whatever happens, is done again: the window of known events says
//! what is in already.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use futures_util::{FutureExt, StreamExt, stream};

use super::{
    circuit::{Failure, Kind},
    list::{Item, List, Page},
    look::Look,
    memory::{Memory, Todo},
    recent::Key,
    stats::Stats,
    stuck,
    take::{self, No, Taken},
};
use crate::{
    admit::{self, Admit, Outcome},
    clock::{Steady, now_ms},
    journal::AppendError,
    quiet::Quiet,
    routing::Table,
    sonzai::client::Client,
};

/// Items of one list that wait at once to be durable: what waits together shares a sync.
const ADMITTED_AT_ONCE: usize = 64;

/// What a look needs; see the module.
pub struct Cycle {
    pub source: ByteString,
    pub client: Client,
    pub table: Arc<ArcSwap<Table>>,
    pub admit: Admit,
    /// `poll.take`.
    pub take: bool,
    /// `poll.type`.
    pub kind: ByteString,
    /// How long a webhook may take to come: `sonzai.push_grace`.
    pub push_grace: Duration,
    pub stats: Arc<Stats>,
    pub memory: Mutex<Memory>,
    pub clock: Steady,
    pub quiet: Quiet,
}

/// What became of a look.
#[derive(Debug, Default)]
pub struct Looked {
    pub look: Look,
    /// Whether an item was appended whose webhook should have come before.
    pub not_pushed: bool,
    /// Whether its first item alone is larger than an answer may be.
    pub too_large: bool,
    /// What it was ended by, if it did not end well.
    pub failure: Option<Failure>,
}

/// What became of an item at the door.
struct Knocked {
    item: Known,
    outcome: Result<Outcome, admit::Error>,
}

/// An item whose event has been made of it.
#[derive(Clone)]
struct Known {
    key: Key,
    id: ByteString,
    created_ms: Option<u64>,
}

impl Cycle {
    /// See the module. Never fails as a whole: what was done is told beside what failed.
    pub async fn look(&self, list: &List) -> Looked {
        self.stats.looks.inc();
        let (page, limit) = match self.ask(list).await {
            Ok(answer) => answer,
            Err(failure) if failure.kind == Kind::TooLarge => return self.one_is_too_large(list),
            Err(failure) => return Looked { failure: Some(failure), ..Looked::default() },
        };
        let mut looked = Looked::default();
        looked.look.listed = page.items.len() + page.unreadable;
        looked.look.full = looked.look.listed >= limit as usize;
        let (fresh, durable) = self.sort(page, &mut looked.look);
        let durable = self.let_in(list, fresh, durable, &mut looked).await;
        if !self.take {
            let mut memory = self.memory();
            let now_ms = self.clock.now_ms();
            durable.iter().for_each(|item| memory.done(item.key, now_ms));
            looked.look.done += durable.len();
        } else if !durable.is_empty() {
            self.take_durable(list, durable, &mut looked).await;
        }
        if !self.take {
            // What is not taken on purpose is nobody's debt.
            looked.look.oldest_pending_ms = None;
        }
        looked
    }

    /// The first item is larger than an answer may be: what is behind it may be seen otherwise.
    fn one_is_too_large(&self, list: &List) -> Looked {
        if self.memory().tells_too_large(list)
            && let Some(more) = self.quiet.speaks(self.clock.now_ms())
        {
            let source = &self.source;
            tracing::error!(
                %source, %list, more,
                "a notification alone is larger than an answer may be: raise \
                 sonzai.max_answer_bytes, or take it yourself"
            );
        }
        let look = Look { full: true, listed: 1, ..Look::default() };
        Looked { look, too_large: true, ..Looked::default() }
    }

    /// The list's answer, and how much was asked for.
    async fn ask(&self, list: &List) -> Result<(Page, u32), Failure> {
        loop {
            let limit = self.memory().page(list);
            match list.ask(&self.client, limit).await {
                Ok(page) => {
                    self.stats.listed.add(page.items.len() as u64);
                    self.stats.unreadable.add(page.unreadable as u64);
                    self.stats.last_success_ms.set(now_ms());
                    return Ok((page, limit));
                }
                Err(error) if error.is_too_large() && self.memory().too_large(list) => {}
                Err(error) => return Err(Failure::from(&error)),
            }
        }
    }

    /// What is to be let in, and what is in already and to be taken.
    fn sort(&self, page: Page, look: &mut Look) -> (Vec<Item>, Vec<Known>) {
        let (now_ms, mut memory) = (self.clock.now_ms(), self.memory());
        let (mut fresh, mut durable) = (Vec::new(), Vec::new());
        for item in page.items {
            if let Some(kind) = item.kind() {
                memory.note_type(kind);
            }
            match memory.todo(&item.key, now_ms) {
                Todo::Admit => fresh.push(item),
                Todo::Take => durable.push(Known::of(&item)),
                Todo::Taken => look.cached += 1,
                Todo::Leave => look.stays(item.created_ms),
            }
        }
        (fresh, durable)
    }

    /// Lets in what is `fresh`; returns what is durable, or owes nothing, beside what was.
    async fn let_in(
        &self,
        list: &List,
        fresh: Vec<Item>,
        mut durable: Vec<Known>,
        looked: &mut Looked,
    ) -> Vec<Known> {
        let table = self.table.load_full();
        let Some((_, source)) = table.sources().find(|(_, source)| source.name == self.source)
        else {
            // It was just taken out of the routing table, and whoever polls it is about to end.
            return Vec::new();
        };
        let table = &*table;
        let knocks = fresh.into_iter().map(|item| {
            let known = Known::of(&item);
            let (event, keys) = item.event(source, &self.kind, now_ms());
            let knock = async move {
                let outcome = self.admit.admit(table, keys, event, ()).await;
                Knocked { item: known, outcome: outcome.map(|admitted| admitted.outcome) }
            };
            knock.boxed()
        });
        let mut knocks = stream::iter(knocks).buffered(ADMITTED_AT_ONCE);
        while let Some(Knocked { item, outcome }) = knocks.next().await {
            match outcome {
                Ok(outcome) => {
                    self.count(outcome, &item, looked);
                    durable.push(item);
                }
                Err(error) => {
                    looked.look.stays(item.created_ms);
                    match error {
                        admit::Error::Append(AppendError::TooLarge) => self.too_large(list, &item),
                        // Others of the page may have room all the same: they are owed to other
                        // brokers.
                        error => looked.failure = Some(no_room(&error)),
                    }
                }
            }
        }
        durable
    }

    fn count(&self, outcome: Outcome, item: &Known, looked: &mut Looked) {
        match outcome {
            Outcome::Appended => self.stats.appended.inc(),
            Outcome::Duplicate => self.stats.duplicates.inc(),
            Outcome::Dropped => self.stats.dropped.inc(),
        }
        let grace_ms = self.push_grace.as_millis() as u64;
        let late = item.created_ms.is_some_and(|ms| now_ms().saturating_sub(ms) > grace_ms);
        looked.not_pushed |= late && outcome == Outcome::Appended;
    }

    fn too_large(&self, list: &List, item: &Known) {
        let now_ms = self.clock.now_ms();
        if self.memory().stuck(item.key, stuck::Why::TooLarge, now_ms)
            && let Some(more) = self.quiet.speaks(now_ms)
        {
            let (source, id) = (&self.source, &item.id);
            tracing::error!(
                %source, %list, ?id, more,
                "a notification is larger than the journal takes; it stays where it is, and can be \
                 had from Sonzai alone"
            );
        }
    }

    async fn take_durable(&self, list: &List, durable: Vec<Known>, looked: &mut Looked) {
        let mut rest = &durable[..];
        while !rest.is_empty() && looked.failure.as_ref().is_none_or(|f| f.kind == Kind::NoRoom) {
            let (now, later) = rest.split_at(rest.len().min(list.taken_at_once()));
            let answers = take::take(now.len(), |range| {
                let ids: Vec<ByteString> = now[range].iter().map(|item| item.id.clone()).collect();
                async move { list.take(&self.client, &ids).await.map_err(No::from) }
            })
            .await;
            let (now_ms, mut memory) = (self.clock.now_ms(), self.memory());
            for (item, taken) in now.iter().zip(answers.taken) {
                match taken {
                    Taken::Done => {
                        memory.done(item.key, now_ms);
                        self.stats.taken.inc();
                        looked.look.done += 1;
                    }
                    Taken::Refused(words) => {
                        looked.look.stays(item.created_ms);
                        let new = memory.stuck(item.key, stuck::Why::Refused, now_ms);
                        if let (true, Some(more)) = (new, self.quiet.speaks(now_ms)) {
                            let (source, id) = (&self.source, &item.id);
                            tracing::warn!(
                                %source, %list, ?id, error = %words, more,
                                "a notification cannot be taken; it is durable here, and taking it \
                                 is tried again now and then"
                            );
                        }
                    }
                    Taken::Unknown => looked.look.stays(item.created_ms),
                }
            }
            drop(memory);
            looked.failure = answers.failure.or(looked.failure.take());
            rest = later;
        }
        rest.iter().for_each(|item| looked.look.stays(item.created_ms));
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nobody panics while holding it, and it is never held over an await.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn of(item: &Item) -> Known {
        Known { key: item.key, id: item.id.clone(), created_ms: item.created_ms }
    }
}

fn no_room(error: &admit::Error) -> Failure {
    let words = format!("{error}: nothing is taken meanwhile");
    Failure { kind: Kind::NoRoom, words, wait: None }
}
