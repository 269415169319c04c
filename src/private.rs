//! Files that only the daemon's user can read, written whole or not at all.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Who may read and write such a file: its owner.
pub const MODE: u32 = 0o600;

/// Writes the file `name` of a directory under a temporary name first, so that half of it never has
/// its own; durable on return. What fails leaves nothing behind. Blocks.
pub fn write(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}.tmp"));
    let written =
        write_new(&unfinished, content).and_then(|()| fs::rename(&unfinished, dir.join(name)));
    if written.is_err() {
        // The next attempt writes over what cannot be removed.
        let _removed = fs::remove_file(&unfinished);
    }
    written?;
    File::open(dir)?.sync_all()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_whole_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        // A file cannot take the place of a directory.
        fs::create_dir(dir.path().join("name")).unwrap();
        write(dir.path(), "name", b"content").unwrap_err();
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["name"]);
    }
}
