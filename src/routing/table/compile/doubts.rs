//! What compiles and probably does not do what was meant.

use std::collections::{BTreeSet, HashMap};

use crate::{
    nearest::listed,
    routing::{
        condition::Condition,
        diagnostic::{Code, Diagnostic},
        file::{
            File, Place,
            mirror::{Match, OneOrMany, Route, Source},
        },
        pattern::Pattern,
        table,
    },
    source::miibo,
};

mod sonzai;

/// With how many routes of the same `match:` and `when:` one is compared.
const MAX_COMPARED: usize = 100;

/// Everything doubtful about a file without errors, `text`; `routes` is what its routes compiled to.
pub fn of<'f>(
    text: &'f str,
    file: &'f File,
    routes: &'f [table::Route],
    place: Place<'f>,
) -> Vec<Diagnostic> {
    let rules: Vec<Rule> =
        file.routes.iter().zip(routes).map(|(route, compiled)| Rule { route, compiled }).collect();
    let (mut taken, mut wanted) = (BTreeSet::new(), BTreeSet::new());
    for rule in &rules {
        for (name, source) in rule.sources_of(file) {
            if rule.may_take(source) {
                wanted.insert(name);
            }
            if !rule.is_otherwise() && rule.takes_all(source) {
                taken.insert(name);
            }
        }
    }
    let polls_taken = sonzai::polls_taken(file, &rules);
    let doubts = Doubts { text, file, place, rules, taken, wanted, polls_taken };
    let mut found = doubts.routes();
    found.extend(doubts.sources());
    found.extend(doubts.unrouted_types());
    found.extend(doubts.brokers());
    found
}

struct Doubts<'f> {
    text: &'f str,
    file: &'f File,
    place: Place<'f>,
    /// One a route.
    rules: Vec<Rule<'f>>,
    /// The sources of which the routes without `otherwise:` take everything.
    taken: BTreeSet<&'f str>,
    /// Those of which some route may take something.
    wanted: BTreeSet<&'f str>,
    /// Those whose polled notifications are all taken by routes without `otherwise:`.
    polls_taken: BTreeSet<&'f str>,
}

/// A route, and what it takes.
struct Rule<'f> {
    route: &'f Route,
    /// What it compiled to.
    compiled: &'f table::Route,
}

impl<'f> Rule<'f> {
    fn is_otherwise(&self) -> bool {
        self.route.r#match.otherwise == Some(true)
    }

    /// The sources that it takes, by their names. Names in full are looked up: a file may have
    /// thousands of routes and of sources.
    fn sources_of(&self, file: &'f File) -> Vec<(&'f str, &'f Source)> {
        let named = |(name, source): (&'f String, &'f Source)| (&**name, source);
        let patterns = &self.compiled.matcher.sources;
        let exact: Option<BTreeSet<&str>> = patterns.all.iter().map(Pattern::exact).collect();
        match exact.filter(|names| !names.is_empty()) {
            Some(names) => names
                .iter()
                .filter_map(|name| file.sources.get_key_value(*name))
                .map(named)
                .collect(),
            None => {
                let takes = |(name, _): &(&String, &Source)| patterns.take(name);
                file.sources.iter().filter(takes).map(named).collect()
            }
        }
    }

    /// Whether it may take an event of this source and type.
    fn takes(&self, source: &str, kind: &str) -> bool {
        let matcher = &self.compiled.matcher;
        matcher.sources.take(source) && matcher.types.take(kind)
    }

    /// Whether some event of a source that it takes may match.
    fn may_take(&self, source: &Source) -> bool {
        let possible = types(source);
        possible.is_empty() || possible.iter().any(|kind| self.compiled.matcher.types.take(kind))
    }

    /// Whether every event of a source that it takes matches.
    fn takes_all(&self, source: &Source) -> bool {
        let possible = types(source);
        let given = self.route.r#match.r#type.as_ref().map(OneOrMany::as_slice);
        let all_types = given.is_none_or(|types| types.iter().any(|kind| kind == "**"))
            || (!possible.is_empty()
                && possible.iter().all(|kind| self.compiled.matcher.types.take(kind)));
        self.route.when.is_none() && all_types
    }
}

impl<'f> Doubts<'f> {
    fn routes(&self) -> Vec<Diagnostic> {
        let places = (0..).map(|index| self.place.key("routes").item(index));
        let mut found = Vec::new();
        let mut before: HashMap<Terms, Vec<&Route>> = HashMap::new();
        for (rule, place) in self.rules.iter().zip(places) {
            if let Some((at, why, help)) = self.never(rule) {
                let within = if at == "when" { place } else { place.key("match") };
                let span = within.key(at).span();
                let message = format!("this route can never match: {why}");
                found.push(Diagnostic::warning(Code::NeverMatches, span, message).help(help));
            }
            found.extend(self.absent_fields(rule, place));
            let alike = before.entry(Terms::of(rule.route)).or_default();
            let same =
                |other: &&&Route| rule.route.to.iter().all(|target| other.to.contains(target));
            if let Some(other) = alike.iter().take(MAX_COMPARED).find(same) {
                let span = place.key("name").span();
                let message = format!("this route does what `{}` does already", other.name);
                let help = "messages that are the same are sent once: remove one of the two";
                found.push(Diagnostic::warning(Code::DuplicateRoute, span, message).help(help));
            }
            alike.push(rule.route);
        }
        found
    }

    /// Why no event can ever match: the key that says so, the reason, and what to do.
    fn never(&self, rule: &Rule) -> Option<(&'static str, String, String)> {
        if rule.compiled.condition.as_ref().is_some_and(Condition::is_never) {
            let help = "remove the route, or the condition".to_owned();
            return Some(("when", "its condition is never true".to_owned(), help));
        }
        let sources = rule.sources_of(self.file);
        if sources.is_empty() {
            let help = "a pattern is compared with the names of sources".to_owned();
            return Some(("source", "its `source:` takes none of the sources".to_owned(), help));
        }
        if !sources.iter().any(|(_, source)| rule.may_take(source)) {
            let names: Vec<&str> = sources.iter().map(|(name, _)| *name).collect();
            let why = format!("no event of {} has such a type", listed(&names));
            return Some(("type", why, format!("its types are {}", miibo::TYPE_NAMES.join(", "))));
        }
        if rule.is_otherwise() && sources.iter().all(|(name, _)| self.taken.contains(name)) {
            let why = "the routes without `otherwise:` take everything of its sources".to_owned();
            let help = "remove it, or narrow the route that takes everything".to_owned();
            return Some(("otherwise", why, help));
        }
        None
    }

    fn sources(&self) -> Vec<Diagnostic> {
        let place = self.place.key("sources");
        let unrouted = place.entries().filter(|(name, _)| {
            self.file.sources.contains_key(*name) && !self.wanted.contains(name)
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
        let commands = self.file.commands.iter().flat_map(|commands| commands.values());
        let used: BTreeSet<&str> = targets
            .map(|target| &*target.broker)
            .chain(commands.map(|command| &*command.from.broker))
            .collect();
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

/// Which events a route takes, in whatever order it says so.
#[derive(PartialEq, Eq, Hash)]
struct Terms<'f> {
    sources: Option<BTreeSet<&'f str>>,
    types: Option<BTreeSet<&'f str>>,
    otherwise: bool,
    when: Option<&'f str>,
}

impl<'f> Terms<'f> {
    fn of(route: &'f Route) -> Terms<'f> {
        let Match { source, r#type, otherwise } = &route.r#match;
        Terms {
            sources: names(source),
            types: names(r#type),
            otherwise: otherwise.unwrap_or(false),
            when: route.when.as_deref(),
        }
    }
}

fn names(given: &Option<OneOrMany>) -> Option<BTreeSet<&str>> {
    given.as_ref().map(|given| given.as_slice().iter().map(|name| &**name).collect())
}
