//! One broker of a daemon made sick again and again, and what is promised meanwhile: nothing is
//! lost, the other brokers are not disturbed, the log tells each change once, what comes twice and
//! what is held in memory are bounded.
//!
//! All of it is told by counting: what was accepted while the broker was sick is with the others
//! before it is cured, and with it afterwards.

use std::time::Duration;

use super::{
    operator::Scrape,
    scene::{SMALL_BYTES, Scene, Senders, changes, eventually},
    sinks::{Addresses, Sink, TO_ALL},
};

/// Messages under way a broker: small, so that duplicates beyond it would show.
pub const WINDOW: usize = 64;

/// Events accepted at least before and while a broker is sick: more than a window.
const SOME: usize = 100;

/// The most memory of a daemon of a debug build in these tests, whatever waits.
pub const MEMORY_BYTES: u64 = 192 << 20;

/// See the module.
pub struct Ward {
    pub scene: Scene,
    pub senders: Senders,
    patient: Sink,
    periods: usize,
    /// What was accepted while it was sick.
    meanwhile: Vec<String>,
}

impl Ward {
    /// A daemon under load, and which of its brokers gets sick. Senders pause after each answer.
    pub async fn open(
        name: &str,
        patient: Sink,
        brokers: Addresses,
        through: Addresses,
        pause: Duration,
    ) -> Ward {
        let window = WINDOW.to_string();
        let settings = [("WAYPOST_DISPATCH__WINDOW_MESSAGES", &*window)];
        let mut scene = Scene::create(name, brokers, &settings).await;
        scene.sinks.daemon_s = through;
        Ward::around(scene, patient, pause)
    }

    /// The same, in a scene of the test's own.
    pub fn around(mut scene: Scene, patient: Sink, pause: Duration) -> Ward {
        scene.start_daemon();
        let senders = scene.send(TO_ALL, SMALL_BYTES, pause);
        Ward { scene, senders, patient, periods: 0, meanwhile: Vec::new() }
    }

    /// Waits until the broker has taken some of the load, and all of what was accepted before, and
    /// whatever trouble it was in is told to have ended.
    pub async fn healthy(&mut self) {
        self.senders.accept_more(SOME).await;
        let accepted = self.senders.accepted();
        self.scene.sinks.await_events(self.patient, &accepted).await;
        end_of_trouble(&self.scene, self.patient).await;
    }

    /// How many connections the daemon has made to the sick broker.
    pub fn connections(&self) -> usize {
        let series =
            format!("waypost_broker_connections_total{{broker=\"{}\"}}", self.patient.broker());
        Scrape::of(self.scene.daemon()).get(&series) as usize
    }

    /// The broker has just got sick. Waits for as long as `lasts` and until the others have what
    /// was accepted meanwhile.
    pub async fn sick(&mut self, lasts: impl Future<Output = ()>) {
        self.periods += 1;
        let since = self.senders.mark();
        tokio::join!(lasts, self.senders.accept_more(SOME));
        self.meanwhile = self.senders.accepted_since(&since);
        for other in Sink::ALL.into_iter().filter(|sink| *sink != self.patient) {
            self.scene.sinks.await_events(other, &self.meanwhile).await;
        }
    }

    /// The broker was cured. Waits until it has everything, too.
    pub async fn cured(&mut self) {
        self.scene.sinks.await_events(self.patient, &self.meanwhile).await;
    }

    /// Resolves once the log has told so many times in all that the sick broker is in trouble.
    pub fn noticed(&self, times: usize) -> impl Future<Output = ()> + use<> {
        let (log, patient) = (self.scene.log_file(), self.patient);
        async move {
            eventually("the trouble is told", || changes(&log, patient).0 >= times).await;
        }
    }

    /// How often the log has told of trouble with the sick broker.
    pub fn troubles(&self) -> usize {
        changes(&self.scene.log_file(), self.patient).0
    }

    /// Ends the load and the daemon. `faults` is how often a window in flight may have been lost
    /// sight of; how often trouble was told.
    pub async fn close(mut self, faults: usize) -> usize {
        assert_eq!(self.senders.refused(), 0);
        let accepted = self.senders.stop().await;
        let what = format!("{:?} sick {} times", self.patient, self.periods);
        for (sink, twice) in self.scene.assert_all_arrived(&what, &accepted).await {
            let most = if sink == self.patient { faults * WINDOW } else { 0 };
            assert!(twice <= most, "{sink:?}: {twice} came twice, with {faults} faults");
            end_of_trouble(&self.scene, sink).await;
            let (troubles, _) = changes(&self.scene.log_file(), sink);
            let most = if sink == self.patient { self.periods } else { 0 };
            assert!(troubles <= most, "{sink:?}: trouble was told {troubles} times");
        }
        let most = self.scene.peak_memory_bytes();
        println!("{what}: {} MiB of memory at most", most >> 20);
        assert!(most <= MEMORY_BYTES, "{most} bytes of memory");
        let troubles = changes(&self.scene.log_file(), self.patient).0;
        assert!(self.scene.stop_daemon());
        troubles
    }
}

/// Waits until each trouble with a broker is told to have ended.
async fn end_of_trouble(scene: &Scene, sink: Sink) {
    let log = scene.log_file();
    let ended = || matches!(changes(&log, sink), (troubles, wells) if troubles == wells);
    eventually("each trouble has ended", ended).await;
}
