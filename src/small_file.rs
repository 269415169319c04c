//! Files of configuration, certificates and secrets: read whole, within a bound, and only where a file
//! is one. A pipe would have its reader wait for ever, and a device may have no end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;
use secrecy::zeroize::Zeroizing;

/// Largest file that is read, in bytes: a bundle of every public CA is a fourth of it, and a routing
/// table written by people far smaller.
pub const MAX_BYTES: u64 = 1 << 20;

/// Reads a file of at most [`MAX_BYTES`]; what was read is zeroed when dropped. Blocks.
pub fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    // All of it has room at once: what grows leaves copies behind. It may have grown since it was asked.
    let room = metadata.len().min(MAX_BYTES) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room as usize));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(invalid(&format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The same of a file that is text.
pub fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes);
    text.map(|text| Zeroizing::new(text.to_owned())).map_err(|error| invalid(&error.to_string()))
}

/// Waits for no writer of a pipe.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        for len in [0, 1, MAX_BYTES as usize] {
            fs::write(&file, vec![b'x'; len]).unwrap();
            assert_eq!(read(&file).unwrap().len(), len);
        }
        fs::write(&file, vec![b'x'; MAX_BYTES as usize + 1]).unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert_eq!(error, "it is larger than 1048576 bytes");
        fs::write(&file, [0xff]).unwrap();
        assert!(read_text(&file).unwrap_err().to_string().contains("utf-8"));
    }

    #[test]
    fn what_is_no_regular_file_is_an_error_and_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [&*pipe, Path::new("/dev/zero"), dir.path()] {
            let error = read(path).unwrap_err().to_string();
            assert_eq!(error, "it is not a regular file", "{}", path.display());
        }
    }
}
