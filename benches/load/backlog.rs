//! Events that wait: how long a daemon takes to open them after a kill, what memory they take, and
//! how fast they drain.

use std::{
    fmt,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    daemon::{Broker, Daemon},
    generator::{self, Numbers, Until},
    process,
    run::fresh_name,
    scene::{Brokers, Scene},
    sink::Sink,
};

/// Connections of the load that fills the journal.
const CONNECTIONS: usize = 64;

/// How long an opened daemon is left to settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub struct Plan {
    pub events: u64,
    pub body_bytes: usize,
}

pub struct Figures {
    events: u64,
    idle_bytes: u64,
    filled_bytes: u64,
    opened_in: Duration,
    opened_bytes: u64,
    drained_in: Duration,
    drained_bytes: u64,
    drain_cpu: Duration,
}

/// Fills, kills, opens, and drains into the real broker, counting what arrives.
pub async fn measure(scene: Scene, brokers: &Brokers, plan: Plan) -> Figures {
    let dir = crate::directory();
    let dir = dir.path();
    let mut sink = Sink::create(scene, brokers, &fresh_name(scene), dir.join("data")).await;

    let filling = Daemon::start(dir, &sink, Broker::Down);
    let idle_bytes = process::memory(filling.pid()).0;
    let (until, numbers) = (Until::Acknowledged(plan.events), Rc::new(Numbers::new()));
    let load =
        generator::load(filling.address, CONNECTIONS, plan.body_bytes, until, &numbers).await;
    assert_eq!(load.acknowledged, plan.events);
    let filled_bytes = process::memory(filling.pid()).0;
    drop(filling);

    let opened = Daemon::start(dir, &sink, Broker::Down);
    let opened_in = opened.started_in;
    tokio::time::sleep(SETTLE).await;
    let opened_bytes = process::memory(opened.pid()).0;
    drop(opened);

    let draining = Daemon::start(dir, &sink, Broker::Up);
    let started = Instant::now();
    sink.wait_for(plan.events).await;
    let figures = Figures {
        events: plan.events,
        idle_bytes,
        filled_bytes,
        opened_in,
        opened_bytes,
        drained_in: started.elapsed(),
        drained_bytes: process::memory(draining.pid()).1,
        drain_cpu: process::cpu(draining.pid()),
    };
    drop(draining);
    sink.remove().await;
    figures
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let per_second = self.events as f64 / self.drained_in.as_secs_f64();
        let cpu_us = self.drain_cpu.as_secs_f64() * 1e6 / self.events as f64;
        write!(
            f,
            "{} events waiting: opened in {} ms after kill -9; resident {} MiB idle, {} MiB once they \
             wait, {} MiB opened again, {} MiB at most while draining; drained at {per_second:.0}/s \
             for {cpu_us:.1} us of CPU each",
            self.events,
            self.opened_in.as_millis(),
            mib(self.idle_bytes),
            mib(self.filled_bytes),
            mib(self.opened_bytes),
            mib(self.drained_bytes),
        )
    }
}
