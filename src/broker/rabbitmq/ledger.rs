//! Which publish a broker's answers are about: pure bookkeeping, no client, no clock.
//!
//! A `basic.return` says "unroutable", and the `basic.ack` of the same message follows it. The
//! client library queues returns and hands the oldest to whichever confirmation resolves next, so a
//! confirmation may carry another message's return, and a message may be acknowledged while its own
//! return still waits in that queue or sits in another confirmation.
//!
//! # Why no verdict is wrong
//!
//! Let *W* be the client's queue of returns and *U* the number of publishes that were returned and
//! have not resolved yet. The client resolves confirmations one after the other on one thread, and
//! each takes one return off W if there is one. Then |W| ≤ |U| always: a return adds one to both;
//! a resolution takes one off W unless it is empty, and at most one off U. (The protocol sends a
//! return before its message's acknowledgement, so a message is never returned after it resolved.)
//!
//! - A publish resolves **carrying nothing**: W was empty, so its own return, if any, was carried
//!   by something that resolved earlier. The caller asks for verdicts only after it has reported
//!   everything that resolved before ([`Ledger::settle`]), so the return is known: the verdict is
//!   final.
//! - A publish resolves **carrying another's return**: its own may be in W, behind at most |W| − 1
//!   others. Everything counted by U is in flight at that moment and takes one off W when it
//!   resolves, so once all that was in flight has resolved, its own return has been carried, too.
//!   Until then it is held.
//!
//! A return always names its message by the header it carries, so no other message is ever blamed.

use std::collections::{BTreeSet, HashSet};

/// Numbers the publishes of one session, in the order of their hand-over.
pub type PublishId = u64;

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Confirmed,
    /// The broker said it could not take it (`basic.nack`).
    Rejected,
    /// The broker took it from us and had no queue to put it into.
    Unroutable,
}

/// What a confirmation resolved with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// `basic.ack` rather than `basic.nack`.
    pub acked: bool,
    /// The publish whose return this confirmation happened to carry.
    pub carried: Option<PublishId>,
}

/// The publishes of one session that have no verdict yet. Bounded by what is in flight.
#[derive(Debug, Default)]
pub struct Ledger {
    next: PublishId,
    /// Handed over, not resolved.
    pending: BTreeSet<PublishId>,
    /// Named by a return, no verdict yet.
    returned: HashSet<PublishId>,
    /// Resolved since the last settling.
    fresh: Vec<(PublishId, Resolution)>,
    /// Acknowledged while carrying another's return, with the id that the next publish had then.
    held: Vec<(PublishId, PublishId)>,
}

impl Ledger {
    /// Numbers a publish that is about to be handed over.
    pub fn begin(&mut self) -> PublishId {
        let id = self.next;
        self.next += 1;
        self.pending.insert(id);
        id
    }

    /// Reports what a publish's confirmation resolved with. False if it carried the return of a
    /// publish that has its verdict already, which the protocol rules out.
    #[must_use]
    pub fn resolved(&mut self, id: PublishId, resolution: Resolution) -> bool {
        self.pending.remove(&id);
        self.fresh.push((id, resolution));
        match resolution.carried {
            None => true,
            Some(carried) if self.is_open(carried) => {
                self.returned.insert(carried);
                true
            }
            Some(_) => false,
        }
    }

    /// The verdicts that are certain. To be called only when every confirmation that resolved
    /// before the ones already reported has been reported as well.
    pub fn settle(&mut self) -> Vec<(PublishId, Verdict)> {
        let mut verdicts = Vec::with_capacity(self.fresh.len());
        for (id, resolution) in std::mem::take(&mut self.fresh) {
            if self.returned.remove(&id) {
                verdicts.push((id, Verdict::Unroutable));
            } else if !resolution.acked {
                verdicts.push((id, Verdict::Rejected));
            } else if resolution.carried.is_none() {
                verdicts.push((id, Verdict::Confirmed));
            } else {
                self.held.push((id, self.next));
            }
        }
        let oldest = self.pending.first().copied().unwrap_or(self.next);
        let returned = &mut self.returned;
        self.held.retain(|&(id, next_then)| {
            if returned.remove(&id) {
                verdicts.push((id, Verdict::Unroutable));
            } else if oldest >= next_then {
                verdicts.push((id, Verdict::Confirmed));
            } else {
                return true;
            }
            false
        });
        verdicts
    }

    /// What was handed over and has not resolved, oldest first.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = PublishId> {
        self.pending.iter().copied()
    }

    fn is_open(&self, id: PublishId) -> bool {
        self.pending.contains(&id)
            || self.fresh.iter().any(|(fresh, _)| *fresh == id)
            || self.held.iter().any(|(held, _)| *held == id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    const NONE: Resolution = Resolution { acked: true, carried: None };

    fn carrying(id: PublishId) -> Resolution {
        Resolution { acked: true, carried: Some(id) }
    }

    #[test]
    fn a_return_that_another_confirmation_carries_blames_only_its_own_message() {
        let mut ledger = Ledger::default();
        let (good, bad) = (ledger.begin(), ledger.begin());
        assert!(ledger.resolved(good, carrying(bad)));
        assert_eq!(ledger.settle(), [], "held: its own return might still be queued");
        assert!(ledger.resolved(bad, NONE));
        let verdicts: HashMap<_, _> = ledger.settle().into_iter().collect();
        assert_eq!(
            verdicts,
            HashMap::from([(good, Verdict::Confirmed), (bad, Verdict::Unroutable)])
        );
    }

    #[test]
    fn two_unroutable_messages_that_carry_each_others_return_are_both_found() {
        let mut ledger = Ledger::default();
        let (first, second) = (ledger.begin(), ledger.begin());
        assert!(ledger.resolved(second, carrying(first)));
        assert_eq!(ledger.settle(), []);
        assert!(ledger.resolved(first, carrying(second)));
        let verdicts: HashMap<_, _> = ledger.settle().into_iter().collect();
        assert_eq!(
            verdicts,
            HashMap::from([(first, Verdict::Unroutable), (second, Verdict::Unroutable)])
        );
    }

    #[test]
    fn a_later_publish_does_not_prolong_a_hold() {
        let mut ledger = Ledger::default();
        let (good, bad) = (ledger.begin(), ledger.begin());
        assert!(ledger.resolved(good, carrying(bad)));
        assert_eq!(ledger.settle(), []);
        let _later = ledger.begin();
        assert!(ledger.resolved(bad, NONE));
        assert_eq!(ledger.settle().len(), 2);
    }

    #[test]
    fn a_rejected_message_that_carries_anothers_return_is_only_rejected() {
        let mut ledger = Ledger::default();
        let (nacked, bad) = (ledger.begin(), ledger.begin());
        assert!(ledger.resolved(nacked, Resolution { acked: false, carried: Some(bad) }));
        assert_eq!(ledger.settle(), [(nacked, Verdict::Rejected)]);
        assert!(ledger.resolved(bad, NONE));
        assert_eq!(ledger.settle(), [(bad, Verdict::Unroutable)]);
    }

    #[test]
    fn a_return_of_a_settled_message_is_reported() {
        let mut ledger = Ledger::default();
        let (done, next) = (ledger.begin(), ledger.begin());
        assert!(ledger.resolved(done, NONE));
        assert_eq!(ledger.settle(), [(done, Verdict::Confirmed)]);
        assert!(!ledger.resolved(next, carrying(done)));
    }

    /// One publish and what the broker and the scheduler make of it.
    #[derive(Clone, Debug)]
    struct Step {
        routable: bool,
        /// When the return and the acknowledgement come, as sort keys; the return comes first.
        returned_at: u16,
        acked_after: u16,
        /// Whether the session looks at the client after this acknowledgement.
        look: bool,
    }

    proptest! {
        /// The client's queue, simulated with every order of returns and acknowledgements that the
        /// protocol allows, several resolutions between two looks.
        #[test]
        fn every_verdict_is_right_whatever_the_order(
            steps in prop::collection::vec(
                (any::<bool>(), 0u16..60, 0u16..60, any::<bool>())
                    .prop_map(|(routable, returned_at, acked_after, look)| {
                        Step { routable, returned_at, acked_after, look }
                    }),
                1..40,
            ),
        ) {
            let mut ledger = Ledger::default();
            let mut arrivals = Vec::new();
            for step in &steps {
                let id = ledger.begin();
                if !step.routable {
                    arrivals.push((step.returned_at, 0, id));
                }
                arrivals.push((step.returned_at + step.acked_after, 1, id));
            }
            arrivals.sort_unstable();

            let mut queue = VecDeque::new();
            let mut unseen = Vec::new();
            let mut verdicts = HashMap::new();
            for (_, is_ack, id) in arrivals {
                if is_ack == 0 {
                    queue.push_back(id);
                    continue;
                }
                unseen.push((id, Resolution { acked: true, carried: queue.pop_front() }));
                if steps[id as usize].look {
                    // The order in which resolutions are seen is not that in which they happened.
                    for (id, resolution) in unseen.drain(..).rev() {
                        prop_assert!(ledger.resolved(id, resolution));
                    }
                    verdicts.extend(ledger.settle());
                }
            }
            for (id, resolution) in unseen.drain(..).rev() {
                prop_assert!(ledger.resolved(id, resolution));
            }
            verdicts.extend(ledger.settle());

            prop_assert_eq!(verdicts.len(), steps.len());
            for (id, step) in steps.iter().enumerate() {
                let expected =
                    if step.routable { Verdict::Confirmed } else { Verdict::Unroutable };
                prop_assert_eq!(verdicts[&(id as u64)], expected);
            }
        }
    }
}
