//! The JSON Schema of `routes.yaml` (draft 2020-12), derived from the mirror and tightened where YAML
//! would let a slip pass: no key beside those it names, and no key without a value.

use std::{collections::HashSet, sync::LazyLock};

use schemars::{Schema, generate::SchemaSettings, transform::transform_subschemas};
use serde_json::{Map, Value};

use super::mirror::File;

/// The schema, as a JSON document.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let tighten = |schema: &mut Schema| tighten(schema);
        let settings = SchemaSettings::draft2020_12().with_transform(tighten);
        settings.into_generator().into_root_schema_for::<File>().to_value()
    });
    &SCHEMA
}

/// The words of a schema that messages are made of: its keys, and the values that these may have.
pub fn words(schema: &Value) -> HashSet<&str> {
    let mut found = HashSet::new();
    let mut open = vec![schema];
    while let Some(schema) = open.pop() {
        match schema {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                let properties = members.get("properties").and_then(Value::as_object);
                found.extend(properties.into_iter().flatten().map(|(name, _)| &**name));
                let constants = members.get("enum").and_then(Value::as_array);
                let constants = constants.into_iter().flatten().chain(members.get("const"));
                found.extend(constants.filter_map(Value::as_str));
                open.extend(members.values());
            }
            _ => {}
        }
    }
    found
}

fn tighten(schema: &mut Schema) {
    transform_subschemas(&mut tighten, schema);
    let Some(object) = schema.as_object_mut() else { return };
    without_null(object);
    object.remove("format");
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    if object.contains_key("properties") && !object.contains_key("additionalProperties") {
        object.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

/// A key that is there without a value is a slip, most often a forgotten one; what is not wanted is
/// left out with its key.
fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(branches)) = object.get_mut("anyOf") else { return };
    branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
    if let [Value::Object(only)] = branches.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}
