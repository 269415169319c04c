use proptest::prelude::*;

use super::*;
use crate::event::tests::plain;

fn event(kind: &str, body: &str) -> Event {
    Event {
        source: "sonzai".into(),
        kind: kind.into(),
        extensions: vec![("agentid".into(), "a.1".into())],
        ..plain("e1", body.to_owned())
    }
}

fn render(text: &str, rule: Rule, event: &Event) -> Result<String, String> {
    let mut paths = Paths::default();
    let template = Template::compile(text, rule, &mut paths).unwrap();
    template.render(&Input::new(event, &paths)).map(|s| s.to_string())
}

#[test]
fn an_event_fills_its_placeholders() {
    let event = event("agent.message", r#"{"agent_id":"x","n":1.50,"a":{"b":"c"}}"#);
    for (text, expected) in [
        ("plain", "plain"),
        ("", ""),
        ("{type}/{id}/{source}", "agent.message/e1/sonzai"),
        ("{agentid}", "a.1"),
        ("{data.agent_id}-{data.n}-{data.a.b}", "x-1.50-c"),
        ("{{{id}}}", "{e1}"),
        ("{{id}}", "{id}"),
    ] {
        assert_eq!(render(text, Rule::Key, &event).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_cannot_be_filled_says_why_and_never_becomes_another_address() {
    let object = event("agent.message", r#"{"a":{"b":"c.d"},"s":"$JS","w":"x y","e":""}"#);
    let text = event("agent.message", "hello");
    for (event, template, rule, expected) in [
        (&object, "x.{subject}", Rule::NatsSubject, "the event has none"),
        (&object, "{userid}", Rule::Key, "the event has none"),
        (&object, "{data.z}", Rule::Key, "no such field"),
        (&object, "{data.e}", Rule::Key, "has none"),
        (&object, "{data.a}", Rule::Key, "object or a list"),
        (&object, "x.{data.a.b}", Rule::NatsSubject, "may not contain a dot"),
        (&object, "x.{data.s}", Rule::NatsSubject, "may not begin with `$`"),
        (&object, "x.{data.w}", Rule::NatsSubject, "white space"),
        (&object, "{data.w}", Rule::KafkaTopic, "only letters"),
        (&text, "{data.a}", Rule::Key, "not JSON"),
    ] {
        let reason = render(template, rule, event).unwrap_err();
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn a_types_dots_are_tokens_of_a_subject() {
    let event = event("agent.message", "{}");
    let subject = render("events.{source}.{type}", Rule::NatsSubject, &event);
    assert_eq!(subject.as_deref(), Ok("events.sonzai.agent.message"));
}

#[test]
fn a_default_fills_in_where_an_event_has_nothing() {
    let object = event("agent.message", r#"{"n":null,"e":"","o":{},"name":"Zoë & Co.","k":"x.y"}"#);
    let text = event("agent.message", "hello");
    for (event, template, rule, expected) in [
        (&object, "{data.z|eu}", Rule::NatsSubject, Ok("eu")),
        (&object, "{data.n|eu}", Rule::NatsSubject, Ok("eu")),
        (&object, "{data.e|eu}", Rule::NatsSubject, Ok("eu")),
        (&text, "{data.e|eu}", Rule::NatsSubject, Ok("eu")),
        (&object, "{userid|nobody}", Rule::Key, Ok("nobody")),
        (&object, "{id|nobody}", Rule::Key, Ok("e1")),
        (&object, "a.{data.z|eu.west}", Rule::NatsSubject, Ok("a.eu.west")),
        (&object, r#"{data.z|"slug"}"#, Rule::Key, Ok("slug")),
        (&object, r#"{data.z|"a } | \"b\" \\ "}"#, Rule::Key, Ok(r#"a } | "b" \ "#)),
        (&object, r#"{data.z|"Über uns"|slug}"#, Rule::Key, Ok("ber-uns")),
        (&object, "{data.name|slug}", Rule::NatsSubject, Ok("zo-co")),
        (&object, "{data.k|slug}", Rule::NatsSubject, Ok("x-y")),
        (&object, "{type|slug}", Rule::NatsSubject, Ok("agent-message")),
        (&object, "{data.o|eu}", Rule::Key, Err("object or a list")),
        (&object, "{data.k|eu}", Rule::NatsSubject, Err("may not contain a dot")),
        (&object, "{data.z|日本|slug}", Rule::Key, Err("no letter or digit is left")),
    ] {
        match (render(template, rule, event), expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected, "{template}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{template}: {why}"),
            (outcome, _) => panic!("{template}: {outcome:?}"),
        }
    }
}

#[test]
fn names_may_be_quoted_and_headers_are_found_in_any_case() {
    let event = Event {
        headers: vec![("x-team".into(), "moods".into()), ("x-team".into(), "other".into())],
        content_type: Some("text/plain".into()),
        ..event("t", r#"{"odd key":1,"a":{"b c":{"d":2}},"q\"":3,"a.b":4,"items":[{"sku":5}]}"#)
    };
    for (template, expected) in [
        (r#"{data["odd key"]}"#, "1"),
        (r#"{data.a["b c"].d}"#, "2"),
        (r#"{data["q\""]}"#, "3"),
        (r#"{data["a.b"]}"#, "4"),
        ("{data.items[0].sku}", "5"),
        ("{data.items[1].sku|none}", "none"),
        ("{headers.x-team}", "moods"),
        ("{headers.X-Team}", "moods"),
        (r#"{headers["x-team"]}"#, "moods"),
        ("{headers.content-type}", "text/plain"),
        ("{headers.x-none|none}", "none"),
    ] {
        assert_eq!(render(template, Rule::Key, &event).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn a_slug_is_bounded_and_ends_with_a_letter_or_digit() {
    let long = format!("{}é{}", "a".repeat(MAX_SLUG_BYTES - 1), "b".repeat(9));
    for (value, expected) in [
        ("Hello, World", "hello-world"),
        ("--a__b--", "a-b"),
        ("", ""),
        ("*.>", ""),
        (&*long, &long[..MAX_SLUG_BYTES - 1]),
    ] {
        assert_eq!(slug(value), expected);
    }
}

#[test]
fn text_that_is_no_template_is_refused_in_its_place() {
    for (text, place, expected) in [
        ("a{", "{", "not closed"),
        ("a{id", "{id", "not closed"),
        ("a}", "}", "closes nothing"),
        ("a.{tpye}", "tpye", "unknown placeholder `{tpye}`; did you mean `{type}`?"),
        ("a.{dta.region}", "dta.region", "did you mean `{data.region}`?"),
        ("a.{header.x-team}", "header.x-team", "did you mean `{headers.x-team}`?"),
        ("a.{event}", "event", "known are {type}, {id}, "),
        ("{database}", "database", "unknown placeholder"),
        ("{id.x}", "id.x", "did you mean `{id}`?"),
        ("{data}", "data", "names no field"),
        ("{data.}", ".", "missing after the dot"),
        ("{data.a..b}", ".", "missing after the dot"),
        ("{data.items[x]}", "[x", "in quotes"),
        ("{data.items[-1]}", "[-1", "in quotes"),
        ("{data.items[0}", "[0", "`[` is not closed"),
        (r#"{data["x}"#, r#""x}"#, "the quote is not closed"),
        (r#"{data["x"}"#, r#"["x""#, "`[` is not closed"),
        ("{data.a]}", "]", "cannot stand here"),
        ("{data.a|}", "|", "the default is empty"),
        ("{data.a|{type}}", "|", "a default is fixed text"),
        ("{data.a | eu}", " ", "remove the spaces"),
        ("{data.a| eu}", " ", "remove the spaces"),
        ("{data.a|e  u}", "  ", "or put the text with them in quotes"),
        ("{data.a|eu }", " ", "remove the spaces"),
        ("{data.a|eu| slug}", " ", "remove the spaces"),
        ("{ data.a }", " ", "remove the spaces"),
        ("{data.a }", " ", "remove the spaces"),
        ("{data. a}", " ", "remove the spaces"),
        ("{data.a\u{a0}|eu}", "\u{a0}", "remove the spaces"),
        (r#"{data["a"] |eu}"#, " ", "remove the spaces"),
        (r#"{data.a|"eu" }"#, " ", "remove the spaces"),
        ("{data[ 0]}", " ", "remove the spaces"),
        ("{data.a|x|y}", "y", "one default"),
        ("{data.a|slug|x}", "x", "nothing may follow"),
        ("{headers}", "headers", "write {headers.NAME}"),
        ("{headers.authorization}", "headers.authorization", "not kept"),
    ] {
        let error = Template::compile(text, Rule::Key, &mut Paths::default()).unwrap_err();
        assert!(error.message.contains(expected), "{text}: {error}");
        assert_eq!(&text[error.range], place, "{text}");
    }
}

#[test]
fn a_template_is_bounded_before_a_body_is_read_as_deep() {
    let compile = |text: &str| Template::compile(text, Rule::Key, &mut Paths::default());
    let path = |steps| format!("{{data{}}}", ".a".repeat(steps));
    assert!(compile(&path(32)).is_ok());
    for (text, expected) in [
        (path(33), "at most 32 names deep"),
        (format!("{{data{}}}", "[0]".repeat(33)), "at most 32 names deep"),
        (path(200_000), "longer than 2048 bytes"),
        ("x".repeat(2049), "longer than 2048 bytes"),
        ("{id}".repeat(513), "longer than 2048 bytes"),
    ] {
        let error = compile(&text).unwrap_err();
        assert!(error.message.contains(expected), "{error}");
    }
    assert!(compile(&"x".repeat(2048)).is_ok());
}

#[test]
fn what_can_never_be_an_address_is_refused_before_any_event() {
    let long = format!("{}{{id}}", "x".repeat(249));
    for (text, rule, expected) in [
        ("a b", Rule::KafkaTopic, Some("only letters")),
        ("a b.{id}", Rule::KafkaTopic, Some("only letters")),
        (&*long, Rule::KafkaTopic, Some("at most 249")),
        (&long[1..], Rule::KafkaTopic, None),
        (".{id}", Rule::LogTopic, Some("begin with a dot")),
        ("{id}.{type}", Rule::NatsSubject, None),
        ("agents.{id}.*", Rule::NatsSubject, Some("may not hold")),
        ("a..{id}", Rule::NatsSubject, Some("empty token")),
        ("{id}.", Rule::NatsSubject, Some("empty token")),
        (".{id}", Rule::NatsSubject, Some("empty token")),
        ("$JS.{id}", Rule::NatsSubject, Some("belong to the server")),
        (r#"{data.region|"e u"}"#, Rule::NatsSubject, Some("white space")),
        (r#"{data.region|"e u"|slug}"#, Rule::NatsSubject, None),
    ] {
        let outcome = Template::compile(text, rule, &mut Paths::default());
        match (outcome, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => assert!(error.message.contains(part), "{text}: {error}"),
            (outcome, _) => panic!("{text}: {outcome:?}"),
        }
    }
}

/// Parts of templates, many of which mean something to a broker.
fn template() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "type",
        "id",
        "source",
        "subject",
        "agentid",
        "data.v",
        "data[\"odd key\"]",
        "headers.x-v",
    ]);
    let default = prop_oneof![
        3 => Just(String::new()),
        1 => "[a-z.*>$ é/]{1,6}".prop_map(|text| format!("|\"{text}\"")),
    ];
    let placeholder = (name, default, prop::sample::select(vec!["", "|slug"]))
        .prop_map(|(name, default, slug)| format!("{{{name}{default}{slug}}}"));
    let text = "[a-z.$*> é/]{0,4}|x{230,260}";
    prop::collection::vec(prop_oneof![text, placeholder], 0..5).prop_map(|parts| parts.concat())
}

fn payload() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,20}", "[.*>$ a\\-_]{0,6}", "a{200,1100}", "[\u{0}-\u{a0}]{0,4}"]
}

/// A NATS server reads the parts that an operator wrote, and no others.
fn allowed(rule: Rule, text: &str) -> bool {
    let topic = |most| {
        (1..=most).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            && ![".", ".."].contains(&text)
    };
    match rule {
        Rule::KafkaTopic => topic(249),
        Rule::LogTopic => topic(238) && !text.starts_with('.'),
        Rule::AmqpName => text.len() <= 255 && !text.chars().any(char::is_control),
        Rule::NatsSubject => {
            text.len() <= 1024
                && !text.starts_with('$')
                && text.split('.').all(|token| !token.is_empty())
                && !text.chars().any(|c| c.is_whitespace() || c.is_control() || "*>".contains(c))
        }
        Rule::Key => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_event_makes_a_template_an_address_that_the_broker_forbids(
        template in template(),
        rule in prop::sample::select(vec![
            Rule::KafkaTopic, Rule::LogTopic, Rule::NatsSubject, Rule::AmqpName, Rule::Key,
        ]),
        (kind, id, v) in (payload(), payload(), payload()),
    ) {
        let body = serde_json::json!({ "v": v, "odd key": id }).to_string();
        let event = Event {
            id: id.into(),
            subject: Some(v.as_str().into()),
            headers: vec![("x-v".into(), v.into())],
            ..event(&kind, &body)
        };
        let mut paths = Paths::default();
        if let Ok(template) = Template::compile(&template, rule, &mut paths)
            && let Ok(address) = template.render(&Input::new(&event, &paths))
        {
            prop_assert!(allowed(rule, &address), "{address:?}");
        }
    }

    #[test]
    fn any_text_is_a_template_or_an_error_in_its_place(text in "[a-z{}|.\"\\[\\]\\\\ é]{0,16}|\\PC{0,16}") {
        if let Err(error) = Template::compile(&text, Rule::Key, &mut Paths::default()) {
            prop_assert!(text.get(error.range.clone()).is_some(), "{error:?}");
        }
    }

    #[test]
    fn a_slug_holds_nothing_that_means_anything_to_a_broker(value in "\\PC{0,100}|[A-Za-z .-]{0,100}") {
        let slug = slug(&value);
        prop_assert!(slug.len() <= MAX_SLUG_BYTES);
        prop_assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        prop_assert!(!slug.starts_with('-') && !slug.ends_with('-') && !slug.contains("--"));
    }

    #[test]
    fn payload_text_never_adds_a_token_or_a_wildcard(value in "\\PC{1,20}|[.*>$ a]{1,6}") {
        let body = serde_json::json!({ "v": value }).to_string();
        let subject = render("agents.{data.v}.mood", Rule::NatsSubject, &event("t", &body));
        if let Ok(subject) = subject {
            prop_assert_eq!(subject.split('.').count(), 3);
            prop_assert!(!subject.contains(['*', '>', ' ']));
        }
    }
}

#[test]
fn what_an_event_leaves_unfilled_is_named_in_its_place() {
    let event = event("agent.message", r#"{"agent_id":"x","o":{},"a":{"b":"c"}}"#);
    for (text, expected) in [
        ("plain", vec![]),
        ("{type}.{agentid}.{data.agent_id}.{data.a.b}", vec![]),
        ("{data.data.x}-{data.a.c|slug}", vec!["data.data.x", "data.a.c"]),
        ("{data.data.x|none}-{userid|nobody}", vec![]),
        ("{headers.x-team}{userid}", vec!["headers.x-team", "userid"]),
        ("{data.o}", vec!["data.o"]),
        ("{", vec![]),
    ] {
        let unfilled = unfilled(text, &event);
        let shown: Vec<&str> = unfilled.iter().map(|(shown, _)| &**shown).collect();
        assert_eq!(shown, expected, "{text}");
        assert!(unfilled.iter().all(|(shown, range)| text[range.clone()].contains(shown)));
    }
}
