//! How what is kept of a source's webhooks stands in its file: JSON, so that somebody in trouble can read
//! it. Texts with secrets in them are zeroed.

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::{Deserialize, Serialize};

use super::{Change, Content, Kept, Name, Replaced, ReplacedAuthorization};

/// The format that is written, and the newest that is read.
const VERSION: u32 = 1;

/// Why a file's text is not understood. Holds none of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("line {line}, column {column}: it is not what Waypost writes")]
    Malformed { line: usize, column: usize },
    #[error("its version is {0}; this Waypost reads {VERSION}: run the one that wrote it")]
    Version(u32),
}

impl Content {
    /// Reads what [`write`](Self::write) wrote.
    pub fn read(text: &[u8]) -> Result<Content, Error> {
        let malformed = |error: serde_json::Error| Error::Malformed {
            line: error.line(),
            column: error.column(),
        };
        let Version { version } = serde_json::from_slice(text).map_err(malformed)?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let Read { webhooks, changes, .. } = serde_json::from_slice(text).map_err(malformed)?;
        Ok(Content { webhooks: webhooks.into_iter().map(Kept::from).collect(), changes })
    }

    /// The file's text; zeroed when dropped.
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        let webhooks = self.webhooks.iter().map(Written::from).collect();
        let written = Writing { version: VERSION, webhooks, changes: &self.changes };
        // All of it has room at once: what grows leaves copies behind that nobody zeroes.
        let mut size = Size(0);
        let counted = serde_json::to_writer_pretty(&mut size, &written);
        let mut text = Zeroizing::new(Vec::with_capacity(size.0 + 1));
        let written = counted.and_then(|()| serde_json::to_writer_pretty(&mut *text, &written));
        written.expect("text, numbers and lists of them can be written, and memory takes them all");
        text.push(b'\n');
        text
    }
}

/// Counts bytes.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(rename = "version")]
    _version: u32,
    webhooks: Vec<KeptRead>,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct KeptRead {
    #[serde(flatten)]
    name: Name,
    url: String,
    #[serde(default)]
    authorization_sha256: Option<String>,
    #[serde(default)]
    replaced_authorizations: Vec<ReplacedAuthorization>,
    secret: Option<String>,
    since_ms: u64,
    #[serde(default)]
    replaced: Vec<ReplacedRead>,
}

#[derive(Deserialize)]
struct ReplacedRead {
    secret: String,
    until_ms: u64,
}

impl From<KeptRead> for Kept {
    fn from(read: KeptRead) -> Kept {
        let KeptRead { name, url, authorization_sha256, replaced_authorizations, .. } = read;
        let KeptRead { secret, since_ms, replaced, .. } = read;
        let replaced = replaced
            .into_iter()
            .map(|ReplacedRead { secret, until_ms }| Replaced { secret: secret.into(), until_ms });
        Kept {
            name,
            url,
            authorization: authorization_sha256,
            replaced_authorizations,
            secret: secret.map(SecretString::from),
            since_ms,
            replaced: replaced.collect(),
        }
    }
}

#[derive(Serialize)]
struct Writing<'c> {
    version: u32,
    webhooks: Vec<Written<'c>>,
    changes: &'c [Change],
}

#[derive(Serialize)]
struct Written<'c> {
    #[serde(flatten)]
    name: &'c Name,
    url: &'c str,
    authorization_sha256: Option<&'c str>,
    replaced_authorizations: &'c [ReplacedAuthorization],
    secret: Option<&'c str>,
    since_ms: u64,
    replaced: Vec<ReplacedWritten<'c>>,
}

#[derive(Serialize)]
struct ReplacedWritten<'c> {
    secret: &'c str,
    until_ms: u64,
}

impl<'c> From<&'c Kept> for Written<'c> {
    fn from(kept: &'c Kept) -> Written<'c> {
        let replaced = kept.replaced.iter().map(|replaced| ReplacedWritten {
            secret: replaced.secret.expose_secret(),
            until_ms: replaced.until_ms,
        });
        Written {
            name: &kept.name,
            url: &kept.url,
            authorization_sha256: kept.authorization.as_deref(),
            replaced_authorizations: &kept.replaced_authorizations,
            secret: kept.secret.as_ref().map(ExposeSecret::expose_secret),
            since_ms: kept.since_ms,
            replaced: replaced.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::content, *};

    #[test]
    fn what_is_written_is_read_again() {
        for content in [Content::default(), content()] {
            assert_eq!(Content::read(&content.write()).unwrap(), content);
        }
    }

    #[test]
    fn what_is_not_understood_is_told_without_its_text() {
        let good = content().write().to_vec();
        let half = &good[..good.len() / 2];
        let newer = String::from_utf8(good.clone()).unwrap().replacen("1", "2", 1);
        let extra = String::from_utf8(good.clone()).unwrap().replacen("1,", "1, \"x\": [],", 1);
        for (text, expected) in [
            (half, "it is not what Waypost writes"),
            (b"", "it is not what Waypost writes"),
            (b"[\"whsec_new\"]", "it is not what Waypost writes"),
            (newer.as_bytes(), "its version is 2"),
            (extra.as_bytes(), "it is not what Waypost writes"),
        ] {
            let error = Content::read(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("whsec"), "{error}");
        }
        assert!(!format!("{:?}", content()).contains("whsec"));
    }
}
