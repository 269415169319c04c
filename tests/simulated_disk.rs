//! What the tests of the journal rely on: a disk that does wrong exactly what it was told to.

use std::{io::IoSlice, path::Path, sync::Arc};

use waypost::journal::{File, Storage};

use crate::common::sim_disk::{SimDisk, Times};

const PATH: &str = "/data/file";

/// A file of twenty bytes that is as durable as its name.
fn written() -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(1);
    let path = Path::new(PATH);
    disk.create_dir_all(Path::new("/data")).unwrap();
    let file = disk.create_new(path).unwrap();
    write(&*file, 0, &[7; 20]);
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    (disk, file)
}

/// Writes all, however short each write is.
fn write(file: &dyn File, mut offset: u64, mut data: &[u8]) {
    while !data.is_empty() {
        let some = file.write_at(offset, &[IoSlice::new(data)]).unwrap();
        (offset, data) = (offset + some as u64, &data[some..]);
    }
}

/// What the platter holds.
fn after_power_loss(disk: &SimDisk) -> Vec<u8> {
    let image = disk.image().power_lost(&mut fastrand::Rng::with_seed(1));
    SimDisk::holding(image, 1).read(Path::new(PATH))
}

/// Reads bytes 8 to 12, or learns that they cannot be.
fn read(file: &dyn File) -> Result<[u8; 4], Option<i32>> {
    let mut bytes = [0; 4];
    file.read_at(8, &mut bytes).map(|_| bytes).map_err(|error| error.raw_os_error())
}

const EIO: Result<[u8; 4], Option<i32>> = Err(Some(5));

#[test]
fn what_is_lost_or_flipped_is_so_for_good() {
    let (disk, _file) = written();
    disk.lose(Path::new(PATH), 2..4);
    disk.flip(Path::new(PATH), 18..99);
    let mut expected = [7; 20];
    expected[2..4].fill(0);
    expected[18..].fill(!7);
    assert_eq!(disk.read(Path::new(PATH)), expected);
    disk.heal();
    assert_eq!(after_power_loss(&disk), expected);
}

#[test]
fn what_is_lost_on_its_way_to_the_platter_is_lost_there() {
    let (disk, file) = written();
    write(&*file, 0, &[8; 20]);
    disk.lose(Path::new(PATH), 2..4);
    let expected = [[8; 2].as_slice(), &[0; 2], &[8; 16]].concat();
    assert_eq!(disk.read(Path::new(PATH)), expected);
    file.sync_data().unwrap();
    assert_eq!(after_power_loss(&disk), expected);
}

#[test]
fn writes_to_a_stuck_range_never_get_there_until_it_is_healed() {
    let (disk, file) = written();
    disk.lose_writes(Path::new(PATH), 18..22);
    write(&*file, 16, &[8; 8]);
    file.sync_data().unwrap();
    let mut expected = [[7; 16].as_slice(), &[8, 8, 7, 7, 0, 0, 8, 8]].concat();
    assert_eq!(after_power_loss(&disk), expected);
    disk.heal();
    write(&*file, 18, &[9; 4]);
    file.sync_data().unwrap();
    expected[18..22].fill(9);
    assert_eq!(after_power_loss(&disk), expected);
}

#[test]
fn reads_of_a_range_are_refused_as_often_as_was_said() {
    let (disk, file) = written();
    let path = Path::new(PATH);
    disk.refuse_reads(path, 0..8, Times::UntilHealed);
    disk.refuse_reads(path, 12..20, Times::UntilHealed);
    assert_eq!(read(&*file), Ok([7; 4]), "its neighbours are");

    disk.refuse_reads(path, 11..12, Times::Once);
    assert_eq!([read(&*file), read(&*file)], [EIO, Ok([7; 4])]);
    disk.refuse_reads(path, 0..9, Times::Reads(2));
    assert_eq!([read(&*file), read(&*file), read(&*file)], [EIO, EIO, Ok([7; 4])]);
    disk.refuse_reads(path, 9..10, Times::UntilHealed);
    assert_eq!([read(&*file), read(&*file), read(&*file)], [EIO; 3]);
    disk.heal();
    assert_eq!(read(&*file), Ok([7; 4]));
}

#[test]
fn what_is_put_off_happens_before_its_operation() {
    let (disk, file) = written();
    disk.after(1, |disk| disk.lose(Path::new(PATH), 0..20));
    file.truncate(18).unwrap();
    assert_eq!(disk.read(Path::new(PATH)), [7; 18]);
    file.truncate(16).unwrap();
    assert_eq!(disk.read(Path::new(PATH)), [0; 16]);
}
