//! Lines on their way to standard error. Whoever logs leaves a line here and goes on; one thread writes.
//!
//! # The cast
//!
//! - [`Lines`]: what waits to be written, bounded. A line that finds it full is dropped and counted.
//! - the thread ([`write_all_to`](Lines::write_all_to)): writes one line at a time. It alone waits for
//!   whoever reads the log, for as long as that takes. A line that cannot be written is dropped and counted.
//! - [`Out`]: what it writes to, with the rest of a line that was torn.
//!
//! # Invariants
//!
//! - Who logs never waits for a reader or a disk, never fails, and is never told what became of the line.
//! - A line is written whole, in order, and once; or it is counted. What was counted is said in the log as
//!   soon as a line can be written again and no other waits.
//!
//! # Why not `tracing-appender`
//!
//! Its bounded writer counts what finds its queue full, and nothing else: a line that could not be written
//! is lost without a trace, and the next begins in the middle of it. At the end of the process it reports
//! trouble by `eprintln!` and `println!`, which panic where the log's reader is gone.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, Write},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::meter::Counter;

/// What a line is taken for where lines are bounded and their bytes are meant.
const LINE_BYTES: usize = 1024;

/// How long the end of the process may wait until what was logged before is written.
const SETTLE: Duration = Duration::from_secs(1);

/// Before another look at an output that does not wait itself (`O_NONBLOCK`, which whoever shares it may
/// have set).
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub struct Lines {
    state: Mutex<State>,
    /// A line waits.
    came: Condvar,
    /// Nothing waits, and nothing is being written.
    written: Condvar,
    max: usize,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// A line has been taken and is not written yet.
    writing: bool,
}

thread_local! {
    /// What the writing thread says itself: for it to write, not to wait for.
    static SAID: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

impl Lines {
    /// So many may wait, of 1 KiB on average.
    pub fn new(max: usize) -> Lines {
        Lines {
            state: Mutex::default(),
            came: Condvar::new(),
            written: Condvar::new(),
            max,
            dropped: Counter::default(),
        }
    }

    /// How many may wait, beside the one that is being written.
    pub fn max(&self) -> usize {
        self.max
    }

    /// How many are not written yet.
    pub fn queued(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + usize::from(state.writing)
    }

    fn nothing_waits(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// How many were neither written nor will be.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Leaves a line, its end included, to be written.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        let (count, bytes) = (state.waiting.len(), state.bytes);
        if count >= self.max || bytes >= self.max.saturating_mul(LINE_BYTES) {
            self.dropped.inc();
            return;
        }
        state.waiting.push_back(line.into());
        state.bytes += line.len();
        drop(state);
        self.came.notify_one();
    }

    /// Waits a moment until everything is written or dropped: before the process ends.
    pub fn settle(&self) {
        self.settled_within(SETTLE);
    }

    /// Whether everything was written or dropped within this time.
    fn settled_within(&self, patience: Duration) -> bool {
        let state = self.lock();
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let waited = self.written.wait_timeout_while(state, patience, busy);
        let waited = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }

    /// Writes what comes, for ever. `tell` logs how many lines were dropped.
    pub fn write_all_to(&self, out: impl Write, tell: impl Fn(u64)) -> ! {
        let mut out = Out { out, torn: false };
        let mut told = 0;
        loop {
            let line = self.next();
            if out.line(&line).is_err() {
                self.dropped.inc();
                continue;
            }
            let dropped = self.dropped();
            if dropped > told && self.nothing_waits() {
                let notice = said(|| tell(dropped - told));
                // Nothing, where `log.level` leaves it out.
                if out.line(&notice).is_ok() {
                    told = dropped;
                }
            }
        }
    }

    /// The next line, once there is one; the one before is done with.
    fn next(&self) -> Box<[u8]> {
        let mut state = self.lock();
        state.writing = false;
        loop {
            if let Some(line) = state.waiting.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                return line;
            }
            self.written.notify_all();
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing under the lock can panic; and if it did, the lines would be as good as before.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A whole line at once, as tracing-subscriber writes.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // On a thread that ends it may be gone already: what its destructors log is left like any line.
        let aside = SAID.try_with(|said| {
            said.borrow_mut().as_mut()?.extend_from_slice(line);
            Some(())
        });
        if aside.ok().flatten().is_none() {
            self.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `speak` logs on this thread, instead of leaving it to be written.
fn said(speak: impl FnOnce()) -> Vec<u8> {
    SAID.set(Some(Vec::new()));
    speak();
    SAID.take().unwrap_or_default()
}

struct Out<W> {
    out: W,
    /// The last line was not written to its end.
    torn: bool,
}

impl<W: Write> Out<W> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.all(b"\n")?;
        }
        self.torn = false;
        self.all(line)
    }

    fn all(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    rest = &rest[count..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(LOOK_AGAIN)
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
