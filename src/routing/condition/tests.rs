use super::*;
use crate::event::{Event, tests::plain};

const BODY: &str = r#"{
    "delta": 0.5, "one": 1, "float": 1.0, "big": 18446744073709551615, "text": "hello", "none": null,
    "flag": true, "odd key": "x", "a": { "b": { "c": 2 } },
    "items": [{ "sku": "x", "n": 1, "tags": ["new"] }, { "sku": "y", "n": 3, "tags": [] }],
    "tags": ["red", "blue"], "main": "y", "at": "2026-01-01T00:00:00Z"
}"#;

fn event(body: &str) -> Event {
    Event {
        subject: Some("agent-7".into()),
        time_ms: 1_767_225_600_000,
        content_type: Some("application/json".into()),
        headers: vec![("x-team".into(), "moods".into()), ("x-team".into(), "other".into())],
        ..plain("e1", body.to_owned())
    }
}

fn judge(text: &str, event: &Event) -> Result<bool, Why> {
    let mut paths = Paths::default();
    let condition =
        Condition::compile(text, &mut paths).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    condition.holds(&Input::new(event, &paths))
}

#[test]
fn conditions_say_what_an_operator_means() {
    let event = event(BODY);
    for (text, expected) in [
        ("data.delta > 0.3", true),
        ("data.one > 0.3", true),
        ("data.one == 1.0", true),
        ("data.float == 1", true),
        ("data.float >= 1 && data.one <= 1.0", true),
        ("1 < data.float", false),
        ("data.big > 5", true),
        ("data.text == 'hello'", true),
        ("data.text != \"hello\"", false),
        ("data.none == null", true),
        ("data.flag", true),
        ("!data.flag", false),
        ("data['odd key'] == 'x'", true),
        ("data.a['b'].c == 2", true),
        ("data.a.b == {'c': 2}", true),
        ("has(data.a.b.c)", true),
        ("has(data.a.x)", false),
        ("has(data.x.y.z)", false),
        ("has(data.none)", true),
        ("has(data.x) && data.x > 3", false),
        ("data.items[1].n == 3", true),
        ("data.items[data.one].n == 3", true),
        ("'red' in data.tags", true),
        ("'text' in data", true),
        ("data.text in ['hello', 'bye']", true),
        ("data.tags == ['red', 'blue']", true),
        ("size(data.tags) == 2", true),
        ("data.items.exists(i, i.sku == 'y' && i.n > 2)", true),
        ("data.items.all(i, i.n > 2)", false),
        ("data.items.exists_one(i, i.n > 2)", true),
        ("data.items.filter(i, i.n > 2).size() == 1", true),
        ("data.items.map(i, i.n).exists(n, n == 3)", true),
        ("data.items.exists(i, i.tags.exists(t, t == 'new'))", true),
        ("data.items.exists(i, i.sku == data.main)", true),
        ("data.items.exists(i, 'new' in i.tags)", true),
        ("data.items.exists(i, i.n > data.delta && i.tags.exists(t, t != i.sku))", true),
        ("data.one == data.float", true),
        ("source == 's' && type == 'k' && id == 'e1'", true),
        ("type.startsWith('k') && type(data.one) == int", true),
        ("subject == 'agent-7'", true),
        ("headers['x-team'] == 'moods'", true),
        ("headers['X-Team'] == 'moods'", true),
        ("!has(headers.none) && 'x-team' in headers", true),
        ("headers['content-type'].startsWith('application/')", true),
        ("time == timestamp('2026-01-01T00:00:00Z')", true),
        ("time.getFullYear() == 2026 && time.getHours() < 8", true),
        ("time - timestamp(data.at) < duration('5m')", true),
        ("data.text.matches('^h.*o$')", true),
        ("matches(data.text, '^x')", false),
        ("double(data.one) * 2.0 > 1.5", true),
        ("data.text.contains('ell') ? data.one == 1 : false", true),
        ("true", true),
    ] {
        assert_eq!(judge(text, &event), Ok(expected), "{text}");
    }
}

#[test]
fn what_gives_no_verdict_says_why() {
    let (object, text) = (event(BODY), event("hello"));
    let deep = format!(r#"{{"list":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let odd = event(r#"{"big":1e999,"half":"\ud800"}"#);
    for (event, condition, expected) in [
        (&object, "data.x > 3", "the event has no `data.x`"),
        (&object, "data.a.x.y == 3", "the event has no `data.a.x.y`"),
        (&object, "data.text > 3", "`>` does not go with string and int"),
        (&object, "data.one + 0.5 > 1.0", "`add` does not go with int and double"),
        (&object, "data.float + data.one > 1.0", "`add` does not go with double and int"),
        (&object, "data.text", "it gives a string"),
        (&object, "data.tags.x", "no"),
        (&object, "data.items[7].n == 1", "the event has no `data.items[7].n`"),
        (&object, "data.items[data.one + 6].n == 1", "Index out of bounds"),
        (&object, "data.one / 0 == 1", "zero"),
        (&object, "data.one.exists(x, x)", "iterable"),
        (&object, "headers.x == 'a'", "the event has no `headers.x`"),
        (&text, "data.x > 3", "the body is not JSON"),
        (&text, "'x' in data", "the body is not JSON"),
        (&odd, "data.big > 3", "`data.big`: number out of range"),
        (&odd, "data.half == 'x'", "`data.half`"),
        (&event(&deep), "size(data.list) > 3", "recursion limit"),
    ] {
        let why = judge(condition, event).unwrap_err().to_string();
        assert!(why.contains(expected), "{condition}: {why}");
    }
}

#[test]
fn one_side_may_decide_what_the_other_cannot_say() {
    let text = event("hello");
    assert_eq!(judge("data.x > 3 || source == 's'", &text), Ok(true));
    assert_eq!(judge("source == 'other' && data.x > 3", &text), Ok(false));
    assert_eq!(judge("subject == null", &Event { subject: None, ..text }), Ok(true));
}

#[test]
fn a_mistake_is_shown_in_its_place() {
    let long = format!("source == '{}'", "x".repeat(MAX_BYTES));
    let deep = format!("{}true{}", "(".repeat(200), ")".repeat(200));
    for (text, place, expected) in [
        ("", "", "empty"),
        (&long, &*long, "longer than 2048 bytes"),
        (&deep, &*deep, "48 deep"),
        ("data.delta > 0.3 and true", "and", "write `&&`"),
        ("data.delta = 0.3", "=", "write `==`"),
        ("data.delta >", "", "ends too early"),
        ("data.delta > > 1", ">", "`>` does not belong here"),
        ("data.delta > 'x", "'", "does not belong here"),
        ("dta.delta > 0.3", "dta", "unknown variable `dta`; did you mean `data`?"),
        ("event.delta > 0.3", "event", "unknown variable `event`; known are source, type"),
        ("sorce == 'x'", "sorce", "did you mean `source`?"),
        ("'日本' == dta.x", "dta", "unknown variable `dta`"),
        ("source == 'x' &&\n  tpye == 'y'", "tpye", "unknown variable `tpye`"),
        ("lower(source) == 'x'", "lower", "unknown function `lower`; known are contains, "),
        ("source.startWith('x')", "startWith", "did you mean `startsWith`?"),
        ("data.list.exist(i, i == 1)", "exist", "did you mean `exists`?"),
        ("source.lower() == 'x'", "lower", "unknown function `lower`"),
        ("data.items.exists(i)", "exists", "is written otherwise"),
        ("'a text'", "'a text'", "gives a text"),
        ("data.n + 1", "data.n + 1", "gives a number"),
        ("source.matches('(')", "'('", "unclosed group"),
        ("source.matches(data.x)", "matches", "must be a fixed text"),
        ("headers.authorization == 'x'", "authorization", "not kept"),
        ("headers.x.y == 'x'", "headers", "a header is a text"),
        ("headers[0] == 'x'", "headers", "a header is a text"),
        ("data.a.exists(x, x in data.b)", "data", "may only be compared"),
        ("data.a.exists(x, data.b == data.c)", "data", "may only be compared"),
        ("data.a.exists(x, x.b.exists(y, x.c == data.d))", "x", "may only be compared"),
        ("data.a.exists(x, data.b.exists(y, y == x))", "", "may only be compared"),
        ("data.a.exists(x, data.s.contains(x))", "", "may only be compared"),
        ("data.a.map(x, data).size() > 3", "", "may only be compared"),
        ("data.a.exists(x, x.b.exists(y, x.c.exists(z, true)))", "", ""),
        ("[1].exists(x, [1].exists(y, [1].exists(z, true)))", "", "2 deep"),
        ("data.a.exists(data, data.b)", "data", "is taken"),
        ("data.?a == 1", "", ""),
        ("optional.of(1) == 1", "", "unknown"),
        ("Foo{a: 1} == 1", "", "no message types"),
    ] {
        let errors = Condition::compile(text, &mut Paths::default()).unwrap_err();
        let error = &errors[0];
        assert!(error.message.contains(expected), "{text}: {error}");
        if !place.is_empty() {
            assert_eq!(&text[error.range.clone()], place, "{text}: {error}");
        }
        assert!(text.get(error.range.clone()).is_some(), "{text}: {error:?}");
    }
}

#[test]
fn every_mistake_of_a_condition_is_told() {
    let text = "sorce == 'x' && lower(tpye) == 'y' && headers.cookie == timestamp('never')";
    let errors = Condition::compile(text, &mut Paths::default()).unwrap_err();
    let places: Vec<&str> = errors.iter().map(|error| &text[error.range.clone()]).collect();
    assert_eq!(places[..4], ["sorce", "lower", "tpye", "cookie"], "{errors:?}");
    assert!(errors[4].message.contains("whatever the event, this fails"), "{errors:?}");
    assert_eq!(errors.len(), 5);
    let many = vec!["x == 1"; 200].join("||");
    let errors = Condition::compile(&many, &mut Paths::default()).unwrap_err();
    assert!(errors.len() <= 10, "{}", errors.len());
}

#[test]
fn what_fails_whatever_the_event_is_told_at_load() {
    for (text, place, expected) in [
        ("time > timestamp('garbage')", "timestamp", "`timestamp`"),
        ("timestamp('2026-01-01T00:00:00Z') < timestamp('x')", "timestamp('x", "`timestamp`"),
        ("timestamp('x') < timestamp('2026-01-01T00:00:00Z')", "timestamp('x", "`timestamp`"),
        ("time - time < duration('x')", "duration", "`duration`"),
        ("time.getHours('Eurpe/Berlin') < 8", "getHours", "unknown time zone Eurpe/Berlin"),
        ("timestamp(data.at).getHours('Eurpe/Berlin') < 8", "getHours", "unknown time zone"),
        ("data.items.exists(i, i.at < timestamp('garbage'))", "timestamp", "`timestamp`"),
        ("1 / 0 == 1", "/", "divides by zero"),
        ("data.x > 1 + 1.5", "+", "`add` does not go with int and double"),
        ("size('x')", "size", "it gives a int"),
        ("'x' < 3", "<", "does not go with string and int"),
        ("[1][3] == 1 || true", "[", "ndex out of bounds"),
        ("{'a': 1}.b == 1", ".", "has no `b`"),
        ("data.x == 'a' ? duration('x') == duration('1s') : true", "duration", "`duration`"),
    ] {
        let errors = Condition::compile(text, &mut Paths::default()).unwrap_err();
        let error = &errors[0];
        assert!(error.message.contains(expected), "{text}: {error}");
        assert!(text[error.range.start..].starts_with(place), "{text}: {error:?}");
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
    }
}

#[test]
fn a_condition_that_is_never_true_is_known_by_what_it_says() {
    for (text, expected) in [
        ("false", true),
        ("1 > 2", true),
        ("data.x > 3 && 1 > 2", true),
        ("(1 > 2 || 'a' == 'b') && data.x", true),
        ("data.x ? false : 1 > 2", true),
        ("duration('1m') > duration('1h')", true),
        ("data.x > 3 || 1 > 2", false),
        ("data.x ? true : false", false),
        ("1 < 2", false),
        ("data.x", false),
        ("[1, 2].all(x, x > 1)", false),
    ] {
        let condition = Condition::compile(text, &mut Paths::default()).unwrap();
        assert_eq!(condition.is_never(), expected, "{text}");
        if expected {
            let event = event(BODY);
            assert_ne!(judge(text, &event), Ok(true), "{text}");
        }
    }
}

#[test]
fn no_text_is_too_much_for_the_stack() {
    for (begin, again, end) in [
        ("1", "+1", " > 0"),
        ("data", ".a", " == 1"),
        ("data", "[0]", " == 1"),
        ("", "!", "true"),
        ("", "-", "1 == 1"),
        ("", "true ? ", "true : false"),
        ("true", " ? true : true", ""),
        ("", "f(", ""),
        ("", "[", ""),
        ("", "{1:", ""),
        ("true", " && true", ""),
        ("1", " < 1", ""),
        ("data", ".all(x, x", ""),
    ] {
        let times = (MAX_BYTES - begin.len() - end.len()) / again.len();
        let text = format!("{begin}{}{end}", again.repeat(times));
        let outcome = Condition::compile(&text, &mut Paths::default());
        if let Ok(condition) = outcome {
            let event = event("{}");
            condition.holds(&Input::new(&event, &Paths::default())).ok();
        }
    }
}

/// Text that is often a condition, over bodies that are often what it asks for.
mod properties {
    use proptest::prelude::*;

    use super::*;

    fn operand() -> impl Strategy<Value = String> {
        let fixed = prop::sample::select(vec![
            "data.a",
            "data.b.c",
            "data",
            "data['a']",
            "headers.x",
            "headers",
            "type",
            "subject",
            "time",
            "1",
            "1.5",
            "18446744073709551615u",
            "-9223372036854775808",
            "'x'",
            "b'x'",
            "null",
            "true",
            "[1, 'x']",
            "{'a': 1}",
            "duration('1s')",
            "timestamp('2026-01-01T00:00:00Z')",
        ]);
        let leaf = fixed.prop_map(str::to_owned);
        leaf.prop_recursive(3, 12, 2, |inner| {
            let operator = prop::sample::select(vec![
                "==", "!=", "<", ">=", "+", "-", "*", "/", "%", "&&", "||", "in",
            ]);
            let function = prop::sample::select(vec![
                "size",
                "string",
                "int",
                "double",
                "uint",
                "type",
                "bool",
                "bytes",
                "!",
                "-",
                "timestamp",
                "duration",
                "has",
            ]);
            let member = prop::sample::select(vec![
                ".contains('x')",
                ".startsWith(type)",
                ".matches('^x*$')",
                ".size()",
                "[0]",
                "['a']",
                ".a",
                ".getHours('Europe/Berlin')",
                ".getDayOfYear()",
                ".exists(i, i == data.a)",
                ".all(i, i > 1)",
                ".map(i, i + i)",
                ".filter(i, i.a)",
            ]);
            prop_oneof![
                (inner.clone(), operator, inner.clone())
                    .prop_map(|(a, o, b)| format!("({a} {o} {b})")),
                (function, inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
                (inner.clone(), member).prop_map(|(a, m)| format!("{a}{m}")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            ]
        })
    }

    fn body() -> impl Strategy<Value = String> {
        let scalar = prop::sample::select(vec![
            "1",
            "-1",
            "0",
            "1.5",
            "1e308",
            "9223372036854775807",
            "18446744073709551615",
            "\"x\"",
            "\"\"",
            "null",
            "true",
            "[]",
            "{}",
            "[1,2]",
            "{\"c\":1}",
            "\"2026-01-01T00:00:00Z\"",
            "\"\\ud800\"",
            "1e999",
        ]);
        prop_oneof![
            (scalar.clone(), scalar).prop_map(|(a, b)| format!(r#"{{"a":{a},"b":{b}}}"#)),
            "\\PC{0,12}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn nothing_breaks_an_evaluation(text in operand(), body in body()) {
            let mut paths = Paths::default();
            if let Ok(condition) = Condition::compile(&text, &mut paths) {
                let verdict = condition.holds(&Input::new(&event(&body), &paths));
                prop_assert_ne!(verdict, Err(Why::Panicked));
            }
        }

        #[test]
        fn any_text_is_a_condition_or_an_error_in_its_place(text in "\\PC{0,24}|[a-z.()'&|!<=\\[\\]{}? ]{0,24}") {
            let errors = Condition::compile(&text, &mut Paths::default()).err();
            prop_assert!(errors.as_ref().is_none_or(|errors| !errors.is_empty()));
            for error in errors.into_iter().flatten() {
                prop_assert!(text.get(error.range.clone()).is_some(), "{error:?}");
                prop_assert!(!error.message.is_empty());
            }
        }
    }
}
