//! Checks a tree against the JSON Schema of the file, and reports every problem of its structure.
//!
//! What is broken is cut out, so that what remains can be deserialised and its values checked in the
//! same run: an unknown key with its value, a value of the wrong type with its key, and what cannot do
//! without that key. Only what the derived schema uses is understood here: `$ref`, `type`,
//! `properties`, `required`, `additionalProperties`, `items`, `const`, `enum`, `minimum`, `anyOf` over
//! types, and `oneOf` over constants or over objects told apart by their `type`.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    secrets::Secrets,
    tree::{Key, Kind, Node, Span},
};
use crate::{
    nearest::{listed, nearest},
    routing::diagnostic::{Code, Diagnostic},
};

mod report;

/// The key that tells apart the objects of a `oneOf`.
const TAG: &str = "type";

/// What the check leaves.
pub struct Checked {
    /// What fits the schema; `None` if nothing does.
    pub tree: Option<Node>,
    pub problems: Vec<Diagnostic>,
    pub secrets: Secrets,
}

/// Checks `tree`, which was read from `text`, against `schema`.
pub fn check<'s>(text: &'s str, tree: &Node, schema: &'s Value) -> Checked {
    let (problems, secrets) = (Vec::new(), Secrets::default());
    let mut walker = Walker { text, root: schema, problems, secrets };
    let tree = walker.value(tree, Rule { schema, name: "", anchor: &tree.span });
    Checked { tree, problems: walker.problems, secrets: walker.secrets }
}

/// What a value must fit.
#[derive(Clone, Copy)]
struct Rule<'s, 'n> {
    schema: &'s Value,
    /// The value's key, or that of the list that it stands in; empty for the whole file.
    name: &'n str,
    /// What to point at where the value has no text of its own.
    anchor: &'n Span,
}

struct Walker<'s> {
    text: &'s str,
    root: &'s Value,
    problems: Vec<Diagnostic>,
    secrets: Secrets,
}

impl<'s> Walker<'s> {
    /// What of a value fits.
    fn value(&mut self, node: &Node, rule: Rule<'s, '_>) -> Option<Node> {
        if rule.schema.get("x-secret").is_some() {
            self.secrets.add(node, rule.schema);
        }
        let rule = Rule { schema: self.resolve(rule.schema), ..rule };
        if let Some(branches) = array(rule.schema, "oneOf") {
            return match branches.iter().any(|branch| branch.get("properties").is_some()) {
                true => self.tagged(node, branches, rule),
                false => self.choice(node, constants(branches), rule),
            };
        }
        if let Some(known) = array(rule.schema, "enum") {
            return self.choice(node, known.iter().filter_map(Value::as_str).collect(), rule);
        }
        if let Some(branches) = array(rule.schema, "anyOf") {
            let fits = |branch: &&Value| is(node, self.resolve(branch));
            return match branches.iter().find(fits) {
                Some(schema) => self.value(node, Rule { schema, ..rule }),
                None => self.wrong_type(node, branches, rule),
            };
        }
        match is(node, rule.schema) {
            true => {
                let named = format!("`{}:`", rule.name);
                let title = rule.schema.get("title").and_then(Value::as_str);
                self.parts(node, rule, title.unwrap_or(&named))
            }
            false => self.wrong_type(node, std::slice::from_ref(rule.schema), rule),
        }
    }

    /// What of a value of the right type fits; `what` is what an object is called.
    fn parts(&mut self, node: &Node, rule: Rule<'s, '_>, what: &str) -> Option<Node> {
        let kind = match &node.kind {
            Kind::Map(entries) => match rule.schema.get("properties") {
                Some(_) => Kind::Map(self.object(entries, rule, what)?),
                None => Kind::Map(self.map(entries, &rule.schema["additionalProperties"])),
            },
            Kind::List(items) => {
                let schema = &rule.schema["items"];
                let item = |node: &Node| {
                    self.value(node, Rule { schema, name: rule.name, anchor: node.beginning() })
                };
                Kind::List(items.iter().filter_map(item).collect())
            }
            Kind::Number(number) if number.as_u64().is_none() => {
                let message = format!("`{}:` takes a whole number from 0 on", rule.name);
                let span = node.span.clone();
                self.problems.push(Diagnostic::error(Code::InvalidValue, span, message));
                return None;
            }
            kind => kind.clone(),
        };
        let cut = kind.len() < node.kind.len();
        Some(Node { span: node.span.clone(), defined: node.defined.clone(), kind, cut })
    }

    /// An object with keys of its own; `None` if it lacks one that it needs.
    fn object(
        &mut self,
        entries: &[(Key, Node)],
        rule: Rule<'s, '_>,
        what: &str,
    ) -> Option<Vec<(Key, Node)>> {
        let properties = rule.schema["properties"].as_object()?;
        let first = self.first_of_each(entries);
        let (mut fitting, mut meant) = (Vec::new(), Vec::new());
        let mut doubtful = self.may_hide(rule.schema);
        for ((key, node), first) in entries.iter().zip(first) {
            match properties.get_key_value(&key.name) {
                Some((name, schema)) => {
                    let fits = self.value(node, Rule { schema, name, anchor: &key.span });
                    fitting.extend(fits.filter(|_| first).map(|node| (key.clone(), node)));
                }
                None => {
                    let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                    let near = self.unknown_key(key, what, &known);
                    // It may be a secret, misspelt or misplaced; so may any key in it.
                    self.secrets.hide(node);
                    // It may be the rest of a secret that holds a comma.
                    if near.is_none() && doubtful {
                        self.secrets.hide_bare_key(key, node);
                    }
                    doubtful = true;
                    meant.extend(near);
                }
            }
        }
        for name in required(rule.schema) {
            // What is misspelt is not missing as well.
            if !has(entries, name) && !meant.contains(&name) {
                let message = format!("{what} needs `{name}:`");
                let help = self.description(&properties[name]).map(str::to_owned);
                let problem = Diagnostic::error(Code::MissingKey, rule.anchor.clone(), message);
                self.problems.push(Diagnostic { help, ..problem });
            }
        }
        // The whole file is read as far as it goes.
        let whole = rule.name.is_empty();
        (whole || required(rule.schema).all(|name| has(&fitting, name))).then_some(fitting)
    }

    /// A mapping whose keys are names of the file's own: what is broken is left out with its name.
    fn map(&mut self, entries: &[(Key, Node)], schema: &'s Value) -> Vec<(Key, Node)> {
        let first = self.first_of_each(entries);
        let mut fitting = Vec::new();
        for ((key, node), first) in entries.iter().zip(first) {
            self.hide_misplaced(node, schema);
            let fits = self.value(node, Rule { schema, name: &key.name, anchor: &key.span });
            fitting.extend(fits.filter(|_| first).map(|node| (key.clone(), node)));
        }
        fitting
    }

    /// Whether each entry is the first of its key; the others are reported.
    fn first_of_each(&mut self, entries: &[(Key, Node)]) -> Vec<bool> {
        let mut lines: HashMap<&str, usize> = HashMap::new();
        let mut first = Vec::new();
        for (key, node) in entries {
            // Where the space behind a colon is missing, a key is a value, too.
            if key.name.contains(':') && matches!(node.kind, Kind::Nothing) {
                self.secrets.hide_behind_colon(key);
            }
            let line = lines.get(&*key.name).copied();
            if let Some(line) = line {
                let message = format!("`{}:` stands here twice", key.name);
                let problem = Diagnostic::error(Code::DuplicateKey, key.span.clone(), message);
                self.problems.push(problem.help(format!("it is on line {line} already: keep one")));
            } else {
                lines.insert(&key.name, key.span.line);
            }
            first.push(line.is_none());
        }
        first
    }

    /// One of several objects, told apart by their `type`.
    fn tagged(&mut self, node: &Node, branches: &'s [Value], rule: Rule<'s, '_>) -> Option<Node> {
        let tag_of = |branch: &'s Value| branch["properties"][TAG]["const"].as_str();
        let known: Vec<&str> = branches.iter().filter_map(tag_of).collect();
        if !matches!(node.kind, Kind::Map(_)) {
            self.wrong_type(node, branches, rule);
            let help = format!("a {} has a `{TAG}:`, one of {}", title(rule), listed(&known));
            self.problems.last_mut()?.help = Some(help);
            return None;
        }
        let Some((key, tag)) = node.entry(TAG) else {
            self.hide_possible(node, branches);
            self.no_tag(node, title(rule), &known, rule.anchor);
            return None;
        };
        match branches.iter().find(|branch| tag_of(branch) == tag.text()) {
            Some(schema) => {
                let what = format!("a {} {}", tag_of(schema).unwrap_or_default(), title(rule));
                self.parts(node, Rule { schema, ..rule }, &what)
            }
            None => {
                self.hide_possible(node, branches);
                self.choice(tag, known, Rule { name: TAG, anchor: &key.span, ..rule });
                None
            }
        }
    }

    /// One of several constants.
    fn choice(&mut self, node: &Node, known: Vec<&'s str>, rule: Rule<'s, '_>) -> Option<Node> {
        let help = format!("known are {}", listed(&known));
        let Some(text) = node.text() else {
            self.wrong_type(node, &[], rule);
            self.problems.last_mut()?.help = Some(help);
            return None;
        };
        if known.contains(&text) {
            return Some(node.clone());
        }
        let name = rule.name;
        let message = match nearest(text, known.iter().copied()) {
            Some(near) => format!("unknown `{name}:` `{text}`; did you mean `{near}`?"),
            None => format!("unknown `{name}:` `{text}`"),
        };
        let problem = Diagnostic::error(Code::UnknownValue, node.span.clone(), message);
        self.problems.push(problem.help(help));
        None
    }

    /// The schema that a reference names.
    fn resolve(&self, schema: &'s Value) -> &'s Value {
        let path = schema.get("$ref").and_then(Value::as_str);
        let pointed = path.and_then(|path| self.root.pointer(path.trim_start_matches('#')));
        pointed.unwrap_or(schema)
    }

    /// Whether an object may be one of this schema; any other value may.
    fn is_like(&self, node: &Node, schema: &'s Value) -> bool {
        let schema = self.resolve(schema);
        let has_any = |schema: &Value| {
            let properties = schema.get("properties").and_then(Value::as_object);
            properties.is_some_and(|known| {
                node.entries().iter().any(|(key, _)| known.contains_key(&key.name))
            })
        };
        let branches = ["anyOf", "oneOf"].into_iter().filter_map(|key| array(schema, key));
        !matches!(node.kind, Kind::Map(_))
            || has_any(schema)
            || branches.flatten().any(|branch| has_any(self.resolve(branch)))
            || schema.get("additionalProperties").is_some_and(Value::is_object)
    }

    /// Hides what stands under a name of the file's own, and has nothing of an object that belongs
    /// there: the name may be a misplaced key of a secret.
    fn hide_misplaced(&mut self, node: &Node, schema: &'s Value) {
        let wants_object = self.resolve(schema).get("properties").is_some();
        if wants_object && !(matches!(node.kind, Kind::Map(_)) && self.is_like(node, schema)) {
            self.secrets.hide(node);
        }
    }

    /// Hides what may be secret in an object of which nobody knows what it is.
    fn hide_possible(&mut self, node: &Node, branches: &'s [Value]) {
        let objects = branches.iter().filter_map(|branch| branch["properties"].as_object());
        let known: Vec<&str> = objects.flat_map(|keys| keys.keys().map(String::as_str)).collect();
        for (key, value) in node.entries() {
            let schemas = || branches.iter().filter_map(|b| b["properties"].get(&key.name));
            match schemas().find(|schema| schema.get("x-secret").is_some()) {
                Some(schema) => self.secrets.add(value, schema),
                None if schemas().any(|schema| self.may_hide(schema)) => {
                    self.secrets.hide_values(value);
                }
                None if schemas().next().is_none() && nearest(&key.name, [TAG]).is_none() => {
                    self.secrets.hide(value);
                    // One that is no misspelt key of any of them may be a secret in braces.
                    if nearest(&key.name, known.iter().copied()).is_none() {
                        self.secrets.hide_key(key);
                    }
                }
                None => {}
            }
        }
    }

    /// Whether something in a value of this schema may be secret.
    fn may_hide(&self, schema: &'s Value) -> bool {
        let schema = self.resolve(schema);
        let in_properties = || {
            let properties = schema.get("properties").and_then(Value::as_object);
            properties.is_some_and(|all| all.values().any(|schema| self.may_hide(schema)))
        };
        let in_branches = |key| {
            array(schema, key).is_some_and(|all| all.iter().any(|schema| self.may_hide(schema)))
        };
        schema.get("x-secret").is_some()
            || in_properties()
            || in_branches("oneOf")
            || in_branches("anyOf")
            || schema.get("additionalProperties").is_some_and(|schema| self.may_hide(schema))
    }
}

/// What an object is called.
fn title<'s>(rule: Rule<'s, '_>) -> &'s str {
    rule.schema.get("title").and_then(Value::as_str).unwrap_or("this")
}

fn constants(branches: &[Value]) -> Vec<&str> {
    branches.iter().filter_map(|branch| branch.get("const")?.as_str()).collect()
}

fn has(entries: &[(Key, Node)], name: &str) -> bool {
    entries.iter().any(|(key, _)| key.name == name)
}

fn array<'s>(schema: &'s Value, key: &str) -> Option<&'s [Value]> {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice)
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    array(schema, "required").unwrap_or_default().iter().filter_map(Value::as_str)
}

/// Whether a value is of the type that a schema wants.
fn is(node: &Node, schema: &Value) -> bool {
    schema.get("type").is_none_or(|wanted| *wanted == type_of(node))
}

/// The JSON type of a value. There are no fractions in a routing table, so that a number is checked
/// for being whole where its bounds are.
fn type_of(node: &Node) -> &'static str {
    match node.kind {
        Kind::Nothing => "null",
        Kind::Bool(_) => "boolean",
        Kind::Number(_) => "integer",
        Kind::Text(_) => "string",
        Kind::List(_) => "array",
        Kind::Map(_) => "object",
    }
}
