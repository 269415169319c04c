//! What commands are given to read: a file, or standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::Error;

/// Reads a file, or standard input for `-`; with a bound, no more than that.
pub fn read(path: &Path, max_bytes: Option<u64>) -> Result<Vec<u8>, Error> {
    let cannot = |cause| Error(format!("cannot read {}: {cause}", path.display()));
    let input: Box<dyn Read> = match is_stdin(path) {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(cannot)?),
    };
    let mut bytes = Vec::new();
    let most = max_bytes.map_or(u64::MAX, |max_bytes| max_bytes + 1);
    input.take(most).read_to_end(&mut bytes).map_err(cannot)?;
    match max_bytes {
        Some(max_bytes) if bytes.len() as u64 > max_bytes => {
            Err(Error(format!("{} is larger than {max_bytes} bytes", path.display())))
        }
        _ => Ok(bytes),
    }
}

/// Whether a file's name stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}
