//! The process, by the names that every Prometheus client uses, its log, and the build.
//!
//! Linux tells the rest in `/proc` (proc(5)); what cannot be read there is left out.

use std::{fmt, fs};

use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::Families;
use crate::admin::view::View;

pub(super) fn write(view: &View, out: &mut Families) -> fmt::Result {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    out.counter("process_cpu_seconds_total", "CPU time, user and system.", cpu_seconds)?;
    let help = "Start of the process since the Unix epoch.";
    out.gauge("process_start_time_seconds", help, view.started_ms as f64 / 1000.0)?;
    if let Some((all, resident)) = memory_bytes() {
        out.gauge("process_virtual_memory_bytes", "Virtual memory.", all)?;
        out.gauge("process_resident_memory_bytes", "Resident memory.", resident)?;
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        out.gauge("process_open_fds", "Open file descriptors.", descriptors.count() as u64)?;
    }
    if let Some(max) = getrlimit(Resource::Nofile).current {
        out.gauge("process_max_fds", "The most open file descriptors.", max)?;
    }
    let help = "Lines of the log that could not be written, or were not read in time.";
    out.counter("waypost_log_dropped_lines_total", help, view.log.dropped())?;
    let help = "Lines of the log that are not written yet.";
    out.gauge("waypost_log_queued_lines", help, view.log.queued() as u64)?;
    let help = "The most that wait, of 1 KiB on average.";
    out.gauge("waypost_log_queued_limit_lines", help, view.log.max() as u64)?;
    let build = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("os", std::env::consts::OS.to_owned()),
        ("arch", std::env::consts::ARCH.to_owned()),
    ];
    out.gauges("waypost_build_info", "What is running.", [(build, 1_u64)])
}

/// All memory, and what of it is resident: the first two fields of `statm`, which are pages.
fn memory_bytes() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').map(|pages| pages.parse::<u64>().ok());
    let page_bytes = page_size() as u64;
    Some((pages.next()?? * page_bytes, pages.next()?? * page_bytes))
}
