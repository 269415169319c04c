//! Operators read a journal without opening it: all of it, to know what is wrong, and what is left of a
//! file that is no longer in force.

use std::path::Path;

use waypost::journal::{Error, Finding, Options, Salvaged, Verified, salvage, verify};

use crate::common::{
    journal_disk::{DIR, files, key, quarantined, read_place, told},
    journal_scene::{PLACE, Scene, open, options, payload},
    sim_disk::{SimDisk, Times},
};

fn look(disk: &SimDisk) -> (Verified, Vec<Finding>) {
    let mut findings = Vec::new();
    let verified = verify(disk, Path::new(DIR), |finding| findings.push(finding)).unwrap();
    assert_eq!(verified.findings, findings.len() as u64);
    (verified, findings)
}

#[tokio::test]
async fn a_whole_journal_has_no_findings_whether_it_is_open_or_not() {
    let scene = Scene::set().await;
    let disk = scene.disk();
    let whole = Verified { segments: 3, records: scene.records, findings: 0 };
    assert_eq!(look(&disk), (whole, vec![]));
    let journal = open(&disk, options()).journal;
    assert_eq!(look(&disk), (Verified { segments: 4, ..whole }, vec![]));
    let before = disk.operations();
    look(&disk);
    assert_eq!(disk.operations(), before, "it changes nothing");
    journal.close().await;
    assert_eq!(look(&disk).1, []);
}

#[tokio::test]
async fn what_is_wrong_is_found_with_its_place_and_told_from_what_cannot_be_read() {
    let scene = Scene::set().await;
    for segment in &scene.segments {
        let size = scene.disk().read(segment).len() as u64;
        for at in [0, 60_000, size - 20_000] {
            let disk = scene.disk();
            disk.lose(segment, at..at + 8192);
            let harmed = scene.harmed(&disk, segment);
            let (verified, findings) = look(&disk);
            assert_eq!(verified.records, scene.records - harmed.len() as u64);
            assert!(findings.iter().all(|it| it.file == *segment && !it.is_read_error));
            let records: u64 = findings.iter().map(|finding| finding.records).sum();
            assert_eq!(records, harmed.len() as u64, "{findings:?}");
            let touches = |it: &Finding| it.offset < at + 8192 && at < it.offset + it.len;
            assert!(!findings.is_empty() && findings.iter().all(touches), "{findings:?}");

            let disk = scene.disk();
            disk.refuse_reads(segment, at..at + 8192, Times::UntilHealed);
            let findings = look(&disk).1;
            assert!(!findings.is_empty() && findings.iter().all(|it| it.is_read_error));
            disk.heal();
            assert_eq!(look(&disk).1, []);
        }
    }
}

#[tokio::test]
async fn what_stands_beside_the_segments_is_read_too() {
    let scene = Scene::set().await;
    let disk = scene.disk();
    let journal = open(&disk, options()).journal;
    drop(journal.place(PLACE).unwrap());
    journal.release().await.unwrap();
    journal.close().await;
    let dir = Path::new(DIR);
    let beside = [
        dir.join("identity"),
        dir.join("floor"),
        dir.join("cursors/a"),
        files(&disk, ".keys").remove(0),
    ];
    for file in beside {
        let disk = SimDisk::holding(disk.image(), 1);
        disk.flip(&file, 0..1 << 20);
        let findings = look(&disk).1;
        let [finding] = &findings[..] else { panic!("{}: {findings:?}", file.display()) };
        assert_eq!((&finding.file, finding.is_read_error), (&file, false));
    }
}

fn save(disk: &SimDisk, file: &Path) -> (Vec<Salvaged>, u64) {
    let mut records = Vec::new();
    let unreadable = salvage(disk, file, |record| {
        records.push(record);
        Ok(())
    });
    (records, unreadable.unwrap())
}

#[tokio::test]
async fn what_can_be_read_of_a_quarantined_segment_is_salvaged() {
    let scene = Scene::set().await;
    for (at, len) in [(0, 64 << 10), (100_000, 8192)] {
        for segment in &scene.segments {
            let disk = scene.disk();
            disk.lose(segment, at..at + len);
            let harmed = scene.harmed(&disk, segment);
            let journal = open(&disk, options()).journal;
            let place = journal.place(PLACE).unwrap();
            read_place(&place).await;
            place.settle_all();
            place.save().unwrap();
            journal.release().await.unwrap();
            let [file] = &quarantined(&disk, ".seg")[..] else { panic!("one segment") };
            let (records, unreadable) = save(&disk, file);
            let all = scene.lies(segment).into_iter().map(|lies| lies.number);
            let kept: Vec<u64> = all.filter(|number| !harmed.contains(number)).collect();
            let read: Vec<u64> = records.iter().map(|record| record.time_ms).collect();
            assert_eq!(read, kept);
            assert!(unreadable > 0);
            for record in records {
                let number = record.time_ms;
                assert_eq!(record.payload, payload(number));
                assert_eq!((record.keys, record.was_lost), (vec![key(number)], Some(false)));
            }
        }
    }
}

#[tokio::test]
async fn what_was_skipped_and_can_be_read_after_all_is_salvaged_as_lost() {
    let scene = Scene::set().await;
    let (disk, segment) = (scene.disk(), &scene.segments[0]);
    let none = Options { read_patience: std::time::Duration::ZERO, ..options() };
    let journal = open(&disk, none).journal;
    disk.refuse_reads(segment, 100_000..100_001, Times::UntilHealed);
    let place = journal.place(PLACE).unwrap();
    tokio::time::pause();
    read_place(&place).await;
    assert!(journal.skip_unread() > 0);
    read_place(&place).await;
    let lost = told(&journal).await;
    place.settle_all();
    place.save().unwrap();
    journal.release().await.unwrap();
    disk.heal();
    let (records, unreadable) = save(&disk, &quarantined(&disk, ".seg")[0]);
    assert_eq!(unreadable, 0);
    let was_lost = records.iter().filter(|record| record.was_lost == Some(true));
    let numbers: Vec<u64> = was_lost.map(|record| record.time_ms).collect();
    let lost = lost.iter().flat_map(|lost| lost.from.ordinal()..lost.to.ordinal());
    assert_eq!(numbers, lost.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_copy_of_a_segment_is_read_by_what_it_says_of_itself() {
    let scene = Scene::set().await;
    let disk = scene.disk();
    let copy = Path::new("/elsewhere/copy");
    waypost::journal::Storage::rename(&disk, &scene.segments[0], copy).unwrap();
    let (records, unreadable) = save(&disk, copy);
    assert_eq!((records.len(), unreadable), (scene.lies(&scene.segments[0]).len(), 0));
    assert!(records.iter().all(|record| record.was_lost.is_none()));
    disk.flip(copy, 0..1 << 20);
    let error = salvage(&disk, copy, |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::NotASegment { .. }), "{error}");
}
