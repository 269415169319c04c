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
/// its own; durable on return. Blocks.
pub fn write(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}.tmp"));
    let mut options = OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(MODE).open(&unfinished)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(name))?;
    File::open(dir)?.sync_all()
}
