//! Certificates, keys and credentials: a setting holds their text, or the path of the file that does.
//!
//! A file is read for each connection, so that what was renewed counts from the next one on.

use std::{fmt, io, path::PathBuf};

use secrecy::SecretString;

use crate::{secret::same, small_file};

/// Text, or where it is. Prints as the setting stands in the file, and text not at all.
#[derive(Clone)]
pub enum Material {
    Text(SecretString),
    /// `shown` is the path as it was written, with its references: what one of them stands for may
    /// have been meant as the text.
    File {
        path: PathBuf,
        shown: String,
    },
}

/// Why material cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {shown}: {cause}")]
pub struct Error {
    shown: String,
    cause: io::Error,
}

impl Material {
    /// The text. Blocks while a file is read.
    pub fn read(&self) -> Result<SecretString, Error> {
        let (path, shown) = match self {
            Material::Text(text) => return Ok(text.clone()),
            Material::File { path, shown } => (path, shown),
        };
        let text = small_file::read_text(path);
        let mut text = text.map_err(|cause| Error { shown: shown.clone(), cause })?;
        Ok(std::mem::take(&mut *text).into())
    }
}

/// The same text or the same path; what the file holds does not count, since it is read again for
/// each connection.
impl PartialEq for Material {
    fn eq(&self, other: &Material) -> bool {
        match (self, other) {
            (Material::Text(one), Material::Text(other)) => same(one, other),
            (Material::File { path: one, .. }, Material::File { path: other, .. }) => one == other,
            _ => false,
        }
    }
}

impl fmt::Display for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Material::Text(_) => "the given text",
            Material::File { shown, .. } => shown,
        })
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Material({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_text_nor_what_a_reference_stands_for_is_printed() {
        let text = Material::Text("hunter2".into());
        let file = Material::File { path: "/run/hunter2".into(), shown: "${KEY}".to_owned() };
        let error = file.read().unwrap_err();
        let printed = format!("{text} {text:?} {file} {file:?} {error} {error:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(error.to_string().starts_with("cannot read ${KEY}: No such file"), "{error}");
    }
}
