//! What is read out of a body in one pass is what is in it: the same fields as in a whole document
//! built by serde_json, wherever that can build one.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use waypost::body::{NoText, Paths};
use waypost_fuzz::{Json, Name};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    paths: Vec<(Name, Vec<Name>)>,
    body: Json<'a>,
}

fuzz_target!(|input: Input| {
    let path = |(first, more): &(Name, Vec<Name>)| -> Vec<&str> {
        [first].into_iter().chain(more).map(|name| name.get()).collect()
    };
    let wanted: Vec<Vec<&str>> = input.paths.iter().map(path).collect();
    let mut paths = Paths::default();
    let slots: Vec<usize> = wanted.iter().map(|path| paths.add(path)).collect();
    let body = input.body.to_bytes();
    let fields = paths.read(&body);
    // serde_json's document has limits of its own: depth, the size of numbers, lone surrogates.
    let Ok(document) = serde_json::from_slice::<Value>(&body) else { return };
    let fields = fields.expect("a body that is JSON");
    for (path, slot) in wanted.iter().zip(slots) {
        let value = path.iter().try_fold(&document, |value, key| value.as_object()?.get(*key));
        let text = fields.text(slot);
        match value {
            None | Some(Value::Null) => assert_eq!(text, Err(NoText::Missing)),
            Some(Value::Object(_) | Value::Array(_)) => assert_eq!(text, Err(NoText::NotScalar)),
            Some(Value::String(expected)) => {
                assert_eq!(text.as_deref(), Ok(&**expected));
                assert_eq!(fields.string(slot).as_deref(), Some(&**expected));
            }
            Some(expected) => {
                let text = text.expect("a scalar");
                assert_eq!(serde_json::from_str::<Value>(&text).expect("a scalar"), *expected);
                assert_eq!(fields.string(slot), None);
            }
        }
    }
});
