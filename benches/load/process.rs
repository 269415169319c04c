//! What processes cost, as Linux tells it (`proc(5)`).

use std::{collections::HashMap, fs, time::Duration};

/// Clock ticks a second in `/proc`: fixed on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time, user and system, that a process has used so far, all its threads together.
pub fn cpu(pid: u32) -> Duration {
    let stat = Stat::read(pid).expect("a running process");
    Duration::from_millis(stat.ticks * 1000 / TICKS_PER_SECOND)
}

/// The same of every process of this program's whose ancestor was started with this word in its
/// command line.
pub fn cpu_of_descendants(word: &str) -> Duration {
    let all: HashMap<u32, Stat> = pids().filter_map(|pid| Some((pid, Stat::read(pid)?))).collect();
    let own = std::process::id();
    let is_root = |pid: u32| {
        all.get(&pid).is_some_and(|stat| stat.parent == own) && command(pid).contains(word)
    };
    let belongs = |mut pid: u32| {
        while let Some(stat) = all.get(&pid) {
            if is_root(pid) {
                return true;
            }
            pid = stat.parent;
        }
        false
    };
    let ticks: u64 = all.iter().filter(|(pid, _)| belongs(**pid)).map(|(_, stat)| stat.ticks).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Resident memory in bytes: now, and at its highest.
pub fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a known line");
        let kib: u64 =
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("kB");
        kib << 10
    };
    (bytes("VmRSS"), bytes("VmHWM"))
}

struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    /// `None` when the process is gone.
    fn read(pid: u32) -> Option<Stat> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything, parentheses too.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Stat { parent: number(1)? as u32, ticks: number(11)? + number(12)? })
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).into_owned()
}
