//! The keys are held to the rule as it is said, over random pairs of events.

use proptest::prelude::*;

use super::*;
use crate::dedupe::{Limits, Window};
use crate::source::sonzai::payload::Payload;

const SOURCE: &str = "sonzai";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Webhook { timestamp: u64 },
    Attempt,
    Project,
    Agent,
}

/// An event, as small as the rule sees it.
#[derive(Clone, Debug)]
struct Happened {
    came: Came,
    kind: &'static str,
    notification: Option<char>,
    message: Option<char>,
    wakeup: Option<char>,
    /// What else the body says.
    rest: bool,
}

impl Happened {
    fn way(&self) -> Way {
        match self.came {
            Came::Webhook { .. } | Came::Attempt => Way::Webhook,
            Came::Project => Way::Project,
            Came::Agent => Way::Agent,
        }
    }

    fn body(&self) -> String {
        let ids = [
            ("notification_id", self.notification),
            ("message_id", self.message),
            ("wakeup_id", self.wakeup),
        ];
        let ids = ids.iter().filter_map(|(name, id)| Some(format!("\"{name}\":\"{}\"", (*id)?)));
        let rest = format!("\"rest\":{}", self.rest);
        format!("{{{}}}", ids.chain([rest]).collect::<Vec<_>>().join(","))
    }

    fn identity(&self) -> Identity {
        let body = self.body();
        let payload = Payload::read(body.as_bytes());
        let (kind, ids) = (self.kind, payload.ids());
        match self.came {
            Came::Webhook { timestamp } => {
                Identity::of_webhook(SOURCE, kind, timestamp, body.as_bytes(), &ids)
            }
            Came::Attempt => Identity::of_attempt(SOURCE, kind, body.as_bytes(), &ids),
            Came::Project => {
                Identity::of_project(SOURCE, ids.notification.as_deref().unwrap(), kind, &ids)
            }
            Came::Agent => Identity::of_agent(SOURCE, ids.message.as_deref().unwrap(), kind, &ids),
        }
    }
}

/// The rule, word for word: whether `second`, so many seconds after `first`, is the same event.
fn is_same(first: &Happened, second: &Happened, age_s: u32) -> bool {
    let equal_body = first.kind == second.kind && first.body() == second.body();
    match (first.came, second.came) {
        (Came::Webhook { timestamp: one }, Came::Webhook { timestamp: other })
            if one == other && equal_body =>
        {
            true
        }
        (Came::Webhook { .. } | Came::Attempt, Came::Webhook { .. }) => {
            let carries =
                [second.notification, second.message, second.wakeup].iter().any(Option::is_some);
            equal_body && carries && age_s < 3600
        }
        (Came::Webhook { .. } | Came::Attempt, Came::Attempt) => equal_body,
        (Came::Project, Came::Project) => first.notification == second.notification,
        (Came::Agent, Came::Agent) => first.message == second.message,
        _ => types_agree(first, second) && ids_agree(first, second),
    }
}

fn types_agree(one: &Happened, other: &Happened) -> bool {
    let counts_as = |event: &Happened| match event.way() {
        Way::Agent => vec![event.kind, "agent.message", "on_wakeup_ready"],
        _ => vec![event.kind],
    };
    counts_as(one).iter().any(|kind| counts_as(other).contains(kind))
}

fn ids_agree(one: &Happened, other: &Happened) -> bool {
    let both = |one: Option<char>, other: Option<char>| one.is_some() && other.is_some();
    let equal = |one, other| both(one, other) && one == other;
    let differ = |one, other| both(one, other) && one != other;
    let (n, m, w) = (
        (one.notification, other.notification),
        (one.message, other.message),
        (one.wakeup, other.wakeup),
    );
    let by_wakeup = equal(w.0, w.1) && !both(n.0, n.1) && !both(m.0, m.1);
    let compatible = !differ(n.0, n.1) && !differ(m.0, m.1);
    compatible && (equal(n.0, n.1) || equal(m.0, m.1) || by_wakeup)
}

/// The same by what `first` registered and `second` looks up.
fn keys_meet(first: &Keys, second: &Keys, age_s: u32) -> bool {
    let registered: Vec<Key> = first.registered().collect();
    second.looked_up().iter().any(|up| registered.contains(&up.key) && age_s < up.younger_than_s)
}

fn id() -> impl Strategy<Value = Option<char>> {
    prop::option::weighted(0.7, prop::sample::select(vec!['1', '2']))
}

fn kind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["agent.message", "on_wakeup_ready", "shop.a", "shop.b"])
}

/// With any ids on any way, be there such events or not.
fn happened() -> impl Strategy<Value = Happened> {
    let came = prop_oneof![
        2 => (1..3u64).prop_map(|timestamp| Came::Webhook { timestamp }),
        1 => Just(Came::Attempt),
        2 => Just(Came::Project),
        2 => Just(Came::Agent),
    ];
    (came, kind(), id(), id(), id(), any::<bool>()).prop_map(
        |(came, kind, notification, message, wakeup, rest)| Happened {
            came,
            kind,
            // These are known by their own.
            notification: notification.or((came == Came::Project).then_some('1')),
            message: message.or((came == Came::Agent).then_some('1')),
            wakeup,
            rest,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn two_events_are_one_exactly_where_the_rule_says_so(
        (one, other) in (happened(), happened()),
        age_s in prop::sample::select(vec![0, 3599, 3600, 80_000]),
    ) {
        let (one_keys, other_keys) = (one.identity().known_by, other.identity().known_by);
        let forth = keys_meet(&one_keys, &other_keys, age_s);
        prop_assert_eq!(forth, is_same(&one, &other, age_s), "{:?} then {:?}", one, other);
        let back = keys_meet(&other_keys, &one_keys, age_s);
        prop_assert_eq!(back, is_same(&other, &one, age_s), "{:?} then {:?}", other, one);
        // It is itself, and no other source's.
        prop_assert!(keys_meet(&one_keys, &one_keys, 80_000));
    }
}

/// All that is carried, on all ways, under all types: the rule's ids alone, pair by pair.
#[test]
fn across_ways_every_pair_is_as_the_rule_says() {
    let ids = [None, Some('1'), Some('2')];
    let mut all = Vec::new();
    for came in [Came::Webhook { timestamp: 1 }, Came::Project, Came::Agent] {
        for kind in ["agent.message", "on_wakeup_ready", "shop.a"] {
            for number in 0..27 {
                let [notification, message, wakeup] =
                    [1, 3, 9].map(|place| ids[number / place % 3]);
                let event = Happened { came, kind, notification, message, wakeup, rest: false };
                let body = event.body();
                let blank = Identity { id: "".into(), known_by: Keys::default() };
                let ids = Payload::read(body.as_bytes());
                let known = blank.across(event.way(), SOURCE, kind, &ids.ids()).known_by;
                all.push((event, known));
            }
        }
    }
    let mut same = 0;
    for (first, first_keys) in &all {
        for (second, second_keys) in &all {
            let expected = first.way() != second.way()
                && types_agree(first, second)
                && ids_agree(first, second);
            assert_eq!(
                keys_meet(first_keys, second_keys, 0),
                expected,
                "{first:?} then {second:?}"
            );
            same += usize::from(expected);
        }
    }
    assert!(same > 1000, "{same}");
}

#[test]
fn a_retry_has_the_same_id_and_anything_else_has_another() {
    let id = |source, kind, timestamp, body: &[u8]| {
        Identity::of_webhook(source, kind, timestamp, body, &Ids::default()).id
    };
    let first = id("s", "k", 1, b"b");
    assert_eq!(first, id("s", "k", 1, b"b"));
    assert_eq!(first.len(), 32);
    let none = Ids::default();
    for other in [
        id("t", "k", 1, b"b"),
        id("s", "l", 1, b"b"),
        id("s", "k", 2, b"b"),
        id("s", "k", 1, b"c"),
        id("sk", "", 1, b"b"),
        Identity::of_attempt("s", "k", b"b", &none).id,
        Identity::of_project("s", "b", "k", &none).id,
        Identity::of_agent("s", "b", "k", &none).id,
    ] {
        assert_ne!(first, other);
    }
}

#[test]
fn another_source_knows_nothing_of_it() {
    let ids = || Ids { wakeup: Some("w".into()), ..Ids::default() };
    let webhook = |source| Identity::of_webhook(source, "k", 1, b"{}", &ids()).known_by;
    let attempt = |source| Identity::of_attempt(source, "k", b"{}", &ids()).known_by;
    let project = |source| Identity::of_project(source, "n", "k", &ids()).known_by;
    let agent = |source| Identity::of_agent(source, "m", "k", &ids()).known_by;
    let of = |source| [webhook(source), attempt(source), project(source), agent(source)];
    for one in of("sonzai") {
        assert!(of("other").iter().all(|other| !keys_meet(&one, other, 0)));
    }
}

/// What a webhook costs in the window, and that none of it is allocated.
#[test]
fn a_webhook_registers_two_keys_and_one_or_two_for_each_id() {
    let id = || Some(Cow::from("1"));
    let (notification, message, wakeup) = (id(), id(), id());
    for (ids, registered, looked_up) in [
        (Ids::default(), 2, 1),
        (Ids { wakeup: id(), ..Ids::default() }, 3, 10),
        (Ids { message: id(), ..Ids::default() }, 3, 6),
        (Ids { notification: id(), ..Ids::default() }, 3, 6),
        (Ids { notification, message, wakeup }, 6, 10),
    ] {
        let keys = Identity::of_webhook(SOURCE, "k", 1, b"{}", &ids).known_by;
        let found = (keys.registered().count(), keys.looked_up().len());
        assert_eq!(found, (registered, looked_up), "{ids:?}");
    }
}

/// It may be registered as both: the older guide names the one, the newer guide the other.
#[tokio::test]
async fn the_second_message_of_a_wakeup_is_an_event_though_the_first_was_pushed_under_both_types() {
    let limits = Limits { window: std::time::Duration::from_secs(3600), max_keys: 1000 };
    let window = Window::new(limits, vec![]);
    let happened = |came, kind, message| {
        let wakeup = Some('1');
        Happened { came, kind, notification: None, message, wakeup, rest: false }.identity()
    };
    let webhook = Came::Webhook { timestamp: 1 };
    let polled = |message| happened(Came::Agent, "agent.message", Some(message));
    let mut outcomes = Vec::new();
    for Identity { known_by, .. } in [
        happened(webhook, "agent.message", None),
        happened(webhook, "on_wakeup_ready", None),
        polled('1'),
        polled('2'),
        polled('1'),
    ] {
        let claim = window.claim(known_by, 5_000, std::time::Duration::ZERO).await.unwrap();
        outcomes.push(claim.as_ref().map(|claim| claim.is_taken()));
        claim.into_iter().for_each(|claim| claim.commit(5_000));
    }
    assert_eq!(outcomes, [Some(false), Some(false), Some(true), Some(false), None]);
}
