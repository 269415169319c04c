use super::*;
use crate::sonzai::store::{Change, Kept, Name, What};

const HERE: &str = "https://hooks.example/h/";

fn register(types: &[&str]) -> Register {
    Register {
        public_url: "https://hooks.example".to_owned(),
        scope: Scope::Tenant,
        types: types.iter().map(|of| of.to_string()).collect(),
    }
}

fn webhook(event_type: &str, url: &str) -> Webhook {
    Webhook {
        project_id: "p".to_owned(),
        event_type: event_type.to_owned(),
        url: url.to_owned(),
        is_active: true,
        authorization: None,
        created_at: None,
        updated_at: None,
    }
}

fn here(event_type: &str) -> Webhook {
    webhook(event_type, &format!("{HERE}{event_type}"))
}

fn kept(event_type: &str) -> Kept {
    Kept {
        name: Name::new(&Scope::Tenant, Some("p"), event_type),
        url: format!("{HERE}{event_type}"),
        authorization: None,
        replaced_authorizations: Vec::new(),
        secret: Some("whsec_kept".into()),
        since_ms: 5,
        replaced: Vec::new(),
    }
}

fn change(event_type: &str) -> Change {
    let name = Name::new(&Scope::Tenant, Some("p"), event_type);
    let url = format!("{HERE}{event_type}");
    Change { name, what: What::Rotate, url, authorization: None, since_ms: 6 }
}

/// Each type with what is done, what is known of its secret, and whether it is rotated.
type Outline = Vec<(String, Step, Secret, bool)>;

struct Case<'c> {
    types: &'c [&'c str],
    authorization: Option<&'c str>,
    content: Content,
    listed: Vec<Webhook>,
    lists_key: bool,
    rotate_unknown: bool,
}

impl Case<'_> {
    fn of<'c>(types: &'c [&'c str], content: Content, listed: Vec<Webhook>) -> Case<'c> {
        let (authorization, lists_key, rotate_unknown) = Default::default();
        Case { types, authorization, content, listed, lists_key, rotate_unknown }
    }

    fn plan(&self) -> Outline {
        let (register, path) = (register(self.types), Path::parse("/h/{type}").unwrap());
        let authorization = self.authorization.map(SecretString::from);
        let authorization = authorization.as_ref();
        let register = (!self.types.is_empty()).then_some(&register);
        let known = Known {
            content: &self.content,
            scope: &Scope::Tenant,
            own: Some("p"),
            lists_key: &|_| self.lists_key,
        };
        let wanted = Wanted { register, path: &path, authorization };
        let planned = plan(wanted, known, &self.listed, self.rotate_unknown);
        let outline = |one: Planned| (one.event_type, one.step, one.secret, one.rotates);
        planned.into_iter().map(outline).collect()
    }
}

fn with(webhooks: Vec<Kept>, changes: Vec<Change>) -> Content {
    Content { webhooks, changes }
}

fn only(event_type: &str, step: Step, secret: Secret, rotates: bool) -> Outline {
    vec![(event_type.to_owned(), step, secret, rotates)]
}

#[test]
fn what_is_not_registered_is_and_what_is_as_it_should_be_stays() {
    let none = Case::of(&["a"], Content::default(), vec![]);
    assert_eq!(none.plan(), only("a", Step::Register, Secret::None, false));
    let there = Case::of(&["a"], with(vec![kept("a")], vec![]), vec![here("a")]);
    assert_eq!(there.plan(), only("a", Step::Keep, Secret::Stored(5), false));
    // Somebody deleted it.
    let gone = Case::of(&["a"], with(vec![kept("a")], vec![]), vec![]);
    assert_eq!(gone.plan(), only("a", Step::Register, Secret::None, false));
}

#[test]
fn whatever_differs_is_updated_and_named() {
    let elsewhere = webhook("a", "https://elsewhere.example/a");
    let inactive = Webhook { is_active: false, ..here("a") };
    let with_header = Webhook { authorization: Some("Bearer x".into()), ..here("a") };
    for (listed, authorization, differences) in [
        (elsewhere, None, vec![Difference::Url]),
        (inactive, None, vec![Difference::Inactive]),
        (with_header.clone(), None, vec![Difference::Authorization]),
        (here("a"), Some("Bearer x"), vec![Difference::Authorization]),
        (with_header.clone(), Some("Bearer y"), vec![Difference::Authorization]),
        (with_header, Some("Bearer x"), vec![]),
    ] {
        let case =
            Case { authorization, ..Case::of(&["a"], with(vec![kept("a")], vec![]), vec![listed]) };
        let step = match differences.is_empty() {
            true => Step::Keep,
            false => Step::Update(differences),
        };
        assert_eq!(case.plan(), only("a", step, Secret::Stored(5), false));
    }
}

#[test]
fn a_masked_header_is_the_one_that_was_registered() {
    let masked = Webhook { authorization: Some("Bear****".into()), ..here("a") };
    for (registered, expected) in [
        (Some("Bearer x"), Step::Keep),
        (Some("Bearer y"), Step::Update(vec![Difference::Authorization])),
        (None, Step::Update(vec![Difference::Authorization])),
    ] {
        let authorization = Some(digest(registered.map(SecretString::from).as_ref()));
        let content = with(vec![Kept { authorization, ..kept("a") }], vec![]);
        let case = Case {
            authorization: Some("Bearer x"),
            ..Case::of(&["a"], content, vec![masked.clone()])
        };
        assert_eq!(case.plan(), only("a", expected, Secret::Stored(5), false));
    }
}

#[test]
fn a_secret_that_nobody_knows_is_told_and_made_anew_only_if_that_is_said() {
    let case = Case::of(&["a"], Content::default(), vec![here("a")]);
    assert_eq!(case.plan(), only("a", Step::Keep, Secret::Unknown, false));
    let listed = Case { lists_key: true, ..case };
    assert_eq!(listed.plan(), only("a", Step::Keep, Secret::Listed, false));
    let rotated = Case { lists_key: false, rotate_unknown: true, ..listed };
    assert_eq!(rotated.plan(), only("a", Step::Keep, Secret::Unknown, true));
    let taken_over = Case { listed: vec![webhook("a", "https://elsewhere.example")], ..rotated };
    let update = Step::Update(vec![Difference::Url]);
    assert_eq!(taken_over.plan(), only("a", update, Secret::Unknown, true));
}

#[test]
fn a_change_whose_answer_was_lost_is_made_again() {
    let content = with(vec![kept("a")], vec![change("a")]);
    let there = Case::of(&["a"], content.clone(), vec![here("a")]);
    assert_eq!(there.plan(), only("a", Step::Keep, Secret::Changing(6), true));
    let not_there = Case::of(&["a"], content, vec![]);
    assert_eq!(not_there.plan(), only("a", Step::Register, Secret::Changing(6), false));
}

#[test]
fn what_leads_here_and_is_not_wanted_is_deleted_and_what_leads_elsewhere_is_left_alone() {
    let moved = Kept { url: "https://old.example/h/c".to_owned(), ..kept("c") };
    let listed = vec![
        here("d"),
        here("a"),
        webhook("c", "https://old.example/h/c"),
        webhook("b", "https://elsewhere.example/b"),
    ];
    let case = Case::of(&["a"], with(vec![kept("a"), moved], vec![]), listed);
    let expected: Outline = [
        only("a", Step::Keep, Secret::Stored(5), false),
        only("b", Step::LeaveAlone, Secret::None, false),
        only("c", Step::Delete, Secret::Stored(5), false),
        only("d", Step::Delete, Secret::Unknown, false),
    ]
    .concat();
    assert_eq!(case.plan(), expected);
    // Without `register:` nothing is to be made true.
    let nothing = Case { types: &[], ..case };
    assert!(nothing.plan().iter().all(|(_, step, ..)| *step == Step::LeaveAlone));
}
