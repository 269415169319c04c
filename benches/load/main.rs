//! The load tool: what an acknowledged event costs, measured side by side in one run.
//!
//! `make bench` runs it. Interleaved, so that a noisy machine is noisy for all: a bare hyper server
//! that only reads the body, checks the HMAC and answers; waypost with a broker that is down (what
//! accepting and journaling cost alone); waypost with each real broker, confirmed. Every request is
//! signed anew, since a repeated one is a duplicate and would never be journaled; every run ends only
//! when all that was acknowledged has arrived, and counts it.
//!
//! Then the backlog: a million events wait for a broker that is down, the daemon is killed, opened
//! again, and drained.
//!
//! Load, daemon and broker share the machine's cores, so rates say little by themselves; CPU time per
//! event (`/proc/PID/stat`) is the figure to trust.

#[path = "../../tests/common"]
#[allow(dead_code, unused_imports, reason = "the tests do more with them")]
mod common {
    pub mod brokers;
    pub mod consume;
}

mod backlog;
mod bare;
mod daemon;
mod generator;
mod process;
mod report;
mod run;
mod scene;
mod sink;

use std::{path::Path, time::Duration};

use clap::Parser;

use self::{
    report::Report,
    scene::{Brokers, Scene},
};

/// Waypost's own: the bare server is measured with what waypost is measured with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure what an acknowledged event costs, against a bare server and real brokers.
#[derive(Parser)]
struct Arguments {
    /// Scenes to run
    #[arg(long, value_delimiter = ',', default_value = "bare,journal,log,nats,rabbitmq,kafka")]
    only: Vec<Scene>,
    /// Connections of the load, one run each
    #[arg(long, value_delimiter = ',', default_value = "64,512")]
    connections: Vec<usize>,
    /// How often everything is run; medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of the load of one run
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Bytes of a body
    #[arg(long, default_value_t = 1024)]
    body: usize,
    /// Events that wait when the daemon is killed, opened again and drained; 0 leaves this out
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Be the bare server and serve until standard input ends
    #[arg(long, hide = true)]
    serve_bare: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.serve_bare {
        return bare::serve();
    }
    let brokers = Brokers::start(&arguments.only);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime for the load");
    if arguments.rounds > 0 {
        let report = runtime.block_on(rounds(&arguments, &brokers));
        println!("{report}");
    }
    if arguments.backlog > 0 {
        let waiting = backlog::Plan { events: arguments.backlog, body_bytes: arguments.body };
        for scene in arguments.only.iter().filter(|scene| scene.delivers()) {
            let figures = runtime.block_on(backlog::measure(*scene, &brokers, waiting));
            println!("{scene}: {figures}");
        }
    }
}

/// A directory for a daemon's data: beside what cargo builds, since a temporary directory may be
/// memory, where a sync costs nothing.
fn directory() -> tempfile::TempDir {
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(beside).expect("a directory to work in");
    tempfile::Builder::new().prefix("load-").tempdir_in(beside).expect("a directory of its own")
}

async fn rounds(arguments: &Arguments, brokers: &Brokers) -> Report {
    let mut report = Report::default();
    for round in 1..=arguments.rounds {
        for &connections in &arguments.connections {
            for &scene in &arguments.only {
                let plan = run::Plan {
                    connections,
                    body_bytes: arguments.body,
                    lasting: Duration::from_secs(arguments.seconds),
                };
                let figures = run::measure(scene, brokers, plan).await;
                eprintln!("round {round}, {scene} at {connections}: {figures}");
                report.add(scene, connections, figures);
            }
        }
    }
    report
}
