//! The secrets that the daemon keeps for a source with `register:`, for commands that sign and verify as
//! it does. They are read from the data directory, where that may be read.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use secrecy::SecretString;

use super::tell;
use crate::{
    routing::{Place, Table},
    sonzai::store,
    source::{Provider, sonzai::Keyring},
};

/// The texts of those secrets, each with where it is from, by source.
pub type Texts = BTreeMap<String, Vec<(Place, SecretString)>>;

/// Gives the table's sources the keys that the daemon has. What cannot be read is told.
pub fn give(table: &mut Table, data_dir: &Path) -> Texts {
    let registers = |provider: &Provider| match provider {
        Provider::Sonzai(sonzai) => sonzai.settings.register.is_some(),
        _ => false,
    };
    let sources = table.sources().filter(|(_, source)| registers(&source.provider));
    let names: Vec<String> = sources.map(|(_, source)| source.name.to_string()).collect();
    let mut keyrings: BTreeMap<String, Arc<Keyring>> = BTreeMap::new();
    let mut texts = Texts::new();
    for name in names {
        match store::read(&store::file(data_dir, &name)) {
            Ok(content) => {
                let keyring = Keyring::default();
                keyring.set(content.held());
                keyrings.insert(name.clone(), Arc::new(keyring));
                let place = |event_type: &str| Place::stored(event_type);
                let each = content.secrets().map(|(of, secret)| (place(of), secret.clone()));
                texts.insert(name, each.collect());
            }
            Err(error) => tell(&format!(
                "waypost: {error}; so the secrets that Sonzai gave for source `{name}` are left out here"
            )),
        }
    }
    table.give_keyrings(|name| keyrings.get(&**name).cloned().unwrap_or_default());
    texts
}
