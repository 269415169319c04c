//! Lets in what a repair found, or only looks whether it would be new.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, stream};
use rustc_hash::FxHashSet;

use super::summary::{Step, Summary};
use crate::{
    admit::{self, Admit, Outcome},
    clock::now_ms,
    dedupe::{Key, Keys},
    event::Event,
    journal::AppendError,
    routing::Table,
    sonzai::service::{Account, Service},
    source::Source,
};

/// Events that wait at once to be durable: what waits together shares a sync.
const ADMITTED_AT_ONCE: usize = 64;

/// See the module.
pub struct Intake<'i> {
    table: Arc<Table>,
    account: &'i Account,
    admit: &'i Admit,
    /// `Some` where nothing is let in: keys of what would have been.
    dry: Option<FxHashSet<Key>>,
    full: bool,
}

impl<'i> Intake<'i> {
    pub fn new(service: &'i Service, account: &'i Account, dry_run: bool) -> Intake<'i> {
        let (table, admit) = (service.table().load_full(), service.admit());
        Intake { table, account, admit, dry: dry_run.then(FxHashSet::default), full: false }
    }

    /// Whether there was no room for something: more is not to be tried.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The events that `made` makes for the source, as far as it is still in the routing table.
    pub fn make<T>(
        &self,
        all: impl IntoIterator<Item = T>,
        made: impl Fn(&Source, T) -> (Event, Keys),
    ) -> Vec<(Event, Keys)> {
        let mut sources = self.table.sources();
        let source = sources.find(|(_, source)| source.name == self.account.source);
        let Some((_, source)) = source else { return Vec::new() };
        all.into_iter().map(|item| made(source, item)).collect()
    }

    /// Lets these in, and counts them.
    pub async fn take(&mut self, step: Step, events: Vec<(Event, Keys)>, summary: &mut Summary) {
        summary.counts(step).found += events.len() as u64;
        if let Some(would_be) = &mut self.dry {
            let counts = summary.counts(step);
            for (_, keys) in &events {
                let among = keys.looked_up().iter().any(|it| would_be.contains(&it.key));
                if among || self.admit.knows(keys, now_ms()) {
                    counts.known += 1;
                } else {
                    counts.new += 1;
                    would_be.extend(keys.registered());
                }
            }
            return;
        }
        let (admit, table) = (self.admit, &*self.table);
        let admissions = events.into_iter().map(|(event, keys)| {
            let admission = async move {
                let admitted = admit.admit(table, keys, event, ()).await;
                admitted.map(|admitted| admitted.outcome)
            };
            admission.boxed()
        });
        let mut admissions = stream::iter(admissions).buffered(ADMITTED_AT_ONCE);
        while let Some(outcome) = admissions.next().await {
            match outcome {
                Ok(Outcome::Appended) => summary.counts(step).new += 1,
                Ok(Outcome::Duplicate) => summary.counts(step).known += 1,
                Ok(Outcome::Dropped) => summary.counts(step).dropped += 1,
                Err(admit::Error::Append(AppendError::TooLarge)) => {
                    let reason =
                        format!("one of the {} is larger than the journal takes", step.name());
                    summary.out_of_reach_because(step, 1, reason);
                }
                Err(error) if !self.full => {
                    self.full = true;
                    summary.trouble_because(format!("{error}: mend that and run it again"));
                }
                Err(_) => {}
            }
        }
    }
}
