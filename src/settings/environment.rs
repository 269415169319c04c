//! `WAYPOST_…` in the environment: settings, and names that only look like one.

use figment::providers::Env;

use super::{
    PREFIX,
    error::{Error, names, variable},
};
use crate::nearest::nearest;

/// Between a section and a setting of it.
const SEPARATOR: &str = "__";

/// `WAYPOST_SECTION__SETTING` variables. The others belong to flags, or to nobody.
pub(super) fn settings() -> Env {
    Env::prefixed(PREFIX).filter(|name| name.as_str().contains(SEPARATOR)).split(SEPARATOR)
}

/// Refuses names that set nothing and were meant to: a setting whose section is set off by one
/// underscore, or that is misspelt.
pub(super) fn check(variables: impl Iterator<Item = String>) -> Result<(), Error> {
    let known: Vec<String> = names().iter().map(|name| variable(name)).collect();
    let unknown = variables.filter_map(|variable| {
        let name = variable.strip_prefix(PREFIX)?;
        let meant = meant(name, &known)?;
        Some(format!("{variable} sets nothing; did you mean {PREFIX}{meant}?"))
    });
    Error::of(unknown.collect()).map_or(Ok(()), Err)
}

/// The setting that a name without a section was meant to be, if any.
fn meant<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    // What has a section is refused where it is read, by its name.
    if name.contains(SEPARATOR) || known.iter().any(|known| known == name) || is_kubernetes(name) {
        return None;
    }
    let one_underscore = known.iter().find(|known| known.replace(SEPARATOR, "_") == name);
    one_underscore.map(String::as_str).or_else(|| nearest(name, known.iter().map(String::as_str)))
}

/// Whether Kubernetes sets such a name where a service is named `waypost`, or `waypost-…`.
fn is_kubernetes(name: &str) -> bool {
    let last = |suffix: &str| name == suffix || name.ends_with(&format!("_{suffix}"));
    let port = name == "PORT" || name.starts_with("PORT_") || name.contains("_PORT_");
    port || last("PORT") || last("SERVICE_HOST") || name.contains("SERVICE_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_was_meant_to_set_something_is_refused() {
        for (name, expected) in [
            ("WAYPOST_JOURNAL_MAX_BYTES", Some("WAYPOST_JOURNAL__MAX_BYTES")),
            ("WAYPOST_INGRESS_TLS_CERT", Some("WAYPOST_INGRESS__TLS__CERT")),
            ("WAYPOST_LISTN", Some("WAYPOST_LISTEN")),
            ("WAYPOST_DATADIR", Some("WAYPOST_DATA_DIR")),
            ("WAYPOST_LISTEN", None),
            ("WAYPOST_LOG__LEVEL", None),
            ("WAYPOST_KILLS", None),
            ("WAYPOST_PORT", None),
            ("WAYPOST_PORT_8080_TCP_ADDR", None),
            ("WAYPOST_SERVICE_HOST", None),
            ("WAYPOST_SERVICE_PORT_HTTP", None),
            ("WAYPOST_ADMIN_PORT_9090_TCP", None),
            ("PATH", None),
        ] {
            let told = check([name.to_owned()].into_iter()).err().map(|error| error.to_string());
            let expected =
                expected.map(|meant| format!("{name} sets nothing; did you mean {meant}?"));
            assert_eq!(told, expected, "{name}");
        }
    }
}
