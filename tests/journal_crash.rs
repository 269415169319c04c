//! Whatever is acknowledged survives every crash: of the process, of the power, of one after the
//! other, at every single operation on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};
use tokio::time::timeout;
use waypost::journal::{
    AppendError, Entry, Item, Journal, Key, Opened, Options, Place, Position, Reader, Stamp,
};

use crate::common::{
    sim_disk::{Image, SimDisk},
    variable::number,
};

const MAIN: &str = "/data/journal";
const PARKED: &str = "/data/parked";

/// Histories tried by default; `WAYPOST_CRASH_CASES` raises it, `WAYPOST_CRASH_SEED` varies them.
const CASES: u32 = 40;

/// What a violated promise says.
type Outcome<T> = Result<T, String>;

macro_rules! promise {
    ($holds:expr, $($why:tt)*) => {
        if !$holds {
            return Err(format!($($why)*));
        }
    };
}

#[derive(Clone, Debug)]
enum Step {
    /// Appends payloads of these lengths, without waiting in between.
    Append(Vec<usize>),
    /// Settles up to so many records, and saves that.
    Settle(usize),
    /// Settles every second one of up to so many records, which then rides on a commit.
    SettleSome(usize),
    /// Parks the first unsettled record, then settles it.
    Park,
    Release,
    Reopen,
    /// Appends with only so much room on the disk.
    NoSpace(u64, Vec<usize>),
    /// Appends while the sync fails, which ends the process.
    FailedSync(Vec<usize>),
    /// Settles one record while the sync fails, which ends the process too.
    FailedSave,
}

fn step() -> impl Strategy<Value = Step> {
    let lens = || prop::collection::vec(prop_oneof![Just(0), 1..300_usize, 900..1200_usize], 1..5);
    prop_oneof![
        5 => lens().prop_map(Step::Append),
        3 => (1..4_usize).prop_map(Step::Settle),
        4 => (1..8_usize).prop_map(Step::SettleSome),
        1 => Just(Step::Park),
        2 => Just(Step::Release),
        1 => Just(Step::Reopen),
        2 => ((0..2000_u64), lens()).prop_map(|(room, lens)| Step::NoSpace(room, lens)),
        1 => lens().prop_map(Step::FailedSync),
        1 => Just(Step::FailedSave),
    ]
}

fn options() -> Options {
    Options {
        segment_bytes: 4096 + 1500,
        tail_bytes: 1000,
        queue: 64,
        carry_every: Duration::ZERO,
        ..Options::default()
    }
}

/// A payload says which it is in every part of it, so that no mixture passes for one.
fn payload(id: u64, len: usize) -> Bytes {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend_from_slice(&(len as u64).to_le_bytes());
    bytes.extend((0..len).map(|at| (id as usize * 31 + at * 7) as u8));
    bytes.into()
}

fn id_of(bytes: &Bytes) -> Outcome<u64> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map(u64::from_le_bytes).ok_or_else(|| format!("{} bytes were delivered", bytes.len()))
    };
    let (id, len) = (word(0)?, word(8)?);
    promise!(*bytes == payload(id, len as usize), "a wrong payload was delivered for {id}");
    Ok(id)
}

fn key(id: u64) -> Key {
    (u128::from(id) * 0x9e37_79b9_7f4a_7c15 + 1).to_le_bytes()
}

/// What was done and promised, each with the number of disk operations done before it.
#[derive(Clone, Default)]
struct Log {
    sent: BTreeMap<u64, usize>,
    /// Refused, so in no order with what came later.
    refused: BTreeSet<u64>,
    /// Position to id, and when it was acknowledged.
    acknowledged: BTreeMap<u64, (u64, usize)>,
    /// Positions that were settled, and when; and when that was durable.
    settled: BTreeMap<u64, usize>,
    durable: BTreeMap<u64, usize>,
    /// Ids parked before being settled, by their position in the main journal, and when.
    parked: BTreeMap<u64, (u64, usize)>,
}

impl Log {
    /// What of it holds if the process dies before the operation of this number.
    fn before(&self, operation: usize) -> Log {
        let mut log = self.clone();
        log.sent.retain(|_, at| *at <= operation);
        log.acknowledged.retain(|_, (_, at)| *at <= operation);
        log.parked.retain(|_, (_, at)| *at <= operation);
        log.settled.retain(|_, at| *at <= operation);
        log.durable.retain(|_, at| *at <= operation);
        log.restart();
        log
    }

    /// Numbers operations anew: all that was came before.
    fn restart(&mut self) {
        self.sent.values_mut().for_each(|at| *at = 0);
        let records = self.acknowledged.values_mut().chain(self.parked.values_mut());
        records.for_each(|(_, at)| *at = 0);
        let places = self.settled.values_mut().chain(self.durable.values_mut());
        places.for_each(|at| *at = 0);
    }
}

/// A process on the disk.
struct Session {
    disk: SimDisk,
    main: Journal,
    parked: Journal,
    place: Place,
    /// What is settled and was not seen to be durable.
    waiting: Vec<(Stamp, u64)>,
    log: Arc<Mutex<Log>>,
}

/// What may have happened to the disk before it is opened.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    ProcessDied,
    PowerLost,
}

impl Session {
    /// Opens both journals and checks every promise in the log.
    async fn open(disk: SimDisk, mut log: Log, before: Before) -> Outcome<Session> {
        let opened = open(&disk, MAIN)?;
        let opened_at = disk.operations();
        let parked = open(&disk, PARKED)?;
        let place = opened.journal.place("a").map_err(|error| error.to_string())?;
        let opened_place_at = disk.operations();

        let all = read(opened.journal.reader(Position::FIRST), &opened.journal).await?;
        check_items(&log, &all, before)?;
        let open = read(place.reader(), &opened.journal).await?;
        check_place(&mut log, &opened.journal, &open, opened_place_at)?;
        adopt(&mut log, &all, opened_at)?;
        check_keys(&log, &opened)?;
        check_parked(&log, &parked.journal).await?;
        let (log, waiting) = (Arc::new(Mutex::new(log)), Vec::new());
        Ok(Session { disk, main: opened.journal, parked: parked.journal, place, waiting, log })
    }

    async fn close(self) -> (SimDisk, Log) {
        self.main.close().await;
        self.parked.close().await;
        let log = self.log.lock().unwrap().clone();
        (self.disk, log)
    }

    async fn step(mut self, step: &Step) -> Outcome<Session> {
        match step {
            Step::Append(lens) => {
                for result in self.append(lens).await {
                    promise!(result.is_ok(), "an append failed: {result:?}");
                }
            }
            Step::Settle(count) => {
                self.settle(*count, 1).await?;
                self.save()?;
            }
            Step::SettleSome(count) => self.settle(*count, 2).await?,
            Step::Park => self.park().await?,
            Step::Release => {
                self.main.release().await.map_err(|error| error.to_string())?;
            }
            Step::Reopen => return self.reopen().await,
            Step::NoSpace(room, lens) => {
                self.disk.set_room(Some(*room));
                let results = self.append(lens).await;
                self.disk.set_room(None);
                let refused = |result: &Result<_, _>| matches!(result, Err(AppendError::NoSpace));
                promise!(results.iter().all(|r| r.is_ok() || refused(r)), "{results:?}");
            }
            Step::FailedSync(lens) => {
                self.disk.fail_syncs(1);
                let results = self.append(lens).await;
                promise!(results.iter().all(Result::is_err), "acknowledged without a sync");
                self.main.failed().await;
                return self.reopen().await;
            }
            Step::FailedSave => {
                self.settle(1, 1).await?;
                if self.place.due().is_some() {
                    self.disk.fail_syncs(1);
                    promise!(self.save().is_err(), "a place was saved without a sync");
                    return self.reopen().await;
                }
            }
        }
        self.look();
        Ok(self)
    }

    async fn reopen(self) -> Outcome<Session> {
        let (disk, log) = self.close().await;
        Session::open(disk, log, Before::ProcessDied).await
    }

    async fn append(&self, lens: &[usize]) -> Vec<Result<Position, AppendError>> {
        let mut waiting = Vec::new();
        for len in lens {
            let id = self.begin();
            let (disk, log) = (self.disk.clone(), self.log.clone());
            let (tell, told) = tokio::sync::oneshot::channel();
            let entry =
                Entry { payload: payload(id, *len), keys: vec![key(id)], time_ms: 1000 + id };
            let done = Box::new(move |result: Result<Position, AppendError>| {
                let mut log = log.lock().unwrap();
                match &result {
                    Ok(position) => {
                        log.acknowledged.insert(position.ordinal(), (id, disk.operations()));
                    }
                    Err(_) => {
                        log.refused.insert(id);
                    }
                }
                tell.send(result).unwrap();
            });
            self.main.append(entry, done).await;
            waiting.push(told);
        }
        let mut results = Vec::new();
        for told in waiting {
            results.push(told.await.unwrap());
        }
        results
    }

    fn begin(&self) -> u64 {
        let operations = self.disk.operations();
        let mut log = self.log.lock().unwrap();
        let id = log.sent.keys().next_back().map_or(0, |id| id + 1);
        log.sent.insert(id, operations);
        id
    }

    /// Settles of the first so many open records each `step`th.
    async fn settle(&mut self, count: usize, step: usize) -> Outcome<()> {
        let open = read(self.place.reader(), &self.main).await?;
        for item in open.iter().take(count).step_by(step) {
            self.settle_one(item);
        }
        Ok(())
    }

    fn settle_one(&mut self, item: &Item) {
        let (from, to) = (item.position(), item.next_position());
        let operations = self.disk.operations();
        for position in from.ordinal()..to.ordinal() {
            self.log.lock().unwrap().settled.entry(position).or_insert(operations);
        }
        let stamp = match item {
            Item::Entry(position, _) => self.place.settle(*position),
            _ => {
                self.place.step_over(from, to);
                return;
            }
        };
        self.waiting.push((stamp, from.ordinal()));
    }

    fn save(&mut self) -> Outcome<()> {
        self.place.save().map_err(|error| error.to_string())?;
        self.look();
        promise!(self.waiting.is_empty(), "saved, and {:?} is not durable", self.waiting);
        Ok(())
    }

    /// Notes what is said to be durable.
    fn look(&mut self) {
        let (durable, operations) = (self.place.durable(), self.disk.operations());
        let mut log = self.log.lock().unwrap();
        let is_durable = |(stamp, _): &mut (Stamp, u64)| *stamp <= durable.stamp;
        for (_, position) in self.waiting.extract_if(.., is_durable) {
            log.durable.entry(position).or_insert(operations);
        }
    }

    async fn park(&mut self) -> Outcome<()> {
        let open = read(self.place.reader(), &self.main).await?;
        let Some(item) = open.first() else { return Ok(()) };
        if let Item::Entry(position, bytes) = item {
            let entry = Entry { payload: bytes.clone(), ..Entry::default() };
            let parked = self.parked.append_durable(entry).await;
            parked.map_err(|error| error.to_string())?;
            let parked = (id_of(bytes)?, self.disk.operations());
            self.log.lock().unwrap().parked.insert(position.ordinal(), parked);
        }
        self.settle_one(item);
        self.save()
    }
}

fn open(disk: &SimDisk, dir: &str) -> Outcome<Opened> {
    Journal::open(Arc::new(disk.clone()), Path::new(dir), options())
        .map_err(|error| format!("{dir} does not open: {error}"))
}

async fn read(mut reader: Reader, journal: &Journal) -> Outcome<Vec<Item>> {
    let mut items = Vec::new();
    let mut waits = 0;
    while !reader.is_at_end() {
        match timeout(Duration::from_millis(50), reader.next(3, 500)).await {
            Ok(next) => items.extend(next.map_err(|error| error.to_string())?),
            // A place that has settled all waits for more.
            Err(_) if reader.position() >= journal.fence() => break,
            // The machine may be busy with others.
            Err(_) if waits < 600 => waits += 1,
            Err(_) => return Err("a reader stands still".to_owned()),
        }
    }
    Ok(items)
}

fn check_items(log: &Log, items: &[Item], before: Before) -> Outcome<()> {
    let mut delivered = BTreeMap::new();
    let (mut next, mut last) = (0, None);
    for item in items {
        let position = item.position().ordinal();
        promise!(position == next, "{next} was skipped silently");
        match item {
            Item::Entry(_, bytes) => {
                let id = id_of(bytes)?;
                promise!(log.sent.contains_key(&id), "{id} was never sent");
                if !log.refused.contains(&id) {
                    promise!(last < Some(id), "{id} came after {last:?}");
                    last = Some(id);
                }
                delivered.insert(position, id);
            }
            // What was settled and is released.
            Item::Damaged { .. } if log.settled.contains_key(&position) => {}
            Item::Void { .. } => promise!(before == Before::PowerLost, "void without reason"),
            Item::Damaged { why, .. } => {
                promise!(before == Before::PowerLost, "damaged by a process's death: {why}");
            }
        }
        next = item.next_position().ordinal();
    }
    for (position, (id, _)) in &log.acknowledged {
        let found = delivered.get(position);
        let is_settled = log.settled.contains_key(position);
        promise!(
            found == Some(id) || found.is_none() && is_settled,
            "{id}, acknowledged at {position}, is lost: {found:?}"
        );
    }
    Ok(())
}

/// What is not read there again is settled, and was; what was durably settled is not read again.
fn check_place(log: &mut Log, journal: &Journal, open: &[Item], at: usize) -> Outcome<()> {
    let mut settled: BTreeSet<u64> = (0..journal.fence().ordinal()).collect();
    for item in open {
        for position in item.position().ordinal()..item.next_position().ordinal() {
            settled.remove(&position);
        }
    }
    for position in log.durable.keys() {
        promise!(settled.contains(position), "{position} was durably settled, and comes again");
    }
    for (position, (id, _)) in &log.acknowledged {
        let was = log.settled.contains_key(position) || !settled.contains(position);
        promise!(was, "{id} at {position} is passed over: nobody settled it");
    }
    log.durable.extend(settled.into_iter().map(|position| (position, at)));
    for position in log.durable.keys() {
        log.settled.entry(*position).or_insert(at);
    }
    Ok(())
}

/// Once a record has been delivered it must never be lost again, acknowledged or not.
fn adopt(log: &mut Log, items: &[Item], at: usize) -> Outcome<()> {
    for item in items {
        if let Item::Entry(position, bytes) = item {
            log.acknowledged.entry(position.ordinal()).or_insert((id_of(bytes)?, at));
        }
    }
    Ok(())
}

fn check_keys(log: &Log, opened: &Opened) -> Outcome<()> {
    let known: BTreeMap<Key, u64> = opened.keys.iter().copied().collect();
    for (id, _) in log.acknowledged.values() {
        promise!(known.get(&key(*id)) == Some(&(1000 + id)), "the key of {id} is forgotten");
    }
    let acknowledged: BTreeSet<Key> = log.acknowledged.values().map(|(id, _)| key(*id)).collect();
    for id in log.sent.keys() {
        let known = known.contains_key(&key(*id));
        promise!(!known || acknowledged.contains(&key(*id)), "{id} is known without a record");
    }
    Ok(())
}

async fn check_parked(log: &Log, parked: &Journal) -> Outcome<()> {
    let items = read(parked.reader(Position::FIRST), parked).await?;
    let mut ids = BTreeSet::new();
    for item in &items {
        if let Item::Entry(_, bytes) = item {
            ids.insert(id_of(bytes)?);
        }
    }
    let is_settled = |position: &u64| log.durable.contains_key(position);
    for (_, (id, _)) in log.parked.iter().filter(|(position, _)| is_settled(position)) {
        promise!(ids.contains(id), "{id} was settled by being parked, and is not parked");
    }
    Ok(())
}

/// Plays a history and then ends it before each of its operations, in every way.
async fn crash_everywhere(steps: &[Step], seed: u64, lie: fn(&SimDisk)) -> Outcome<()> {
    let disk = SimDisk::new(seed);
    lie(&disk);
    let (images, log) = play(disk, Log::default(), Before::ProcessDied, steps).await?;
    let mut rng = fastrand::Rng::with_seed(seed);
    for (operation, image) in images.iter().enumerate() {
        let at =
            |what: &str, error: String| format!("{what} before operation {operation}: {error}");
        let log = log.before(operation);
        for _ in 0..2 {
            let disk = SimDisk::holding(image.power_lost(&mut rng), rng.u64(..));
            let session = Session::open(disk, log.clone(), Before::PowerLost).await;
            let session = session.map_err(|error| at("power lost", error))?;
            session.close().await;
        }
        let disk = SimDisk::holding(image.clone(), rng.u64(..));
        let steps = [Step::Settle(2), Step::Append(vec![10, 700]), Step::Release];
        let (images, log) = play(disk, log, Before::ProcessDied, &steps)
            .await
            .map_err(|error| at("process died", error))?;
        for _ in 0..3 {
            let then = rng.usize(..images.len());
            let disk = SimDisk::holding(images[then].power_lost(&mut rng), rng.u64(..));
            let session = Session::open(disk, log.before(then), Before::PowerLost).await;
            let what = || at("process died", format!("then power lost before {then}"));
            session.map_err(|error| format!("{}: {error}", what()))?.close().await;
        }
    }
    Ok(())
}

/// Plays steps on a disk; returns the image before each operation and what was promised.
async fn play(
    disk: SimDisk,
    log: Log,
    before: Before,
    steps: &[Step],
) -> Outcome<(Vec<Image>, Log)> {
    disk.record();
    let mut session = Session::open(disk, log, before).await?;
    for step in steps {
        session = session.step(step).await?;
    }
    let (disk, log) = session.close().await;
    Ok((disk.images(), log))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn crash_histories(lie: fn(&SimDisk)) -> Result<(), String> {
    let config = Config {
        cases: number("WAYPOST_CRASH_CASES", CASES.into()) as u32,
        max_shrink_iters: 50,
        rng_seed: RngSeed::Fixed(number("WAYPOST_CRASH_SEED", 1)),
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = (prop::collection::vec(step(), 4..14), any::<u64>());
    let runtime = runtime();
    let run = |(steps, seed): (Vec<Step>, u64)| {
        runtime.block_on(crash_everywhere(&steps, seed, lie)).map_err(TestCaseError::fail)
    };
    TestRunner::new(config).run(&strategy, run).map_err(|error| error.to_string())
}

#[test]
fn what_is_acknowledged_survives_every_crash() {
    crash_histories(|_| {}).unwrap();
}

#[test]
fn without_the_fdatasync_an_acknowledged_event_is_lost() {
    let found = crash_histories(SimDisk::lie_about_sync).unwrap_err();
    assert!(found.contains("is lost") || found.contains("forgotten"), "{found}");
}

#[test]
fn without_the_directory_sync_an_acknowledged_event_is_lost() {
    let found = crash_histories(SimDisk::lie_about_sync_dir).unwrap_err();
    assert!(found.contains("is lost") || found.contains("forgotten"), "{found}");
}

#[test]
fn a_process_that_is_cut_off_acknowledges_nothing_it_did_not_sync() {
    let steps = [Step::Append(vec![10, 20, 30]), Step::Append(vec![2000]), Step::Append(vec![5])];
    runtime().block_on(async {
        for operations in 0.. {
            let disk = SimDisk::new(operations);
            let session = Session::open(disk.clone(), Log::default(), Before::ProcessDied).await;
            let session = session.unwrap();
            disk.cut_after(operations as usize);
            let mut cut = false;
            for step in &steps {
                let Step::Append(lens) = step else { unreachable!() };
                cut |= session.append(lens).await.iter().any(Result::is_err);
            }
            if cut {
                session.main.failed().await;
            }
            let (disk, log) = session.close().await;
            let image = disk.image().power_lost(&mut fastrand::Rng::with_seed(operations));
            let disk = SimDisk::holding(image, 0);
            Session::open(disk, log.before(usize::MAX), Before::PowerLost).await.unwrap();
            if !cut {
                break;
            }
        }
    });
}
