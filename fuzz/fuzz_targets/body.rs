//! What is read out of a body in one pass is what is in it: the same fields as in a whole document
//! built by serde_json, wherever that can build one.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use waypost::body::{NoText, Paths};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    paths: Vec<Vec<Key>>,
    body: &'a [u8],
}

/// Names that the dictionary knows, too.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Key {
    A,
    B,
    Type,
    Data,
    NotAscii,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Key::A => "a",
            Key::B => "b",
            Key::Type => "type",
            Key::Data => "data",
            Key::NotAscii => "日",
        }
    }
}

fuzz_target!(|input: Input| {
    let wanted: Vec<Vec<&str>> =
        input.paths.iter().map(|path| path.iter().map(|key| key.name()).collect()).collect();
    let mut paths = Paths::default();
    let slots: Vec<usize> = wanted.iter().map(|path| paths.add(path)).collect();
    let fields = paths.read(input.body);
    // serde_json's document has limits of its own: depth, the size of numbers, lone surrogates.
    let Ok(document) = serde_json::from_slice::<Value>(input.body) else { return };
    let fields = fields.expect("a body that is JSON");
    for (path, slot) in wanted.iter().zip(slots) {
        let value = path.iter().try_fold(&document, |value, key| value.as_object()?.get(*key));
        // The whole body is nobody's field.
        if path.is_empty() {
            continue;
        }
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
