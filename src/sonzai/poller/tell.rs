//! Notes what came of looks, calls and rounds: what the next round goes by, and what people are told.

use std::time::Duration;

use super::{
    OF_ALL_AFTER, OF_ALL_WITHOUT_SUCCESS_FOR, Poller,
    circuit::{self, Failure, News},
    cycle::Looked,
    list::List,
    stuck,
};
use crate::source::sonzai::settings::Whose;

/// From one round to the next, at least.
const SHORTEST_ROUND_MS: u64 = 1000;

impl Poller {
    /// Notes what a look at a list came to.
    pub(super) fn note(&self, list: &List, looked: Looked) {
        let Looked { look, not_pushed, too_large, failure } = looked;
        {
            let mut state = self.state();
            state.round.not_pushed |= not_pushed;
            let oldest = [state.round.oldest_pending_ms, look.oldest_pending_ms];
            state.round.oldest_pending_ms = oldest.into_iter().flatten().min();
        }
        let Some(failure) = failure else {
            if !too_large {
                self.cycle.memory().answered(list);
            }
            return self.note_call(None);
        };
        self.cycle.stats.failures.inc();
        let alone = matches!(&self.poll.whose, Whose::Project(_));
        let (now_ms, longest) = (self.clock.now_ms(), self.longest_pause());
        let in_a_row = {
            let mut state = self.state();
            state.failed_in_a_row += 1;
            let reach_ms = OF_ALL_WITHOUT_SUCCESS_FOR.as_millis() as u64;
            let works = state.last_success_ms.is_some_and(|ms| now_ms < ms + reach_ms);
            state.failed_in_a_row >= OF_ALL_AFTER && !works
        };
        if failure.kind.is_of_all() || alone || in_a_row {
            return self.note_call(Some(failure));
        }
        let (kind, words) = (failure.kind, failure.words.clone());
        let news = self.cycle.memory().failed(list, failure, now_ms, longest);
        if news != News::Same
            && let Some(more) = self.quiet.speaks(now_ms)
        {
            let (source, hint) = (&self.cycle.source, kind.hint());
            tracing::warn!(%source, %list, error = %words, more, "cannot poll a list: {hint}");
        }
    }

    /// Notes what any call came to, as far as it concerns the whole source.
    pub(super) fn note_call(&self, failure: Option<Failure>) {
        let (source, stats) = (&self.cycle.source, &self.cycle.stats);
        let (now_ms, longest) = (self.clock.now_ms(), self.longest_pause());
        let mut state = self.state();
        let Some(failure) = failure else {
            self.contacted.cancel();
            state.failed_in_a_row = 0;
            state.last_success_ms = Some(now_ms);
            if let Some(ended) = state.circuit.succeeded() {
                stats.set_trouble(None);
                let after = Duration::from_secs(now_ms.saturating_sub(ended.since_ms) / 1000);
                let after = humantime::format_duration(after);
                tracing::info!(%source, %after, "polling goes on");
            }
            return;
        };
        let (kind, words) = (failure.kind, failure.words.clone());
        let news = state.circuit.failed(failure, now_ms, longest);
        stats.set_trouble(state.circuit.trouble());
        if news != News::Same {
            let hint = kind.hint();
            tracing::warn!(%source, error = %words, "cannot poll: {hint}");
        }
    }

    /// How long trouble that may pass by itself is waited for at most.
    fn longest_pause(&self) -> Duration {
        self.poll.every.min(circuit::PROBE_EVERY)
    }

    /// Tells what the round came to; when the next one begins.
    pub(super) fn end_round(&self, began_ms: u64) -> u64 {
        let now_ms = self.clock.now_ms();
        let (stuck, too_large, in_trouble) = {
            let mut memory = self.cycle.memory();
            memory.tidy(now_ms);
            let counts = [stuck::Why::Refused, stuck::Why::TooLarge].map(|why| memory.count(why));
            (counts[0], counts[1], memory.lists_in_trouble() as u64)
        };
        let stats = &self.cycle.stats;
        stats.stuck.set(stuck);
        stats.too_large.set(too_large);
        stats.lists_in_trouble.set(in_trouble);
        let mut state = self.state();
        let round = std::mem::take(&mut state.round);
        stats.oldest_pending_ms.set(round.oldest_pending_ms.unwrap_or_default());
        let hidden = round.hidden + state.hidden;
        if hidden > 0 && stats.hidden_lists.get() == 0 {
            let source = &self.cycle.source;
            tracing::warn!(
                %source, lists = hidden,
                "pages are full of notifications that stay pending; what is behind them is out of \
                 sight"
            );
        }
        stats.hidden_lists.set(hidden);
        if round.not_pushed {
            state.pace.not_pushed(now_ms);
        }
        let why = state.pace.why(now_ms);
        if stats.set_why(why) {
            let (source, fast, why) = (&self.cycle.source, why.is_fast(), why.words());
            tracing::info!(%source, fast, why, "the pace of polling");
        }
        match state.circuit.trouble() {
            // Where every list waits by itself, the round asked nobody, and is over at once.
            Some(trouble) => trouble.not_before_ms.max(began_ms + SHORTEST_ROUND_MS),
            None => began_ms + state.pace.pause(now_ms, fastrand::f64()).as_millis() as u64,
        }
    }
}
