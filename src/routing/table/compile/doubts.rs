//! What compiles and probably does not do what was meant.

use std::collections::BTreeSet;

use super::routes::patterns;
use crate::{
    routing::{
        diagnostic::{Code, Diagnostic},
        file::{
            File, Place,
            mirror::{Match, OneOrMany, Route, Source, Target},
        },
        pattern::Pattern,
    },
    source::miibo,
};

/// Everything doubtful about a file without errors.
pub fn of(file: &File, place: Place) -> Vec<Diagnostic> {
    let rules: Vec<Rule> = file.routes.iter().map(Rule::of).collect();
    let doubts = Doubts { file, place, rules };
    let mut found = doubts.routes();
    found.extend(doubts.sources());
    found.extend(doubts.brokers());
    found
}

struct Doubts<'f> {
    file: &'f File,
    place: Place<'f>,
    /// One a route.
    rules: Vec<Rule<'f>>,
}

/// A route, and what it takes.
struct Rule<'f> {
    route: &'f Route,
    sources: Vec<Pattern>,
    types: Vec<Pattern>,
}

impl Rule<'_> {
    fn of(route: &Route) -> Rule<'_> {
        let Match { source, r#type, .. } = &route.r#match;
        Rule { route, sources: patterns(source), types: patterns(r#type) }
    }

    fn is_otherwise(&self) -> bool {
        self.route.r#match.otherwise == Some(true)
    }

    fn takes_source(&self, name: &str) -> bool {
        any(&self.sources, name)
    }

    /// Whether some event of the source may match.
    fn may_take(&self, name: &str, source: &Source) -> bool {
        let possible = types(source);
        self.takes_source(name)
            && (possible.is_empty() || possible.iter().any(|kind| any(&self.types, kind)))
    }

    /// Whether every event of the source matches.
    fn takes_all(&self, name: &str, source: &Source) -> bool {
        let possible = types(source);
        let given = self.route.r#match.r#type.as_ref().map(OneOrMany::as_slice);
        let all_types = given.is_none_or(|types| types.iter().any(|kind| kind == "**"))
            || (!possible.is_empty() && possible.iter().all(|kind| any(&self.types, kind)));
        self.route.when.is_none() && self.takes_source(name) && all_types
    }
}

impl Doubts<'_> {
    fn routes(&self) -> Vec<Diagnostic> {
        let places = (0..).map(|index| self.place.key("routes").item(index));
        let mut found = Vec::new();
        for (index, (rule, place)) in self.rules.iter().zip(places).enumerate() {
            if let Some((at, why, help)) = self.never(rule) {
                let within = if at == "when" { place } else { place.key("match") };
                let span = within.key(at).span();
                let message = format!("this route can never match: {why}");
                found.push(Diagnostic::warning(Code::NeverMatches, span, message).help(help));
            }
            let same = |other: &&Rule| does_the_same(other.route, rule.route);
            if let Some(other) = self.rules[..index].iter().find(same) {
                let span = place.key("name").span();
                let message = format!("this route does what `{}` does already", other.route.name);
                let help = "messages that are the same are sent once: remove one of the two";
                found.push(Diagnostic::warning(Code::DuplicateRoute, span, message).help(help));
            }
        }
        found
    }

    /// Why no event can ever match: the key that says so, the reason, and what to do.
    fn never(&self, rule: &Rule) -> Option<(&'static str, String, String)> {
        if rule.route.when.as_ref().is_some_and(|when| when.trim() == "false") {
            let help = "remove the route, or the condition".to_owned();
            return Some(("when", "its condition is never true".to_owned(), help));
        }
        let sources = || self.file.sources.iter().filter(|(name, _)| rule.takes_source(name));
        if sources().next().is_none() {
            let help = "a pattern is compared with the names of sources".to_owned();
            return Some(("source", "its `source:` takes none of the sources".to_owned(), help));
        }
        if !sources().any(|(name, source)| rule.may_take(name, source)) {
            let names: Vec<&str> = sources().map(|(name, _)| &**name).collect();
            let why = format!("no event of {} has such a type", names.join(" or "));
            return Some(("type", why, format!("its types are {}", miibo::TYPE_NAMES.join(", "))));
        }
        let taken = |(name, source): (&String, &Source)| {
            let mut others = self.rules.iter().filter(|other| !other.is_otherwise());
            others.any(|other| other.takes_all(name, source))
        };
        if rule.is_otherwise() && sources().all(taken) {
            let why = "the routes without `otherwise:` take everything of its sources".to_owned();
            let help = "remove it, or narrow the route that takes everything".to_owned();
            return Some(("otherwise", why, help));
        }
        None
    }

    fn sources(&self) -> Vec<Diagnostic> {
        let place = self.place.key("sources");
        let unrouted = place.entries().filter(|(name, _)| {
            let source = self.file.sources.get(*name);
            source.is_some_and(|source| !self.rules.iter().any(|rule| rule.may_take(name, source)))
        });
        let doubt = |(name, place): (&str, Place)| {
            let message = format!("no route takes an event of source `{name}`");
            let help = "add a route for it, or one with `match: { otherwise: true }`";
            Diagnostic::warning(Code::UnroutedSource, place.at_key(), message).help(help)
        };
        unrouted.map(doubt).collect()
    }

    fn brokers(&self) -> Vec<Diagnostic> {
        let targets = self.file.routes.iter().flat_map(|route| &route.to);
        let used: BTreeSet<&str> = targets.map(|target| &*target.broker).collect();
        let place = self.place.key("brokers");
        let unused = place.entries().filter(|(name, _)| !used.contains(name));
        let doubt = |(name, place): (&str, Place)| {
            let message = format!("no route publishes to broker `{name}`");
            let help = "add a target that names it, or remove it";
            Diagnostic::warning(Code::UnusedBroker, place.at_key(), message).help(help)
        };
        unused.map(doubt).collect()
    }
}

/// The types that a source's events can have; none where the sender may say anything.
fn types(source: &Source) -> &'static [&'static str] {
    match source {
        Source::Miibo(_) => &miibo::TYPE_NAMES,
        Source::Sonzai(_) | Source::Standard(_) => &[],
    }
}

/// Whether some pattern takes a name; no pattern takes any.
fn any(patterns: &[Pattern], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
}

/// Whether two routes take the same events, and one's targets are all the other's, too.
fn does_the_same(one: &Route, other: &Route) -> bool {
    let names = |given: &Option<OneOrMany>| -> Option<BTreeSet<String>> {
        given.as_ref().map(|given| given.as_slice().iter().cloned().collect())
    };
    let rule = |route: &Route| {
        let Match { source, r#type, otherwise } = &route.r#match;
        (names(source), names(r#type), otherwise.unwrap_or(false), route.when.clone())
    };
    let has = |target: &Target| one.to.iter().any(|theirs| theirs == target);
    rule(one) == rule(other) && other.to.iter().all(has)
}
