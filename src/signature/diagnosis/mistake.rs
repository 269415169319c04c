//! The mistakes that are known, each with its code and its words.

use std::fmt;

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Hex,
    Base64,
    Base64Unpadded,
    Base64Url,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::Hex => "hex",
            Encoding::Base64 => "base64",
            Encoding::Base64Unpadded => "base64 without its padding",
            Encoding::Base64Url => "base64 for URLs",
        })
    }
}

/// What somebody did otherwise than the scheme says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A header is not there; others look like signatures.
    Missing {
        name: &'static str,
        instead: Vec<String>,
    },
    /// A header stands more than once.
    Repeated(&'static str),
    TooLong(&'static str),
    NotText(&'static str),
    /// The header holds no signature.
    NoSignature {
        name: &'static str,
        form: &'static str,
    },
    /// What stands as a signature is none, in no encoding.
    Undecodable {
        name: &'static str,
        right: Encoding,
    },
    /// So many signatures are not tried.
    TooMany(&'static str),
    /// The signature has something in front that does not belong there.
    Labelled(&'static str),
    /// The signature lacks what must stand in front.
    Unlabelled(&'static str),
    Encoded {
        found: Encoding,
        right: Encoding,
    },
    /// The header has another name than it should.
    HeaderName {
        found: &'static str,
        right: &'static str,
    },
    NoTimestamp(&'static str),
    TimestampUnit,
    TimestampForm,
    /// Headers of both Standard Webhooks and Svix, none complete or not the same.
    MixedFamilies,
    /// An id that is too long, is no plain text or may hide a timestamp.
    UnusableId,
    KeyWithPrefix(&'static str),
    KeyWithoutPrefix(&'static str),
    KeyAsText,
    KeyDecoded(Encoding),
    KeyWithNewline,
    KeyTrimmed,
    /// The body was signed alone.
    BodyAlone {
        right: &'static str,
    },
    /// Other text than the right one was signed.
    SignedText {
        found: &'static str,
        right: &'static str,
    },
    NewlineAdded,
    NewlineRemoved,
    LineEndsToCrlf,
    LineEndsToLf,
    MarkRemoved,
    BodyEncoded,
    /// The JSON is the same, written in another way than the one that was signed.
    Reserialised {
        signed: String,
    },
}

impl Mistake {
    /// A short name that stays the same.
    pub fn code(&self) -> &'static str {
        use Mistake::*;
        match self {
            Missing { .. } => "header-missing",
            Repeated(_) => "header-repeated",
            TooLong(_) => "header-too-long",
            NotText(_) => "header-not-text",
            NoSignature { .. } => "no-signature",
            Undecodable { .. } => "signature-undecodable",
            TooMany(_) => "too-many-signatures",
            Labelled(_) => "signature-labelled",
            Unlabelled(_) => "signature-unlabelled",
            Encoded { .. } => "signature-encoding",
            HeaderName { .. } => "header-name",
            NoTimestamp(_) => "timestamp-missing",
            TimestampUnit => "timestamp-unit",
            TimestampForm => "timestamp-form",
            MixedFamilies => "header-families",
            UnusableId => "id-unusable",
            KeyWithPrefix(_) => "key-with-prefix",
            KeyWithoutPrefix(_) => "key-without-prefix",
            KeyAsText => "key-as-text",
            KeyDecoded(_) => "key-decoded",
            KeyWithNewline => "key-with-newline",
            KeyTrimmed => "key-trimmed",
            BodyAlone { .. } | SignedText { .. } => "signed-text",
            NewlineAdded => "body-newline-added",
            NewlineRemoved => "body-newline-removed",
            LineEndsToCrlf | LineEndsToLf => "body-line-ends",
            MarkRemoved => "body-mark-removed",
            BodyEncoded => "body-encoded",
            Reserialised { .. } => "body-reserialised",
        }
    }
}

/// Words for people: what is so, and what to do.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Mistake::*;
        match self {
            Missing { name, instead } if instead.is_empty() => write!(
                f,
                "there is no `{name}` header; is it lost on the way, or not captured?"
            ),
            Missing { name, instead } => write!(
                f,
                "there is no `{name}` header, but {}; is this another provider's request, or is the \
                 source of another `type:`?",
                instead.iter().map(|other| format!("`{other}`")).collect::<Vec<_>>().join(", ")
            ),
            Repeated(name) => write!(f, "the `{name}` header stands more than once; send it once"),
            TooLong(name) => write!(f, "the `{name}` header is longer than 4096 bytes"),
            NotText(name) => write!(f, "the `{name}` header is no text"),
            NoSignature { name, form } => {
                write!(f, "the `{name}` header holds no signature; its form is `{form}`")
            }
            Undecodable { name, right } => write!(
                f,
                "what the `{name}` header holds is no HMAC-SHA256, which is 32 bytes in {right}; does \
                 its sender use another hash, or was it cut off?"
            ),
            TooMany(name) => write!(f, "the `{name}` header holds more signatures than are tried"),
            Labelled(label) => write!(
                f,
                "the signature has `{label}` in front, which does not belong there"
            ),
            Unlabelled(label) => write!(f, "the signature lacks `{label}` in front"),
            Encoded { found, right } => {
                write!(f, "the signature is written in {found}; write it in {right}")
            }
            HeaderName { found, right } => {
                write!(f, "the signature is in the header `{found}`; send it as `{right}`")
            }
            NoTimestamp(place) => write!(f, "there is no timestamp: {place} is missing"),
            TimestampUnit => f.write_str(
                "the timestamp is not in seconds (milliseconds?); send Unix time in seconds",
            ),
            TimestampForm => {
                f.write_str("the timestamp is no number; send Unix time in seconds, digits only")
            }
            MixedFamilies => f.write_str(
                "`webhook-…` and `svix-…` headers are mixed; send the three of one family, or both \
                 families whole and alike",
            ),
            UnusableId => f.write_str(
                "the id is not 1 to 255 plain characters, or has a part between dots that is a number \
                 and could be a timestamp",
            ),
            KeyWithPrefix(prefix) => write!(
                f,
                "the whole text of the secret was the key, `{prefix}` and all; the key is what follows \
                 `{prefix}`"
            ),
            KeyWithoutPrefix(prefix) => write!(
                f,
                "the key was what follows `{prefix}` in the secret; the key is the whole text"
            ),
            KeyAsText => f.write_str(
                "the text behind `whsec_` was the key; the key is the bytes that this text is the \
                 base64 of",
            ),
            KeyDecoded(encoding) => write!(
                f,
                "the secret was decoded from {encoding} to be the key; the key is its text as it stands"
            ),
            KeyWithNewline => f.write_str(
                "the key had a newline at its end; was the secret read from a file and not trimmed?",
            ),
            KeyTrimmed => f.write_str(
                "the key was the secret without the white space around it; the configured secret has \
                 some at its beginning or end: remove it",
            ),
            BodyAlone { right } => {
                write!(f, "the body was signed alone; what is signed is `{right}`")
            }
            SignedText { found, right } => {
                write!(f, "what was signed is `{found}`; it must be `{right}`")
            }
            NewlineAdded => f.write_str(
                "the body has a newline at its end that was not signed; did an editor, `echo` or a \
                 template add it?",
            ),
            NewlineRemoved => f.write_str(
                "the body lacks a newline at its end that was signed; was it trimmed on the way, or by \
                 `curl -d @FILE` (use `--data-binary`)?",
            ),
            LineEndsToCrlf => f.write_str(
                "the body's line ends are CRLF and were LF when it was signed; was it captured or sent \
                 as text?",
            ),
            LineEndsToLf => f.write_str(
                "the body's line ends are LF and were CRLF when it was signed; was it captured or sent \
                 as text (`curl -d @FILE`; use `--data-binary`)?",
            ),
            MarkRemoved => f.write_str("the body lacks a byte order mark that was signed"),
            BodyEncoded => f.write_str(
                "the body is the base64 of what was signed; a gateway encoded it: have it forward the \
                 raw bytes",
            ),
            Reserialised { signed } => write!(
                f,
                "a proxy or framework re-serialised the body: it was signed {signed}; sign and forward \
                 the raw bytes"
            ),
        }
    }
}
