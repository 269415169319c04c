//! `routes:`, each with its patterns and its targets.

use std::collections::HashMap;

use super::{Compiler, Skipped};
use crate::routing::{
    condition::Condition,
    diagnostic::Code,
    file::{
        File, Place,
        mirror::{self, Match, OneOrMany},
    },
    table::{Matcher, Patterns, Route},
};

impl Compiler<'_> {
    pub(super) fn routes(&mut self, file: &File, place: Place) -> Vec<Route> {
        let mut lines: HashMap<&str, usize> = HashMap::new();
        let mut compiled = Vec::new();
        for (index, given) in file.routes.iter().enumerate() {
            let place = place.item(index);
            let at = place.key("name").span();
            let name = &*given.name;
            if name.trim().is_empty() {
                self.report(Code::InvalidName, at, "a route needs a name");
            } else if let Some(line) = lines.get(name) {
                let message = format!("another route is named `{name}`");
                let help = format!("it is on line {line}: dead letters tell routes by their names");
                self.advise(Code::DuplicateName, at, message, help);
            } else {
                lines.insert(name, at.line);
            }
            compiled.extend(self.route(given, file, place));
        }
        compiled
    }

    // Looks at every part before it gives up on one, so that all problems are reported.
    fn route(
        &mut self,
        given: &mirror::Route,
        file: &File,
        place: Place,
    ) -> Result<Route, Skipped> {
        let matches = self.matches(&given.r#match, place.key("match"));
        let retry_for = self.given_time(&given.retry, place.key("retry"));
        let condition = given.when.as_ref().map(|when| self.condition(when, place.key("when")));
        let targets = self.targets(&given.to, file, place.key("to"));
        matches?;
        Ok(Route {
            name: given.name.as_str().into(),
            matcher: Matcher {
                sources: patterns(&given.r#match.source),
                types: patterns(&given.r#match.r#type),
                otherwise: given.r#match.otherwise.unwrap_or(false),
            },
            condition: condition.transpose()?,
            retry_for: retry_for?,
            targets: targets?,
            stats: Default::default(),
        })
    }

    fn condition(&mut self, text: &str, place: Place) -> Result<Condition, Skipped> {
        Condition::compile(text, &mut self.paths).map_err(|errors| {
            for error in errors {
                let span = self.within(place, text, error.range.clone());
                self.report(Code::InvalidCondition, span, error);
            }
            Skipped
        })
    }

    fn matches(&mut self, given: &Match, place: Place) -> Result<(), Skipped> {
        let says_nothing =
            given.source.is_none() && given.r#type.is_none() && given.otherwise != Some(true);
        if says_nothing && !place.is_cut() {
            let message = "`match:` needs `source:`, `type:` or `otherwise: true`";
            let help = "`type: \"**\"` takes everything";
            return Err(self.advise(Code::InvalidMatch, place.span(), message, help));
        }
        for (name, given) in [("source", &given.source), ("type", &given.r#type)] {
            let place = place.key(name);
            for (index, text) in given.iter().flat_map(OneOrMany::as_slice).enumerate() {
                if text.is_empty() {
                    let message = format!("an empty `{name}:` matches nothing");
                    self.report(Code::InvalidMatch, place.item(index).span(), message);
                }
            }
            if given.as_ref().is_some_and(|given| given.as_slice().is_empty()) && !place.is_cut() {
                let message = format!("the list `{name}:` is empty: nothing matches");
                let help = "leave it out to take any";
                self.advise(Code::InvalidMatch, place.span(), message, help);
            }
        }
        self.known_sources(given, place.key("source"))
    }

    fn known_sources(&mut self, given: &Match, place: Place) -> Result<(), Skipped> {
        let known = self.names("sources");
        let mut outcome = Ok(());
        for (index, name) in given.source.iter().flat_map(OneOrMany::as_slice).enumerate() {
            if !name.is_empty() && !name.contains('*') && !known.contains(&&**name) {
                let span = place.item(index).span();
                let code = Code::UnknownSource;
                outcome = Err(self.unknown(code, span, "source", name, &known));
            }
        }
        outcome
    }
}

fn patterns(names: &Option<OneOrMany>) -> Patterns {
    Patterns::new(names.as_ref().map(OneOrMany::as_slice).unwrap_or_default())
}
