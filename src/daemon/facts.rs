//! What is in force and what became of an attempt to change it, in names and words for operators.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    admin::config::{Attempt, Changes, Facts, InForce, Outcome},
    clock::{now_ms, rfc3339},
    routing::{
        Table,
        reload::{
            Error, Instead, Loaded, Start,
            outline::{Outline, changed},
        },
    },
};

/// What is in force as the daemon starts, for whoever looks.
pub fn first_facts(file: PathBuf, start: &Start) -> Facts {
    let Start { loaded, instead, .. } = start;
    let mut in_force = in_force(loaded);
    let mut last_attempt = Attempt::now(Outcome::Applied, Some(loaded.hash.to_string()));
    last_attempt.since = Some(in_force.since.clone());
    last_attempt.warnings = logged_warnings(&loaded.table);
    if let Some(Instead { error, since, .. }) = instead {
        in_force.since = humantime::format_rfc3339_millis(*since).to_string();
        in_force.last_good = true;
        last_attempt = Attempt::now(Outcome::Rejected, None);
        last_attempt.problems = problems(error);
    }
    let (restart_needed, settings_problem) = Default::default();
    Facts { file, in_force, last_attempt, restart_needed, settings_problem }
}

/// What is in force from now on.
pub fn in_force(loaded: &Loaded) -> InForce {
    let table = &loaded.table;
    InForce {
        hash: loaded.hash.to_string(),
        since: rfc3339(now_ms()),
        last_good: false,
        sources: table.sources().map(|(_, source)| source.name.to_string()).collect(),
        brokers: table.brokers().iter().map(|broker| broker.name.to_string()).collect(),
        routes: table.route_names().map(ToString::to_string).collect(),
        commands: table.commands().iter().map(|command| command.name.to_string()).collect(),
    }
}

/// What is doubtful about a table.
pub fn warnings(table: &Table) -> Vec<String> {
    table.warnings().iter().map(ToString::to_string).collect()
}

/// The same of one that comes into force.
pub fn logged_warnings(table: &Table) -> Vec<String> {
    let warnings = warnings(table);
    for warning in &warnings {
        tracing::warn!(%warning, "the routing table may not do as meant");
    }
    warnings
}

/// Each with its place, if it has one.
pub fn problems(error: &Error) -> Vec<String> {
    match error {
        Error::Invalid(invalid) => invalid.problems().iter().map(ToString::to_string).collect(),
        other => vec![other.to_string()],
    }
}

/// What a table changes: `brokers` are those that are added, reconnected and removed.
pub fn changes(
    (old, old_outline): (&InForce, &Outline),
    (new, outline): (&InForce, &Outline),
    brokers: [Vec<String>; 3],
) -> Changes {
    let [brokers_added, reconnected, brokers_removed] = brokers;
    // Its connection may stay where its patience changes, and may change where the text stays.
    let mut brokers_changed = changed(&old_outline.brokers, &outline.brokers);
    brokers_changed.extend(reconnected);
    let names = |names: BTreeSet<String>| names.into_iter().collect();
    let routes_but = |routes: &[String], others: &[String]| {
        routes.iter().filter(|route| !others.contains(route)).cloned().collect()
    };
    Changes {
        brokers_added,
        brokers_changed: names(brokers_changed),
        brokers_removed,
        sources_added: new.sources.difference(&old.sources).cloned().collect(),
        sources_changed: names(changed(&old_outline.sources, &outline.sources)),
        sources_removed: old.sources.difference(&new.sources).cloned().collect(),
        routes_added: routes_but(&new.routes, &old.routes),
        routes_changed: names(changed(&old_outline.routes, &outline.routes)),
        routes_removed: routes_but(&old.routes, &new.routes),
        commands_added: new.commands.difference(&old.commands).cloned().collect(),
        commands_changed: names(changed(&old_outline.commands, &outline.commands)),
        commands_removed: old.commands.difference(&new.commands).cloned().collect(),
    }
}

/// `brokers added: a, b; routes removed: c`.
pub fn words(changes: &Changes) -> String {
    let parts = changes.each().into_iter().filter(|(_, names)| !names.is_empty());
    let parts: Vec<String> =
        parts.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
    match parts.is_empty() {
        true => "nothing but how it is written, or in which order".to_owned(),
        false => parts.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_names_what_it_changes() {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let in_force = |commands: &[&str]| InForce {
            sources: names(&["sonzai"]),
            commands: names(commands),
            ..InForce::default()
        };
        let outline = |key: &str, topic: &str| {
            let source = format!("{{ type: sonzai, api: {{ key: {key} }} }}");
            let kept = format!("{{ source: sonzai, from: {{ broker: stream, topic: {topic} }} }}");
            let text = format!("sources: {{ sonzai: {source} }}\ncommands: {{ kept: {kept} }}\n");
            Outline::of(&text, &Default::default())
        };
        let (old, new) = (in_force(&["kept", "old"]), in_force(&["kept", "new"]));
        let (first, second) = (outline("a", "one"), outline("b", "two"));
        let changes = changes((&old, &first), (&new, &second), Default::default());
        assert_eq!(
            words(&changes),
            "sources changed: sonzai; commands added: new; commands changed: kept; \
             commands removed: old"
        );
    }
}
