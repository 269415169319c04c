use std::{
    io::{self, ErrorKind, Write},
    sync::{Arc, Mutex},
};

use super::*;

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the next writes do, and what was written. With nothing left to do, everything is taken.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<(VecDeque<Next>, Vec<u8>)>>);

#[derive(Clone, Copy)]
enum Next {
    Takes(usize),
    Fails(ErrorKind),
}

impl Paper {
    fn will(next: &[Next]) -> Paper {
        Paper(Arc::new(Mutex::new((next.iter().copied().collect(), Vec::new()))))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (next, written) = &mut *self.0.lock().unwrap();
        let takes = match next.pop_front() {
            Some(Next::Fails(kind)) => return Err(kind.into()),
            Some(Next::Takes(count)) => count.min(bytes.len()),
            None => bytes.len(),
        };
        written.extend_from_slice(&bytes[..takes]);
        Ok(takes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to write; the thread lives as long as the test's process does.
fn begin(lines: &Arc<Lines>, out: impl Write + Send + 'static) {
    let (writes, tells) = (lines.clone(), lines.clone());
    thread::spawn(move || {
        writes.write_all_to(out, |count| writeln!(&*tells, "{count} dropped").expect("a line"))
    });
}

/// What is on paper after these lines, one after the other, and how many were dropped.
fn written(lines: &[&str], next: &[Next]) -> (String, u64) {
    let (queue, paper) = (Arc::new(Lines::new(64)), Paper::will(next));
    begin(&queue, paper.clone());
    for line in lines {
        queue.push(format!("{line}\n").as_bytes());
        assert!(queue.settled_within(PATIENCE));
    }
    (paper.text(), queue.dropped())
}

#[test]
fn lines_are_written_whole_and_in_order_however_little_is_taken_at_a_time() {
    use Next::{Fails, Takes};
    for next in [
        &[][..],
        &[Takes(1), Takes(1), Takes(2)],
        &[Fails(ErrorKind::Interrupted), Takes(2), Fails(ErrorKind::WouldBlock), Takes(1)],
    ] {
        assert_eq!(written(&["one", "two"], next), ("one\ntwo\n".to_owned(), 0));
    }
}

#[test]
fn what_could_not_be_written_is_counted_and_said_once_when_a_line_can_be_again() {
    use Next::{Fails, Takes};
    let full = Fails(ErrorKind::StorageFull);
    for (next, expected, dropped) in [
        (&[full][..], "b\n1 dropped\nc\n", 1),
        (&[full, full], "c\n2 dropped\n", 2),
        (&[Takes(0)], "b\n1 dropped\nc\n", 1),
        // A line that was torn ends where the next begins.
        (&[Takes(1), full], "a\nb\n1 dropped\nc\n", 1),
        (&[Takes(1), full, full], "a\nc\n2 dropped\n", 2),
        // What cannot be said either is said later.
        (&[full, Takes(9), full], "b\nc\n1 dropped\n", 1),
        (&[full, Takes(9), Takes(3), full], "b\n1 d\nc\n1 dropped\n", 1),
    ] {
        assert_eq!(written(&["a", "b", "c"], next), (expected.to_owned(), dropped));
    }
}

/// Takes nothing until it is let go.
struct Stuck(std::sync::mpsc::Receiver<()>, Paper);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Fails once it was let go, which is for good.
        self.0.recv().ok();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn who_logs_never_waits_and_what_finds_the_queue_full_is_counted() {
    let long = "x".repeat(3 * LINE_BYTES);
    for (max, line, fit) in [(3, "short", 3), (6, long.as_str(), 2)] {
        let (lines, paper) = (Arc::new(Lines::new(max)), Paper::default());
        let (let_go, wait) = std::sync::mpsc::channel();
        begin(&lines, Stuck(wait, paper.clone()));
        lines.push(b"first\n");
        // The thread has it in its hands, and will not get rid of it.
        while !lines.nothing_waits() {
            thread::yield_now();
        }
        (0..10).for_each(|_| lines.push(format!("{line}\n").as_bytes()));
        assert!(!lines.settled_within(Duration::from_millis(1)));
        assert_eq!((lines.queued(), lines.dropped()), (fit + 1, 10 - fit as u64));

        drop(let_go);
        assert!(lines.settled_within(PATIENCE));
        let kept = format!("{line}\n").repeat(fit);
        assert_eq!(paper.text(), format!("first\n{kept}{} dropped\n", 10 - fit));
    }
}

#[test]
fn a_line_longer_than_all_that_may_wait_is_written_where_nothing_does() {
    let (lines, paper) = (Arc::new(Lines::new(1)), Paper::default());
    let line = "x".repeat(10 * LINE_BYTES) + "\n";
    lines.push(line.as_bytes());
    begin(&lines, paper.clone());
    assert!(lines.settled_within(PATIENCE));
    assert_eq!((paper.text(), lines.dropped()), (line, 0));
}

#[test]
fn what_a_filter_leaves_out_is_not_tried_again_and_again() {
    let (lines, paper) =
        (Arc::new(Lines::new(64)), Paper::will(&[Next::Fails(ErrorKind::BrokenPipe)]));
    let (asked, writes) = (Arc::new(Counter::default()), lines.clone());
    let (out, asks) = (paper.clone(), asked.clone());
    thread::spawn(move || writes.write_all_to(out, |_| asks.inc()));
    for line in [b"a\n", b"b\n", b"c\n"] {
        lines.push(line);
        assert!(lines.settled_within(PATIENCE));
    }
    assert_eq!((paper.text().as_str(), asked.get()), ("b\nc\n", 1));
}
