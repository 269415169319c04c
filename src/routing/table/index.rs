//! Which routes may match an event, found without looking at each.

use rustc_hash::FxHashMap;

use super::Matcher;
use crate::{event::Event, routing::pattern::Pattern};

/// The places of routes in the table, by what they match.
#[derive(Debug, Default)]
pub struct Index {
    /// By each source that is named in full.
    by_source: FxHashMap<String, Types>,
    /// Of routes that take any source, or those of a pattern.
    any_source: Types,
}

/// Places by what a route says of types.
#[derive(Debug, Default)]
struct Types {
    /// By each type that is named in full.
    exact: FxHashMap<String, Vec<usize>>,
    /// By the first part of patterns that name it: `agent` of `agent.*`.
    by_first_part: FxHashMap<String, Vec<usize>>,
    /// Of any type, or of a pattern that begins otherwise.
    others: Vec<usize>,
}

impl Index {
    /// Adds the route at a place.
    pub fn add(&mut self, place: usize, matcher: &Matcher) {
        let exact = matcher.sources.all.iter().map(Pattern::exact).collect::<Option<Vec<_>>>();
        match exact.filter(|sources| !sources.is_empty()) {
            None => self.any_source.add(place, &matcher.types.all),
            Some(sources) => sources.into_iter().for_each(|source| {
                self.by_source.entry(source.to_owned()).or_default().add(place, &matcher.types.all);
            }),
        }
    }

    /// The places of all routes that may match, ascending.
    pub fn candidates(&self, event: &Event) -> Vec<usize> {
        let mut places = Vec::new();
        for types in self.by_source.get(&*event.source).into_iter().chain([&self.any_source]) {
            types.find(&event.kind, &mut places);
        }
        places.sort_unstable();
        places.dedup();
        places
    }
}

impl Types {
    fn add(&mut self, place: usize, types: &[Pattern]) {
        if types.is_empty() {
            self.others.push(place);
        }
        for pattern in types {
            let places = match (pattern.exact(), pattern.first_part()) {
                (Some(kind), _) => self.exact.entry(kind.to_owned()).or_default(),
                (None, Some(part)) => self.by_first_part.entry(part.to_owned()).or_default(),
                (None, None) => &mut self.others,
            };
            places.push(place);
        }
    }

    fn find(&self, kind: &str, places: &mut Vec<usize>) {
        places.extend(self.exact.get(kind).into_iter().flatten());
        let first_part = kind.split('.').next().unwrap_or_default();
        places.extend(self.by_first_part.get(first_part).into_iter().flatten());
        places.extend(&self.others);
    }
}
