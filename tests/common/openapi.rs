//! Sonzai's OpenAPI document, which is not ours to ship: it lies beside the project where it is
//! developed. Requests and answers are held against it.

use std::{env, fs, path::Path};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

/// From the project's directory.
const PATH: &str = "../shared/protocols/sonzai-openapi.json";

/// Where its paths begin.
const BASE: &str = "/api/v1";

/// See the module.
pub struct Document(Value);

/// What is done with a path of the document.
struct Operation<'d> {
    /// The template of the path.
    path: &'d str,
    value: &'d Value,
}

impl Document {
    /// The document, or a word that the test is skipped for want of it.
    ///
    /// # Panics
    ///
    /// In continuous integration without the document.
    pub fn load() -> Option<Document> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PATH);
        match fs::read(&path) {
            Ok(text) => Some(Document(serde_json::from_slice(&text).expect("JSON"))),
            Err(error) => {
                let words = format!("no OpenAPI document at {}: {error}", path.display());
                assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{words}");
                println!("skipped: {words}");
                None
            }
        }
    }

    /// The document with its paths as they are called, and without examples that its own schemas
    /// refuse: for a mock server.
    pub fn for_mock(&self) -> Value {
        let mut document = self.0.clone();
        let paths = document["paths"].as_object_mut().expect("paths");
        *paths = std::mem::take(paths)
            .into_iter()
            .map(|(path, operations)| (format!("{BASE}{path}"), operations))
            .collect();
        document["servers"] = json!([{ "url": "/" }]);
        let schemas = document["components"]["schemas"].as_object_mut().expect("schemas");
        for schema in schemas.values_mut() {
            if let Some(member) = schema["properties"].get_mut("$schema") {
                member["examples"] = json!(["http://localhost/schema.json"]);
            }
        }
        document
    }

    /// Whether the document allows a request: path, method, query, body. Stricter than Sonzai's own
    /// server: a member of the query that the document does not name is refused, and a body where it
    /// names none.
    pub fn check_request(&self, method: &str, target: &str, body: &str) -> Result<(), String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let operation = self.operation(method, path)?;
        let parameters = operation.value["parameters"].as_array().cloned().unwrap_or_default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let known = parameters.iter().find(|p| p["in"] == "query" && p["name"] == name);
            let known = known.ok_or(format!("{} has no query parameter {name}", operation.path))?;
            let value = percent_decode_str(value).decode_utf8().map_err(|e| e.to_string())?;
            let value = match (known["schema"]["type"].as_str(), value.parse::<i64>()) {
                (Some("integer"), Ok(number)) => json!(number),
                _ => json!(value),
            };
            self.check(&known["schema"], &value).map_err(|error| format!("{name}: {error}"))?;
        }
        let content = &operation.value["requestBody"];
        match (content.is_null(), body.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(format!("{method} {} takes no body", operation.path)),
            (false, true) if content["required"] == true => Err("its body is missing".into()),
            (false, true) => Ok(()),
            (false, false) => {
                self.check_text(&content["content"]["application/json"]["schema"], body)
            }
        }
    }

    /// Whether an answer to a request that the document knows has the shape that the document says.
    pub fn check_answer(
        &self,
        method: &str,
        target: &str,
        status: u16,
        body: &str,
    ) -> Result<(), String> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let responses = match self.operation(method, path) {
            Ok(operation) => operation.value["responses"].clone(),
            // Every error has the one shape.
            Err(_) if matches!(status, 404 | 405) => {
                self.0["paths"]["/agents"]["get"]["responses"].clone()
            }
            Err(error) => return Err(error),
        };
        let exact = &responses[status.to_string()];
        let response = match (exact.is_null(), status) {
            (false, _) => exact,
            (true, 400..) => &responses["default"],
            (true, _) => return Err(format!("{method} {target} has no answer {status}")),
        };
        let content = response["content"].as_object().cloned().unwrap_or_default();
        match content.values().next() {
            None if body.is_empty() => Ok(()),
            None => Err(format!("{status} has no body")),
            Some(content) => self.check_text(&content["schema"], body),
        }
    }

    /// The operation of a path; one without placeholders is preferred.
    fn operation(&self, method: &str, path: &str) -> Result<Operation<'_>, String> {
        let path = path.strip_prefix(BASE).ok_or(format!("{path} does not begin with {BASE}"))?;
        let paths = self.0["paths"].as_object().expect("paths");
        let mut found: Vec<(&String, &Value)> =
            paths.iter().filter(|(template, _)| matches(template, path)).collect();
        found.sort_by_key(|(template, _)| template.matches('{').count());
        let (template, operations) = found.first().ok_or(format!("there is no path {path}"))?;
        let value = &operations[method.to_ascii_lowercase()];
        match value.is_null() {
            true => Err(format!("{template} has no {method}")),
            false => Ok(Operation { path: template, value }),
        }
    }

    fn check_text(&self, schema: &Value, text: &str) -> Result<(), String> {
        let value = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
        self.check(schema, &value)
    }

    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        // References are from the document's root.
        let mut root: Map<String, Value> = schema.as_object().cloned().unwrap_or_default();
        root.insert("components".into(), self.0["components"].clone());
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options.build(&Value::Object(root)).map_err(|error| error.to_string())?;
        let wrong: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}\nin {value}", wrong.join("\n"))) }
    }
}

/// Whether a path is one of a template such as `/agents/{agentId}`.
fn matches(template: &str, path: &str) -> bool {
    let (templates, parts) = (template.split('/'), path.split('/'));
    templates.clone().count() == parts.clone().count()
        && templates.zip(parts).all(|(template, part)| {
            let is_placeholder = template.starts_with('{');
            if is_placeholder { !part.is_empty() } else { template == part }
        })
}
