use super::*;
use crate::journal::storage::RealDisk;

const META: Meta = Meta { version: VERSION, base: 9, marker: 0x1234_5678_9abc_def0, proven: 11 };

const TRAILER: Trailer =
    Trailer { base: 9, marker: META.marker, end: 10, newest_ms: 1000, unsure: 3 };

/// A segment of one record; closed ones have a trailer.
fn written(meta: Meta, is_closed: bool) -> (tempfile::TempDir, Arc<dyn File>) {
    let dir = tempfile::tempdir().unwrap();
    let mut frame = Header::of_note(9, 9, b"");
    frame.is_note = false;
    let file = create(&RealDisk, dir.path(), meta, |file| {
        let (bytes, trailer) = (frame.encode(meta.marker), TRAILER.encode());
        let trailer = if is_closed { &trailer[..] } else { &[] };
        storage::write_all(file, DATA_START, &mut [IoSlice::new(&bytes), IoSlice::new(trailer)])
    });
    (dir, file.unwrap())
}

fn overwrite(file: &dyn File, offset: u64, bytes: &[u8]) {
    storage::write_all(file, offset, &mut [IoSlice::new(bytes)]).unwrap();
}

fn found(file: &dyn File) -> Found {
    read(file, Path::new("x"), 9, None).unwrap()
}

#[test]
fn a_segments_name_is_its_base_and_nothing_else_is() {
    for base in [0, 17, MAX_BASE] {
        assert_eq!(base_of(&file_name(base), SUFFIX), Some(base));
        assert_eq!(range_of(&file_name_of(base, MAX_BASE)), Some((base, MAX_BASE)));
    }
    let beyond = file_name(MAX_BASE + 1);
    for name in
        [&*beyond, "17.seg", "00000000000000000017.seg.tmp", "lock", "+0000000000000000017.seg"]
    {
        assert_eq!((base_of(name, SUFFIX), range_of(name)), (None, None), "{name}");
    }
    assert_eq!(range_of(&file_name_of(2, 1)), None);
}

#[test]
fn a_damaged_header_is_rescued_by_the_first_frame() {
    for at in 0..META_BYTES as u64 {
        let (_dir, file) = written(META, false);
        assert_eq!(found(&*file), Found { head: Head::Intact(META), trailer: None });
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        overwrite(&*file, at, &[byte[0] ^ 0x10]);
        assert_eq!(found(&*file).head, Head::Damaged(Some(META.marker)), "{at}");
    }
}

#[test]
fn a_damaged_head_is_rescued_by_the_trailer() {
    let (_dir, file) = written(META, true);
    overwrite(&*file, 0, &[0; DATA_START as usize]);
    let head = Head::Damaged(Some(META.marker));
    assert_eq!(found(&*file), Found { head, trailer: Some(TRAILER) });
}

#[test]
fn a_trailer_with_another_marker_is_a_senders() {
    let (_dir, file) = written(META, false);
    let forged = Trailer { marker: 1, end: 1 << 40, ..TRAILER };
    overwrite(&*file, file.size().unwrap(), &forged.encode());
    assert_eq!(found(&*file), Found { head: Head::Intact(META), trailer: None });
    overwrite(&*file, 0, &[0; DATA_START as usize]);
    let head = Head::Damaged(Some(META.marker));
    assert_eq!(found(&*file), Found { head, trailer: None });
}

#[test]
fn a_damaged_trailer_is_none() {
    for at in 0..TRAILER_BYTES {
        let (_dir, file) = written(META, true);
        let at = file.size().unwrap() - TRAILER_BYTES + at;
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        overwrite(&*file, at, &[byte[0] ^ 0x10]);
        assert_eq!(found(&*file), Found { head: Head::Intact(META), trailer: None });
    }
}

#[test]
fn without_any_place_that_holds_the_marker_nothing_can_be_read() {
    let (_dir, file) = written(META, false);
    overwrite(&*file, 0, b"x");
    overwrite(&*file, DATA_START, b"xxxx");
    assert_eq!(found(&*file).head, Head::Damaged(None));
}

#[test]
fn an_unknown_version_is_refused_by_its_number() {
    let (_dir, file) = written(META, true);
    overwrite(&*file, 0, &encode(Meta { version: 3, ..META }));
    let error = read(&*file, Path::new("x"), 9, None).unwrap_err();
    assert!(matches!(error, Error::UnknownVersion { version: 3, .. }), "{error}");
}
