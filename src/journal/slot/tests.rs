use super::*;
use crate::journal::storage::RealDisk;

fn content(cursor: u64) -> Content {
    let mut settled = Settled::below(cursor);
    settled.settle(cursor + 2, cursor + 4);
    settled.settle(cursor + 7, cursor + 8);
    Content { settled, end: cursor + 9 }
}

fn saved(dir: &Path) -> Content {
    match read(&RealDisk, &dir.join("a")).unwrap().unwrap() {
        Saved::Content(content) => content,
        other => panic!("{other:?}"),
    }
}

fn open(dir: &Path, version: u32, content: &Content) -> SlotFile {
    SlotFile::open(&RealDisk, dir, "a", version, content).unwrap()
}

#[test]
fn what_was_saved_last_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    assert!(read(&RealDisk, &dir.path().join("a")).unwrap().is_none());
    let mut slot = open(dir.path(), VERSION, &content(5));
    assert_eq!(saved(dir.path()), content(5));
    for cursor in [6, 9, 100] {
        slot.save(&content(cursor)).unwrap();
        assert_eq!(saved(dir.path()), content(cursor));
    }
    let mut slot = open(dir.path(), VERSION, &content(101));
    assert_eq!(saved(dir.path()), content(101));
    slot.save(&content(102)).unwrap();
    assert_eq!(saved(dir.path()), content(102));
}

#[test]
fn either_version_is_read_and_the_one_asked_for_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let plain = Content { settled: Settled::below(7), end: 7 };
    open(dir.path(), PLAIN, &content(7));
    assert_eq!(saved(dir.path()), plain);
    assert_eq!(std::fs::metadata(dir.path().join("a")).unwrap().len(), 4096 + 32);
    open(dir.path(), VERSION, &content(8)).save(&content(9)).unwrap();
    assert_eq!(saved(dir.path()), content(9));
    open(dir.path(), PLAIN, &content(10)).save(&plain).unwrap();
    assert_eq!(saved(dir.path()), plain);
}

#[test]
fn more_ranges_than_fit_count_as_not_settled() {
    let dir = tempfile::tempdir().unwrap();
    let mut settled = Settled::below(0);
    for at in 0..300 {
        settled.settle(at * 2 + 1, at * 2 + 2);
    }
    let content = Content { settled, end: 700 };
    open(dir.path(), VERSION, &content);
    assert_eq!(saved(dir.path()).settled, content.settled.with_ranges(MAX_RANGES));
}

#[test]
fn damage_of_64_kib_anywhere_leaves_a_slot() {
    let dir = tempfile::tempdir().unwrap();
    let mut slot = open(dir.path(), VERSION, &content(5));
    slot.save(&content(6)).unwrap();
    let path = dir.path().join("a");
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(4096).chain([20, 44, 131_072 + 20]) {
        for len in [1, 4096, 65_536] {
            let mut bytes = whole.clone();
            let end = (at + len).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            std::fs::write(&path, bytes).unwrap();
            let cursor = saved(dir.path()).settled.cursor();
            assert!(cursor == 5 || cursor == 6, "{len} bytes at {at}: {cursor}");
        }
    }
    std::fs::write(&path, vec![0x55; whole.len()]).unwrap();
    assert!(matches!(read(&RealDisk, &path).unwrap(), Some(Saved::Damaged)));
}
