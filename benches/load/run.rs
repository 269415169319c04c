//! One run: a fresh server, a load of a given length, and the wait until all of it has arrived.

use std::{
    fmt,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::{
    bare::Bare,
    daemon::{self, Daemon},
    generator::{self, Load, Numbers, Until},
    process,
    scene::{Brokers, Scene},
    sink::Sink,
};

/// Load before the measured one: connections, branches and pages that are cold only once.
const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
pub struct Plan {
    pub connections: usize,
    pub body_bytes: usize,
    pub lasting: Duration,
}

/// What one run showed.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub accepted_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// From the load's start to the last arrival.
    pub arrived_per_second: f64,
    /// CPU time of the server for each acknowledged event, its delivery included.
    pub server_us: f64,
    /// The same of the broker; it stores the event, and is asked how many have arrived.
    pub broker_us: f64,
    pub resident_mib: f64,
    pub refused: u64,
}

/// A name that no run had before.
pub fn fresh_name(scene: Scene) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let word = scene.to_string().split(' ').next().map(str::to_owned).unwrap_or_default();
    format!("{word}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub async fn measure(scene: Scene, brokers: &Brokers, plan: Plan) -> Figures {
    let numbers = Rc::new(Numbers::new());
    if scene == Scene::Bare {
        let bare = Bare::start();
        let load = |lasting| {
            let until = Until::Elapsed(lasting);
            generator::load(bare.address, plan.connections, plan.body_bytes, until, &numbers)
        };
        load(WARM_UP).await;
        let cpu = process::cpu(bare.pid());
        let measured = load(plan.lasting).await;
        let used = process::cpu(bare.pid()) - cpu;
        return figures(measured, used, Duration::ZERO, None, process::memory(bare.pid()).1);
    }
    let dir = crate::directory();
    let name = fresh_name(scene);
    let mut sink = Sink::create(scene, brokers, &name, dir.path().join("data")).await;
    let daemon = Daemon::start(dir.path(), &sink, daemon::Broker::Up);
    let load = |lasting| {
        let until = Until::Elapsed(lasting);
        generator::load(daemon.address, plan.connections, plan.body_bytes, until, &numbers)
    };
    let word = format!("waypost-{scene}-");
    let warm = load(WARM_UP).await;
    if scene.delivers() {
        sink.wait_for(warm.acknowledged).await;
    }
    let (cpu, broker_cpu) = (process::cpu(daemon.pid()), process::cpu_of_descendants(&word));
    let started = Instant::now();
    let measured = load(plan.lasting).await;
    if scene.delivers() {
        sink.wait_for(warm.acknowledged + measured.acknowledged).await;
    }
    let arrived_in = scene.delivers().then(|| started.elapsed());
    let used = process::cpu(daemon.pid()) - cpu;
    let broker_used = process::cpu_of_descendants(&word) - broker_cpu;
    let resident = process::memory(daemon.pid()).1;
    drop(daemon);
    sink.remove().await;
    figures(measured, used, broker_used, arrived_in, resident)
}

fn figures(
    mut load: Load,
    used: Duration,
    broker_used: Duration,
    arrived_in: Option<Duration>,
    resident_bytes: u64,
) -> Figures {
    load.latencies_us.sort_unstable();
    let at = |share: f64| {
        let index = (load.latencies_us.len() as f64 * share) as usize;
        load.latencies_us.get(index).map_or(f64::NAN, |us| f64::from(*us) / 1000.0)
    };
    let events = load.acknowledged as f64;
    Figures {
        accepted_per_second: events / load.lasted.as_secs_f64(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        arrived_per_second: arrived_in.map_or(f64::NAN, |lasted| events / lasted.as_secs_f64()),
        server_us: used.as_secs_f64() * 1e6 / events,
        broker_us: broker_used.as_secs_f64() * 1e6 / events,
        resident_mib: resident_bytes as f64 / f64::from(1 << 20),
        refused: load.refused,
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms, server {:.1} us, broker {:.1} us, arriving \
             {:.0}/s, {:.0} MiB, {} refused",
            self.accepted_per_second,
            self.p50_ms,
            self.p99_ms,
            self.server_us,
            self.broker_us,
            self.arrived_per_second,
            self.resident_mib,
            self.refused,
        )
    }
}
