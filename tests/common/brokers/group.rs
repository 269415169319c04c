//! What the threads of a broker are doing, as Linux tells it (`proc(5)`).
//!
//! A signal takes effect when each thread of each process gets to it, a little after sending it has
//! returned; and a process' files are closed by its last thread, while its first may be a zombie
//! already. So it is the threads that are asked.

use std::{fs, path::Path};

use rustix::process::Pid;

/// Whether every thread of the group is stopped or has ended.
pub fn is_paused(group: Pid) -> bool {
    members(group).iter().all(|stat| stat.is_paused() || stat.has_ended())
}

/// Whether every thread of the group has ended.
pub fn has_ended(group: Pid) -> bool {
    members(group).iter().all(Stat::has_ended)
}

/// Whether every thread of this one process has ended.
pub fn process_has_ended(process: Pid) -> bool {
    threads(&Path::new("/proc").join(process.to_string())).iter().all(Stat::has_ended)
}

/// What matters here of a `stat` file: `pid (name) state ppid pgrp …`.
struct Stat {
    state: char,
    group: i32,
}

impl Stat {
    fn is_paused(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// `None` where the process or thread is gone.
    fn read(dir: &Path) -> Option<Stat> {
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        // The name may hold anything, parentheses too.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        Some(Stat { state: fields.next()?.chars().next()?, group: fields.nth(1)?.parse().ok()? })
    }
}

fn members(group: Pid) -> Vec<Stat> {
    let group = group.as_raw_nonzero().get();
    let processes = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let members = processes.filter(|dir| Stat::read(dir).is_some_and(|stat| stat.group == group));
    members.flat_map(|dir| threads(&dir)).collect()
}

/// None when the process is gone.
fn threads(process: &Path) -> Vec<Stat> {
    let Ok(threads) = fs::read_dir(process.join("task")) else { return Vec::new() };
    threads.flatten().filter_map(|thread| Stat::read(&thread.path())).collect()
}
