//! A disk that fails on purpose under the real program: see `tests/fault/fault.c`.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

/// What can be made to happen to a file's writes and syncs; reads: [`Faults::make_unreadable`].
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A part is written, then the disk is full.
    Full,
    /// Nothing can be made durable.
    Sync,
    /// Nothing that is made durable returns before this is disarmed.
    Hang,
    /// A part is written, and the process is killed.
    Torn,
}

impl Fault {
    fn file(self) -> &'static str {
        match self {
            Fault::Full => "full",
            Fault::Sync => "sync",
            Fault::Hang => "hang",
            Fault::Torn => "torn",
        }
    }
}

/// What a daemon is to be started with besides, so that its steps can be counted.
pub const STEPS: (&str, &str) = ("FAULT_STEPS", "1");

/// What a daemon is to be started with besides, so that its reads can fail. It must not be started
/// through a shell.
pub const READS: (&str, &str) = ("FAULT_READS", "1");

/// The faults of one directory's files. None happens until armed.
pub struct Faults {
    /// What the daemon is to be started with.
    settings: [(&'static str, String); 3],
    armed: PathBuf,
}

impl Faults {
    /// Builds the library that makes them, in `dir`; they concern the files below `under`.
    pub fn new(dir: &Path, under: &Path) -> Faults {
        let armed = dir.join("faults");
        fs::create_dir(&armed).expect("to create a directory");
        let library = dir.join("fault.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fault/fault.c");
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&library, Path::new(source)])
            .output()
            .expect("to run cc: `scripts/install.sh build` installs it");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        // The library sees paths as the kernel tells them.
        let dir = dir.canonicalize().expect("the directory");
        let under = dir.join(under.strip_prefix(&dir).unwrap_or(under));
        // Without the slash that a path ends with where it is `dir` itself.
        let under: PathBuf = under.components().collect();
        let settings = [
            ("LD_PRELOAD", text(&library)),
            ("FAULT_DIR", text(&armed)),
            ("FAULT_UNDER", text(&under)),
        ];
        Faults { settings, armed }
    }

    /// Environment of a daemon whose disk this is.
    pub fn settings(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    pub fn arm(&self, fault: Fault) {
        fs::write(self.armed.join(fault.file()), "").expect("to arm a fault");
    }

    /// Each read that touches one of these ranges, and no other, fails with EIO from now on. A file is
    /// told by a part of its path, which has no spaces. For a daemon that was started with [`READS`].
    pub fn make_unreadable(&self, ranges: &[(&str, Range<u64>)]) {
        let line =
            |(name, range): &(&str, Range<u64>)| format!("{name} {} {}\n", range.start, range.end);
        self.say("unreadable", ranges.iter().map(line).collect());
    }

    /// Everything can be read again.
    pub fn make_readable(&self) {
        fs::remove_file(self.armed.join("unreadable")).expect("to disarm a fault");
    }

    /// The process is killed at the operation of this number, from 1, on a file concerned: for a
    /// daemon that was started with [`STEPS`].
    pub fn kill_at_step(&self, number: u64) {
        self.say("step", number.to_string());
    }

    /// Arms a fault that has something to say, all of it at once.
    fn say(&self, file: &str, text: String) {
        let next = self.armed.join("next");
        fs::write(&next, text).expect("to arm a fault");
        fs::rename(next, self.armed.join(file)).expect("to arm a fault");
    }

    /// No step is counted any more.
    pub fn forget_steps(&self) {
        fs::remove_file(self.armed.join("step")).expect("to disarm a fault");
    }

    /// A fault that lasts as long as this file exists, and comes back with it.
    pub fn arm_while_there_is(&self, fault: Fault, file: &Path) {
        std::os::unix::fs::symlink(file, self.armed.join(fault.file())).expect("to arm a fault");
    }

    pub fn disarm(&self, fault: Fault) {
        fs::remove_file(self.armed.join(fault.file())).expect("to disarm a fault");
    }
}
