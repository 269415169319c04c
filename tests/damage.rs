//! What is destroyed on disk costs the records that it touches and no more, whatever its size and
//! wherever it is, and everybody who must know is told.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::common::{
    daemon::Daemon,
    kept::eventually,
    operator::{Scrape, await_metrics},
    outage::{self, Aftermath, LIVE, LOCAL, Outage, Plan},
    segments::{self, FRAMES_START, Found},
};

/// From a flipped byte to what a solid-state disk erases at once.
const SIZES: [usize; 5] = [1, 512, 4096, 8192, 65536];

/// Segments that hold several units of the largest size.
const PLAN: Plan = Plan {
    settings: &[
        ("WAYPOST_JOURNAL__SEGMENT_BYTES", "200000"),
        // What waits is read from the disk.
        ("WAYPOST_JOURNAL__TAIL_BYTES", "1000"),
    ],
    had: 30,
    waiting: 725,
    padding: 1400,
    connections: 4,
};

/// Closed segments that hold what waits: as many as are damaged at the same time.
const CLOSED: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Zeros,
    Flips,
}

/// Where in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// From the file's first byte on.
    Header,
    /// From the first frame on.
    First,
    Middle,
    /// What the file ends in.
    Tail,
}

const PLACES: [Place; CLOSED] = [Place::Header, Place::First, Place::Middle, Place::Tail];

/// One damaged unit.
struct Harm {
    path: PathBuf,
    range: Range<usize>,
    /// What the file holds since.
    damaged: Vec<u8>,
    /// The file's records that the unit touches, and the others.
    touched: Vec<Found>,
    others: Vec<Found>,
    /// Whether it may pass for a write that never became whole: nothing tells it from the end of a
    /// file whose last writes were acknowledged to nobody.
    may_be_torn: bool,
}

impl Harm {
    /// Damages a segment that was intact.
    fn new(path: &Path, place: Place, size: usize, kind: Kind) -> Harm {
        let mut bytes = fs::read(path).expect("a segment");
        let records = segments::records(&bytes);
        let start = match place {
            Place::Header => 0,
            Place::First => FRAMES_START,
            Place::Middle => bytes.len() / 2 / size * size,
            Place::Tail => (bytes.len() - 1) / size * size,
        };
        // A zero that is zeroed is no damage.
        let start = (start..bytes.len()).find(|at| bytes[*at] != 0).expect("a byte") / size * size;
        let range = start..bytes.len().min(start + size);
        for byte in &mut bytes[range.clone()] {
            *byte = if kind == Kind::Zeros { 0 } else { !*byte };
        }
        // In place: a daemon may have it open.
        let file = fs::File::options().write(true).open(path).expect("a segment");
        file.write_all_at(&bytes[range.clone()], range.start as u64).expect("to damage it");
        let touches =
            |found: &Found| found.bytes.start < range.end && range.start < found.bytes.end;
        let (touched, others) = records.into_iter().partition(touches);
        Harm { path: path.to_owned(), range, damaged: bytes, touched, others, may_be_torn: false }
    }

    /// Of the records that it touches, those that these events are.
    fn costs<'a>(&'a self, waiting: &'a BTreeSet<&str>) -> impl Iterator<Item = &'a str> {
        let ids = self.touched.iter().map(|found| &*found.id);
        ids.filter(|id| waiting.contains(id))
    }

    /// The file is where it was, or whole in quarantine.
    fn is_kept(&self) -> bool {
        let quarantine = self.path.with_file_name("quarantine");
        let moved = fs::read_dir(quarantine).into_iter().flatten().flatten();
        // What is after the damage may be cut off a file that was written last.
        let kept = if self.may_be_torn { self.range.start } else { self.damaged.len() };
        let is_it = |path: &Path| {
            fs::read(path).is_ok_and(|bytes| bytes.starts_with(&self.damaged[..kept]))
        };
        is_it(&self.path) || moved.map(|entry| entry.path()).any(|path| is_it(&path))
    }
}

/// Every size and kind, each time at another place of each of several closed segments and of the
/// active one.
#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_the_records_that_it_touches_and_no_more() {
    let outage = Outage::over(PLAN).await;
    let turns = SIZES.into_iter().flat_map(|size| [(size, Kind::Zeros), (size, Kind::Flips)]);
    for (turn, (size, kind)) in turns.enumerate() {
        let aftermath = outage.copy().await;
        let mut segments = aftermath.segments();
        let active = segments.pop().expect("an active segment");
        assert!(segments.len() >= CLOSED, "{segments:?}");
        let closed = segments.iter().zip(PLACES);
        let mut harm: Vec<Harm> =
            closed.map(|(path, place)| Harm::new(path, place, size, kind)).collect();
        let place = PLACES[turn % PLACES.len()];
        let mut last = Harm::new(&active, place, size, kind);
        last.may_be_torn = last.range.end == last.damaged.len();
        harm.push(last);
        println!("{size} bytes of {kind:?}, {place:?} of the active segment");
        check(&aftermath, aftermath.start(), &harm).await;
    }
}

/// As the daemon is without a word about its journal: large segments, bodies of 5 KB.
#[tokio::test(flavor = "multi_thread")]
async fn damage_at_the_head_of_a_large_segment_costs_one_record_or_two() {
    let plan = Plan { settings: &[], had: 0, waiting: 14_000, padding: 5000, connections: 8 };
    let outage = Outage::over(plan).await;
    let aftermath = outage.copy().await;
    let harm = Harm::new(&aftermath.segments()[0], Place::Header, 8192, Kind::Zeros);
    assert!(harm.touched.len() <= 2);
    check(&aftermath, aftermath.start(), &[harm]).await;
}

/// What a reader finds goes the same way as what a start does.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_is_found_while_the_daemon_runs_costs_no_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut outage, daemon) = Outage::begin(PLAN, &[], dir).await;
    let segments = outage.aftermath().segments();
    assert!(segments.len() > CLOSED, "{segments:?}");
    let closed = segments.iter().zip(PLACES);
    let harm: Vec<Harm> =
        closed.map(|(path, place)| Harm::new(path, place, 8192, Kind::Zeros)).collect();
    outage.nats.restart();
    check(&outage.aftermath(), daemon, &harm).await;
}

/// Everything that must come of damage in a data directory once its daemon and the broker are there.
async fn check(aftermath: &Aftermath<'_>, daemon: Daemon, harm: &[Harm]) {
    let waiting: BTreeSet<&str> = aftermath.outage.waiting().collect();
    let cost: BTreeSet<&str> = harm.iter().flat_map(|harm| harm.costs(&waiting)).collect();
    let told = |harm: &&Harm| harm.costs(&waiting).next().is_some();
    let regions = harm.iter().filter(told).count();
    // What may have been a torn write counts as lost or does not.
    let torn = harm.iter().filter(|harm| harm.may_be_torn).filter(told).count();

    let delivered = outage::await_nothing_waits(&daemon, LIVE);
    let confirmed = delivered.get(&outage::series("waypost_broker_confirmed_total", LIVE));
    let delivered = aftermath.outage.delivered(confirmed as usize).await;
    let delivered: BTreeSet<&str> = delivered.iter().map(String::as_str).collect();
    let missing: Vec<&&str> =
        waiting.iter().filter(|id| !cost.contains(*id) && !delivered.contains(*id)).collect();
    assert_eq!(missing.len(), 0, "undamaged, of {}, beside {} damaged", waiting.len(), cost.len());
    let lost: Vec<&str> = cost.iter().copied().filter(|id| !delivered.contains(id)).collect();

    let scrape = await_metrics(&daemon, "the damage is counted", |scrape| {
        counted(scrape, "waypost_journal_damaged_regions_total") >= (regions - torn) as f64
    });
    let lost_records = |broker| {
        let series = outage::series("waypost_broker_lost_records_total", broker);
        scrape.series.get(&series).copied().unwrap_or(0.0) as usize
    };
    let torn_records = harm.iter().filter(|harm| harm.may_be_torn);
    let torn_records = torn_records.flat_map(|harm| harm.costs(&waiting)).count();
    let all_lost = lost.len() - torn_records..=lost.len();
    assert!(all_lost.contains(&lost_records(LIVE)), "{all_lost:?}: {}", lost_records(LIVE));
    assert_eq!(lost_records(LOCAL), 0, "it had everything");
    let (status, text) = daemon.command(&["status"]);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.lines().any(|line| line.contains("damaged")), "{text}");
    let dir = &*aftermath.dir;
    eventually("a dead letter a region", || {
        (regions - torn..=regions).contains(&outage::damage_told(dir).len())
    })
    .await;
    let letters = outage::damage_told(dir);
    for harm in harm.iter().filter(|harm| told(harm) && !harm.may_be_torn) {
        let name = harm.path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert!(letters.iter().any(|letter| letter.contains(name)), "{name}: {letters:?}");
    }
    // What nobody is owed is not read again, and damage there that nobody meets goes with it.
    for harm in harm.iter().filter(told) {
        eventually(&format!("{} is kept", harm.path.display()), || harm.is_kept()).await;
    }

    assert_retries(aftermath, &daemon, harm, &lost).await;
    assert!(daemon.stop().success());
    let daemon = aftermath.start();
    outage::await_nothing_waits(&daemon, LIVE);
    assert!(daemon.stop().success());
    assert_eq!(outage::damage_told(dir), letters, "it is told once");
    for harm in harm.iter().filter(told) {
        assert!(harm.is_kept(), "{}", harm.path.display());
    }
}

/// A sender's second try: one of each file's lost events is taken, one of the others is known.
async fn assert_retries(aftermath: &Aftermath<'_>, daemon: &Daemon, harm: &[Harm], lost: &[&str]) {
    let known = || counted(&Scrape::of(daemon), "waypost_duplicates_total");
    for harm in harm {
        let touched = harm.touched.iter().map(|found| &*found.id);
        let Some(id) = touched.clone().find(|id| lost.contains(id)) else { continue };
        let before = known();
        assert_eq!(aftermath.post_again(daemon, id).await, id);
        assert_eq!(known(), before, "what is lost is not known any more");
        let delivered = aftermath.outage.delivered_all([id].into_iter()).await;
        assert!(delivered.contains(id), "what is sent again is delivered");
    }
    for harm in harm {
        // The neighbours of what was damaged.
        let next = |found: &&Found| found.bytes.start >= harm.range.end;
        let (before, after) =
            (harm.others.iter().rfind(|f| !next(f)), harm.others.iter().find(next));
        for found in [before, after].into_iter().flatten() {
            let before = known();
            assert_eq!(aftermath.post_again(daemon, &found.id).await, found.id);
            assert_eq!(known(), before + 1.0, "what is not lost is known");
        }
    }
}

/// All series of a counter together.
fn counted(scrape: &Scrape, family: &str) -> f64 {
    scrape.nonzero(family).iter().map(|(_, value)| value).sum()
}

/// Each unit lies in what both brokers had before the daemon died.
#[tokio::test(flavor = "multi_thread")]
async fn damage_to_what_every_broker_has_had_costs_nothing_and_is_told() {
    let plan = Plan { had: 60, waiting: 100, ..PLAN };
    let outage = Outage::over(plan).await;
    for kind in [Kind::Zeros, Kind::Flips] {
        let aftermath = outage.copy().await;
        let harm = Harm::new(&aftermath.segments()[0], Place::First, 8192, kind);
        assert!(!harm.touched.is_empty());
        let waiting: BTreeSet<&str> = outage.waiting().collect();
        assert_eq!(harm.costs(&waiting).count(), 0);

        let daemon = aftermath.start();
        outage::await_nothing_waits(&daemon, LIVE);
        let delivered = outage.delivered_all(waiting.iter().copied()).await;
        assert!(waiting.iter().all(|id| delivered.contains(*id)), "nothing is lost");
        let scrape = await_metrics(&daemon, "the damage is counted", |scrape| {
            counted(scrape, "waypost_journal_damaged_regions_total") >= 1.0
        });
        assert_eq!(counted(&scrape, "waypost_broker_lost_records_total"), 0.0);
        assert_eq!(outage::damage_told(&aftermath.dir), [""; 0]);
        let (_, text) = daemon.command(&["status"]);
        assert!(text.lines().any(|line| line.contains("damaged")), "{text}");
        eventually("the file is kept", || harm.is_kept()).await;
        assert!(daemon.stop().success());
    }
}
