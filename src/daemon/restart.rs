//! Process settings that were changed while the daemon runs: they need a restart, and that is said.
//! The environment of a process is fixed when it starts, so only `waypost.toml` can change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use crate::{
    admin::config::Config,
    settings::{self, Settings},
};

/// Reads the settings again, as they were read at the start; the error is in words for people.
/// Blocks.
pub type ReadAgain = Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// See the module.
pub struct Restart {
    file: PathBuf,
    in_use: Value,
    read_again: ReadAgain,
    /// What was told last.
    told: Result<Vec<String>, String>,
}

impl Restart {
    /// Settings that are in use, as they were read.
    pub fn new(in_use: &Settings, read_again: ReadAgain) -> Restart {
        let file = PathBuf::from(settings::FILE);
        Restart { file, in_use: as_json(in_use), read_again, told: Ok(Vec::new()) }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What reads the settings for [`compare`](Self::compare).
    pub fn read_again(&self) -> ReadAgain {
        self.read_again.clone()
    }

    /// Says once what has changed in settings that were read again.
    pub fn compare(&mut self, now: Result<Settings, String>, config: &Config) {
        let differs = now.map(|settings| differing(&self.in_use, &as_json(&settings)));
        if differs == self.told {
            return;
        }
        config.set_settings(differs.clone());
        match &differs {
            Ok(names) if names.is_empty() => {
                tracing::info!("the settings are those in use again");
            }
            Ok(names) => tracing::warn!(
                settings = names.join(", "), file = %self.file.display(),
                "settings have changed that need a restart"
            ),
            Err(error) => {
                tracing::error!(error, "settings have changed that the daemon could not start with")
            }
        }
        self.told = differs;
    }
}

fn as_json(settings: &Settings) -> Value {
    // Settings are text, numbers and maps of them by name.
    serde_json::to_value(settings).unwrap_or_default()
}

/// The dotted names of the settings that differ.
fn differing(one: &Value, other: &Value) -> Vec<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let parts = one.iter().flat_map(|(name, value)| {
                let nested = differing(value, other.get(name).unwrap_or(&Value::Null));
                nested.into_iter().map(move |rest| match rest.as_str() {
                    "" => name.clone(),
                    rest => format!("{name}.{rest}"),
                })
            });
            parts.collect()
        }
        (one, other) if one == other => Vec::new(),
        _ => vec![String::new()],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_differs_is_named_as_it_is_set() {
        let in_use = Settings::default();
        let mut now = in_use.clone();
        assert_eq!(differing(&as_json(&in_use), &as_json(&now)), Vec::<String>::new());
        now.listen.set_port(1);
        now.dispatch.retry_for = Duration::from_secs(1);
        now.log.level = Some("debug".to_owned());
        let mut names = differing(&as_json(&in_use), &as_json(&now));
        names.sort();
        assert_eq!(names, ["dispatch.retry_for", "listen", "log.level"]);
    }
}
