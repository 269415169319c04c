//! The mirror of `routes.yaml`: its shape, with the place of every value that can be wrong.
//!
//! The only module that knows the YAML library.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::diagnostic::Diagnostic;

/// Largest file that is read, in bytes: far above any routing table written by people.
const MAX_FILE_BYTES: usize = 1 << 20;

/// A value and where it stands.
pub type At<T> = Spanned<T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub sources: BTreeMap<String, At<Source>>,
    pub brokers: BTreeMap<String, At<Broker>>,
    pub routes: Vec<At<Route>>,
}

/// All that any type of source takes; which ones belong to which type is checked when compiling,
/// where the message can name both.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub r#type: At<String>,
    pub path: At<String>,
    pub secret: Option<At<OneOrMany>>,
    pub secrets: Option<At<BTreeMap<String, At<OneOrMany>>>>,
    pub authorization: Option<At<String>>,
    pub dedupe: Option<At<String>>,
    pub unrouted: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    pub r#type: At<String>,
    pub bootstrap: Option<At<String>>,
    pub url: Option<At<String>>,
    pub tls: Option<At<Tls>>,
    pub tls_first: Option<At<bool>>,
    pub sasl: Option<At<Sasl>>,
    pub user: Option<At<String>>,
    pub password: Option<At<String>>,
    pub token: Option<At<String>>,
    pub nkey: Option<At<String>>,
    pub creds: Option<At<String>>,
    pub dir: Option<At<String>>,
    pub rotate_bytes: Option<At<u64>>,
    pub keep: Option<At<usize>>,
}

/// `tls: true`, or what it is to use.
#[derive(Debug)]
pub enum Tls {
    On(bool),
    With(Box<TlsMaterial>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsMaterial {
    pub ca: Option<At<String>>,
    pub cert: Option<At<String>>,
    pub key: Option<At<String>>,
}

/// By hand, because an untagged enum would not say which of its settings is misspelt.
impl<'de> Deserialize<'de> for Tls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Tls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, or `ca:`, `cert:` and `key:`")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Tls, E> {
                Ok(Tls::On(on))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tls, A::Error> {
                let material = TlsMaterial::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Tls::With(Box::new(material)))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    pub mechanism: At<String>,
    pub user: At<String>,
    pub password: At<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub name: At<String>,
    pub r#match: At<Match>,
    pub when: Option<At<String>>,
    pub to: At<Vec<At<Target>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    pub source: Option<OneOrMany>,
    pub r#type: Option<OneOrMany>,
    #[serde(default)]
    pub otherwise: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub broker: At<String>,
    pub topic: Option<At<String>>,
    pub key: Option<At<String>>,
    pub exchange: Option<At<String>>,
    pub routing_key: Option<At<String>>,
    pub subject: Option<At<String>>,
    pub format: Option<At<String>>,
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn as_slice(&self) -> &[String] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

/// A setting that the file gives, by name and place.
pub type Given = Vec<(&'static str, Location)>;

impl Source {
    /// The settings given beside those that every type takes.
    pub fn given(&self) -> Given {
        given([
            ("secret", place(&self.secret)),
            ("secrets", place(&self.secrets)),
            ("authorization", place(&self.authorization)),
        ])
    }
}

impl Broker {
    /// The settings given beside the type.
    pub fn given(&self) -> Given {
        given([
            ("bootstrap", place(&self.bootstrap)),
            ("url", place(&self.url)),
            ("tls", place(&self.tls)),
            ("tls_first", place(&self.tls_first)),
            ("sasl", place(&self.sasl)),
            ("user", place(&self.user)),
            ("password", place(&self.password)),
            ("token", place(&self.token)),
            ("nkey", place(&self.nkey)),
            ("creds", place(&self.creds)),
            ("dir", place(&self.dir)),
            ("rotate_bytes", place(&self.rotate_bytes)),
            ("keep", place(&self.keep)),
        ])
    }
}

impl Target {
    /// The parts of the address that are given.
    pub fn given(&self) -> Given {
        given([
            ("topic", place(&self.topic)),
            ("key", place(&self.key)),
            ("exchange", place(&self.exchange)),
            ("routing_key", place(&self.routing_key)),
            ("subject", place(&self.subject)),
        ])
    }
}

fn place<T>(value: &Option<At<T>>) -> Option<Location> {
    value.as_ref().map(|value| value.referenced)
}

fn given<const N: usize>(settings: [(&'static str, Option<Location>); N]) -> Given {
    settings.into_iter().filter_map(|(name, place)| Some((name, place?))).collect()
}

/// Reads the file strictly: unknown and duplicate names are errors.
pub fn parse(text: &str) -> Result<File, Vec<Diagnostic>> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(vec![of_the_file(message)]);
    }
    if text.trim().is_empty() {
        let message = "the file is empty; it needs sources:, brokers: and routes:".to_owned();
        return Err(vec![of_the_file(message)]);
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::Error,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let text = error.to_string();
        // The place stands in front already, and the library's own options help nobody here.
        let ends = [" at line ", ", set DuplicateKeyPolicy"].map(|end| text.find(end));
        let end = ends.into_iter().flatten().min().unwrap_or(text.len());
        let message = text[..end].to_owned();
        vec![at(location, message)]
    })
}

/// A problem of the file as a whole.
fn of_the_file(message: String) -> Diagnostic {
    Diagnostic { line: 1, column: 1, message, secret: false }
}

/// A problem at a place.
pub fn at(location: Location, message: String) -> Diagnostic {
    let (line, column) = (location.line() as usize, location.column() as usize);
    Diagnostic { line, column, message, secret: false }
}
