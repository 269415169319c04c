//! Brokers that are killed, hung and started again under load: nothing is lost, the others go on,
//! and what waits for one of them stays within its bound.
//!
//! That something happens *meanwhile* is told by counting what happened before the fault was ended,
//! never by time. The brokers here are these tests' own, which therefore run one after the other.

use std::{collections::BTreeSet, fs, path::Path, sync::OnceLock, thread, time::Duration};

use tokio::sync::MutexGuard;

use crate::common::{
    brokers::{Kafka, Nats, RabbitMq, Server},
    scene::{SMALL_BYTES, Scene, eventually},
    sinks::{self, Addresses, NOT_TO_RABBITMQ, Sink, TO_ALL},
};

/// Events accepted between one step of a test and the next.
const SOME: usize = 300;

/// After each answer, so that the brokers keep up on a machine that does other things too.
const PAUSE: Duration = Duration::from_millis(5);

/// For events that are to fill a backlog.
const LARGE_BYTES: usize = 6000;

/// The backlog's bound where a test fills it, and what it is measured in.
const BACKLOG_BYTES: u64 = 2 << 20;
const SEGMENT_BYTES: u64 = 256 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_under_load_holds_up_no_other_and_loses_nothing() {
    let mut own = Own::take().await;
    let mut scene =
        Scene::create("killed", own.addresses(), &[("WAYPOST_DISPATCH__WINDOW_MESSAGES", "256")])
            .await;
    scene.start_daemon();
    let senders = scene.send(TO_ALL, SMALL_BYTES, PAUSE);
    for victim in [Sink::Kafka, Sink::RabbitMq, Sink::Nats] {
        senders.accept_more(SOME).await;
        own.kill(victim);
        let killed = senders.mark();
        senders.accept_more(SOME).await;
        let meanwhile = senders.accepted_since(&killed);
        for other in Sink::ALL.into_iter().filter(|sink| *sink != victim) {
            scene.sinks.await_events(other, &meanwhile).await;
        }
        assert_eq!(own.down, BTreeSet::from([victim]));
        own.restart(victim);
        scene.sinks.await_events(victim, &meanwhile).await;
    }
    assert_eq!(senders.refused(), 0);
    let accepted = senders.stop().await;
    scene.assert_all_arrived("brokers killed one after the other", &accepted).await;
    assert!(scene.stop_daemon());
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_down_when_the_daemon_starts_get_everything_once_they_come() {
    let mut own = Own::take().await;
    let mut scene = Scene::create("late", own.addresses(), &[]).await;
    let late = [Sink::Nats, Sink::RabbitMq, Sink::Kafka];
    late.into_iter().for_each(|sink| own.kill(sink));
    scene.start_daemon();
    let senders = scene.send(TO_ALL, SMALL_BYTES, PAUSE);
    senders.accept_more(SOME).await;
    scene.sinks.await_events(Sink::Log, &senders.accepted()).await;
    for sink in late {
        own.restart(sink);
        let accepted = senders.accepted();
        scene.sinks.await_events(sink, &accepted).await;
    }
    assert_eq!(senders.refused(), 0);
    let accepted = senders.stop().await;
    scene.assert_all_arrived("brokers later than the daemon", &accepted).await;
    assert!(scene.stop_daemon());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_of_a_broker_stays_within_its_bound_and_comes_out_in_order() {
    let mut own = Own::take().await;
    let (backlog, segment) = (BACKLOG_BYTES.to_string(), SEGMENT_BYTES.to_string());
    let settings = [
        ("WAYPOST_DISPATCH__BACKLOG_MAX_BYTES", &*backlog),
        ("WAYPOST_JOURNAL__SEGMENT_BYTES", &*segment),
        ("WAYPOST_DISPATCH__WINDOW_MESSAGES", "256"),
    ];
    let mut scene = Scene::create("backlog", own.addresses(), &settings).await;
    scene.start_daemon();
    let senders = scene.send(TO_ALL, LARGE_BYTES, PAUSE);
    senders.accept_more(SOME).await;

    // It hangs first, so that it goes down with a window in flight while messages already wait.
    own.pause(Sink::RabbitMq);
    eventually("its messages are parked", || scene.log().contains("parking what waits")).await;
    own.kill(Sink::RabbitMq);
    eventually("its backlog is full", || senders.refused() > 0).await;
    let answer = scene.post(TO_ALL).await;
    assert_eq!((answer.status.as_u16(), answer.retry_after.as_deref()), (503, Some("5")));

    let elsewhere = scene.send(NOT_TO_RABBITMQ, LARGE_BYTES, PAUSE);
    let several_bounds = 2 * BACKLOG_BYTES as usize / LARGE_BYTES;
    elsewhere.accept_more(several_bounds).await;
    assert_eq!(elsewhere.refused(), 0);
    assert_disk_is_bounded(&scene).await;

    // Whichever way the daemon ends meanwhile, it goes on where it was.
    assert!(scene.stop_daemon());
    scene.start_daemon();
    elsewhere.accept_more(several_bounds).await;
    scene.kill_daemon();
    scene.start_daemon();
    elsewhere.accept_more(several_bounds).await;
    assert_disk_is_bounded(&scene).await;
    let refused = senders.refused();
    eventually("its backlog is still full", || senders.refused() > refused).await;

    let to_others = elsewhere.stop().await;
    own.restart(Sink::RabbitMq);
    senders.accept_more(SOME).await;
    let to_all = senders.stop().await;
    for sink in Sink::ALL {
        let expected = if sink == Sink::RabbitMq {
            to_all.clone()
        } else {
            [&to_all[..], &to_others].concat()
        };
        let arrived = scene.sinks.read_all(sink, &expected).await;
        let duplicates = sinks::assert_complete(sink, &expected, &arrived);
        sinks::assert_in_order(sink, &arrived);
        println!("a full backlog: {sink:?} got {} events, {duplicates} twice", expected.len());
    }
    assert!(scene.stop_daemon());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_publishes_everything_accepted_before_the_daemon_ends() {
    let own = Own::take().await;
    let mut scene = Scene::create("drain", own.addresses(), &[]).await;
    let mut accepted = Vec::new();
    for _ in 0..3 {
        scene.start_daemon();
        let senders = scene.send(TO_ALL, SMALL_BYTES, PAUSE);
        senders.accept_more(SOME).await;
        assert!(scene.stop_daemon());
        // Nothing runs now that could still publish.
        accepted.extend(senders.stop().await);
        scene.assert_all_arrived("drained", &accepted).await;
    }
}

/// The brokers of these tests.
struct Own {
    kafka: Kafka,
    rabbitmq: RabbitMq,
    nats: Nats,
    /// What was killed or hung, and not started again since.
    down: BTreeSet<Sink>,
}

impl Own {
    /// Takes the brokers, after whoever has them now, and starts those that a failed test left down.
    async fn take() -> MutexGuard<'static, Own> {
        static OWN: OnceLock<tokio::sync::Mutex<Own>> = OnceLock::new();
        let mut own = OWN.get_or_init(|| tokio::sync::Mutex::new(Own::start())).lock().await;
        for sink in own.down.clone() {
            own.restart(sink);
        }
        own
    }

    fn start() -> Own {
        let (kafka, rabbitmq, nats) = thread::scope(|scope| {
            let kafka = scope.spawn(Kafka::start);
            let rabbitmq = scope.spawn(RabbitMq::start);
            let nats = Nats::start();
            (kafka.join().expect("kafka"), rabbitmq.join().expect("rabbitmq"), nats)
        });
        Own { kafka, rabbitmq, nats, down: BTreeSet::new() }
    }

    fn addresses(&self) -> Addresses {
        Addresses::of(&self.kafka, &self.rabbitmq, &self.nats)
    }

    fn server(&mut self, sink: Sink) -> &mut Server {
        match sink {
            Sink::Kafka => &mut self.kafka,
            Sink::RabbitMq => &mut self.rabbitmq,
            Sink::Nats => &mut self.nats,
            Sink::Log => panic!("the log has no server"),
        }
    }

    fn kill(&mut self, sink: Sink) {
        self.server(sink).kill();
        self.down.insert(sink);
    }

    fn pause(&mut self, sink: Sink) {
        self.server(sink).pause();
        self.down.insert(sink);
    }

    fn restart(&mut self, sink: Sink) {
        self.server(sink).restart();
        self.down.remove(&sink);
    }
}

/// The dead broker pins no more of the journal than its bound, and has no more than that, and
/// what was accepted while it was noticed, parked.
async fn assert_disk_is_bounded(scene: &Scene) {
    let data = scene.dir.path().join("data");
    let journal = || segment_bytes(&data.join("journal"));
    let parked = segment_bytes(&data.join("parked/tasks"));
    eventually("segments are freed", || journal() <= 2 * BACKLOG_BYTES).await;
    assert!(parked <= 4 * BACKLOG_BYTES, "{parked} bytes are parked");
}

/// Bytes of a journal's segments; one may be removed meanwhile.
fn segment_bytes(journal: &Path) -> u64 {
    let files = fs::read_dir(journal).expect("a journal").flatten();
    let segments = files.filter(|file| file.path().extension().is_some_and(|ext| ext == "seg"));
    segments.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}
