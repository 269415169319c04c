//! The token that operators' requests carry where it is wanted: `Authorization: Bearer TOKEN`, with
//! the content of `DATA_DIR/admin.token`, which only the daemon's user can read.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use http::{HeaderMap, header};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use subtle::ConstantTimeEq;

use crate::private::{self, MODE};

/// 256 random bits, written as hex digits.
const BYTES: usize = 32;

const FILE: &str = "admin.token";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {}: {cause}", path.display())]
    Io { doing: &'static str, path: PathBuf, cause: io::Error },
    #[error(
        "{} does not hold 64 hex digits; remove it, and the daemon makes a new one when it starts",
        path.display()
    )]
    Malformed { path: PathBuf },
    #[error("the system has no randomness for {}", path.display())]
    NoRandomness { path: PathBuf },
}

/// See the module. Holds the header's whole value, ready to be compared; it is zeroed when dropped.
#[derive(Debug)]
pub struct Token(SecretString);

impl Token {
    /// The token of a data directory, made now if there is none. It is the daemon's to call, which
    /// holds the directory alone.
    pub fn open(data_dir: &Path) -> Result<Token, Error> {
        let path = Token::file(data_dir);
        if !path.exists() {
            create(data_dir, &path)?;
        }
        keep_private(&path)?;
        Token::read(&path)
    }

    /// Where the token of a data directory is.
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join(FILE)
    }

    /// The token in a file.
    pub fn read(path: &Path) -> Result<Token, Error> {
        let text = Zeroizing::new(fs::read_to_string(path).map_err(io_error("read", path))?);
        let token = text.trim_end();
        if token.len() != 2 * BYTES || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::Malformed { path: path.to_owned() });
        }
        Ok(Token(format!("Bearer {token}").into()))
    }

    /// Whether a request carries the token; compared in constant time.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        bool::from(value.as_bytes().ct_eq(self.authorization().as_bytes()))
    }

    /// The value of the `Authorization` header that carries it.
    pub fn authorization(&self) -> &str {
        self.0.expose_secret()
    }
}

fn create(data_dir: &Path, path: &Path) -> Result<(), Error> {
    let mut bytes = [0; BYTES];
    let random = SystemRandom::new().fill(&mut bytes);
    random.map_err(|_| Error::NoRandomness { path: path.to_owned() })?;
    let text = Zeroizing::new(format!("{}\n", const_hex::encode(bytes)));
    private::write(data_dir, FILE, text.as_bytes()).map_err(io_error("write", path))
}

/// Takes away what others were allowed since.
fn keep_private(path: &Path) -> Result<(), Error> {
    let mode = fs::metadata(path).map_err(io_error("look at", path))?.mode() & 0o777;
    if mode & !MODE != 0 {
        tracing::warn!(file = %path.display(), mode = %format!("{mode:o}"),
            "others could read the token of the admin listener; now they cannot: if they did, \
             remove the file and restart");
        let private = fs::set_permissions(path, Permissions::from_mode(MODE));
        private.map_err(io_error("change the mode of", path))?;
    }
    Ok(())
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::Io { doing, path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carries(token: &Token, values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        token.is_in(&headers)
    }

    #[test]
    fn a_token_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = Token::file(dir.path());
        let first = Token::open(dir.path()).unwrap();
        let first = first.authorization();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&file), MODE);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Token::open(dir.path()).unwrap().authorization(), first);
        assert_eq!(mode(&file), MODE);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Token::open(other.path()).unwrap().authorization(), first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn only_the_whole_token_in_the_one_header_counts() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::open(dir.path()).unwrap();
        let right = token.authorization();
        let (_, digits) = right.split_once(' ').unwrap();
        assert!(carries(&token, &[right]));
        for values in [
            &[][..],
            &[""],
            &["Bearer "],
            &[digits],
            &[&right[..right.len() - 1]],
            &[&format!("{right}0")],
            &[&format!("Basic {digits}")],
            &[right, right],
        ] {
            assert!(!carries(&token, values), "{values:?}");
        }
        assert!(!format!("{token:?}").contains(digits), "it is not printed");
    }

    #[test]
    fn a_file_that_holds_no_token_is_refused_with_the_way_out() {
        for text in ["", "\n", "short", &"g".repeat(64), &format!("0x{:062}", 1), &"a".repeat(66)] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(Token::file(dir.path()), text).unwrap();
            let error = Token::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains("admin.token") && error.contains("remove it"), "{error}");
        }
    }
}
