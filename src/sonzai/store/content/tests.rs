use super::*;

fn name(project: Option<&str>, scope: Family) -> Name {
    Name { project: project.map(str::to_owned), scope, event_type: "a".to_owned() }
}

pub fn content() -> Content {
    let kept = Kept {
        name: name(Some("p"), Family::Project),
        url: "https://h/a".to_owned(),
        authorization: Some("00".to_owned()),
        replaced_authorizations: vec![ReplacedAuthorization {
            sha256: "01".to_owned(),
            until_ms: 9,
        }],
        secret: Some("whsec_new".into()),
        since_ms: 7,
        replaced: vec![Replaced { secret: "whsec_old".into(), until_ms: 9 }],
    };
    let change = Change {
        name: name(None, Family::Tenant),
        what: What::Rotate,
        url: "https://h/a".to_owned(),
        authorization: Some("02".to_owned()),
        since_ms: 8,
    };
    Content { webhooks: vec![kept], changes: vec![change] }
}

#[test]
fn both_path_families_name_the_same_webhook_once_the_project_is_known() {
    let (tenant, project) = (Scope::Tenant, Scope::Project("p".to_owned()));
    for (name, scope, own, expected) in [
        (name(None, Family::Tenant), &tenant, None, true),
        (name(None, Family::Tenant), &tenant, Some("p"), true),
        (name(None, Family::Tenant), &project, Some("p"), true),
        (name(None, Family::Tenant), &project, Some("q"), false),
        (name(None, Family::Tenant), &project, None, false),
        (name(Some("p"), Family::Project), &project, None, true),
        (name(Some("p"), Family::Project), &tenant, Some("p"), true),
        (name(Some("p"), Family::Project), &tenant, Some("q"), false),
        (name(Some("p"), Family::Project), &tenant, None, false),
        (name(Some("p"), Family::Tenant), &project, None, true),
        (name(Some("p"), Family::Tenant), &tenant, None, true),
        (name(Some("q"), Family::Tenant), &project, Some("q"), false),
    ] {
        assert_eq!(name.is_of(scope, own), expected, "{name:?} {scope:?} {own:?}");
    }
}

fn secrets_of(content: &Content) -> Vec<(Option<&str>, Option<&str>, usize)> {
    let each = content.webhooks.iter().map(|kept| {
        let secret = kept.secret.as_ref().map(|secret| secret.expose_secret());
        (kept.name.project.as_deref(), secret, kept.replaced.len())
    });
    each.collect()
}

#[test]
fn a_change_has_an_end_whatever_becomes_of_it() {
    let times = Times { now_ms: 10, until_ms: 20 };
    let change = |project| Change {
        name: name(project, Family::Tenant),
        what: What::Rotate,
        url: "https://h/a".to_owned(),
        authorization: None,
        since_ms: 8,
    };
    let mut content = Content::default();
    content.begin(change(None));
    content.begin(Change { since_ms: 9, ..change(None) });
    assert_eq!(content.changes, [change(None)]);
    content.finish(&change(None), "whsec_one".into(), None, times);
    assert_eq!(
        (content.changes.len(), secrets_of(&content)),
        (0, vec![(None, Some("whsec_one"), 0)])
    );
    content.begin(change(None));
    content.abandon(&change(None).name);
    assert_eq!((content.changes.len(), secrets_of(&content).len()), (0, 1));
    content.begin(change(None));
    content.learn("p");
    assert_eq!(content.changes[0].name.project.as_deref(), Some("p"));
    content.finish(&change(Some("p")), "whsec_two".into(), None, times);
    assert_eq!(
        (content.changes.len(), secrets_of(&content)),
        (0, vec![(Some("p"), Some("whsec_two"), 1)])
    );
    content.deleted(&change(Some("p")).name, times);
    assert_eq!(secrets_of(&content), [(Some("p"), None, 2)]);
    content.deleted(&change(Some("p")).name, Times { now_ms: 20, until_ms: 30 });
    assert_eq!(secrets_of(&content), []);
}

#[test]
fn what_was_kept_before_its_project_was_known_is_joined_with_what_was_kept_after() {
    let kept = |project, secret: &str, since_ms| Kept {
        name: name(project, Family::Tenant),
        url: "https://h/a".to_owned(),
        authorization: None,
        replaced_authorizations: Vec::new(),
        secret: Some(secret.into()),
        since_ms,
        replaced: Vec::new(),
    };
    for (first, second) in [(1, 2), (2, 1)] {
        let webhooks = vec![kept(Some("p"), "whsec_1", first), kept(None, "whsec_2", second)];
        let mut content = Content { webhooks, changes: Vec::new() };
        assert!(content.wants_own_project());
        content.learn("p");
        assert!(!content.wants_own_project());
        let newest = if first > second { "whsec_1" } else { "whsec_2" };
        assert_eq!(secrets_of(&content), [(Some("p"), Some(newest), 0)]);
    }
}

/// What is registered with a webhook, and what was before, each as it stands for a header.
fn headers_of(content: &Content) -> (Option<&str>, Vec<&str>) {
    let kept = &content.webhooks[0];
    let replaced = kept.replaced_authorizations.iter().map(|it| &*it.sha256);
    (kept.authorization.as_deref(), replaced.collect())
}

#[test]
fn a_header_is_known_from_when_it_was_registered_and_no_rotation_changes_it() {
    let times = |now_ms| Times { now_ms, until_ms: now_ms + 10 };
    let change = |what, authorization: Option<&str>| Change {
        name: name(Some("p"), Family::Tenant),
        what,
        url: "https://h/a".to_owned(),
        authorization: authorization.map(str::to_owned),
        since_ms: 1,
    };
    let mut content = Content::default();
    // Its answer was lost, and a rotation brings the secret.
    content.begin(change(What::Register, Some("a")));
    let rotate = change(What::Rotate, None);
    content.begin(rotate.clone());
    content.finish(&rotate, "whsec_one".into(), None, times(1));
    assert_eq!(headers_of(&content), (Some("a"), vec![]));
    content.begin(rotate.clone());
    content.finish(&rotate, "whsec_two".into(), None, times(2));
    assert_eq!(headers_of(&content), (Some("a"), vec![]));
    content.updated(&rotate.name, &rotate.url, "a".to_owned(), times(3));
    assert_eq!(headers_of(&content), (Some("a"), vec![]), "the same");
    content.updated(&rotate.name, &rotate.url, "b".to_owned(), times(4));
    assert_eq!(headers_of(&content), (Some("b"), vec!["a"]));
    content.deleted(&rotate.name, times(5));
    assert_eq!(headers_of(&content), (None, vec!["b", "a"]));
    let register = change(What::Register, Some("d"));
    content.finish(&register, "whsec_three".into(), Some("c".to_owned()), times(14));
    assert_eq!(headers_of(&content), (Some("c"), vec!["b"]), "what was just registered counts");
}

#[test]
fn what_was_replaced_stays_for_a_while_and_never_too_many_do() {
    let mut kept = content().webhooks.remove(0);
    kept.authorization = None;
    kept.replace(Some("whsec_newer".into()), 8, 18);
    let until: Vec<u64> = kept.replaced.iter().map(|replaced| replaced.until_ms).collect();
    assert_eq!((until, kept.since_ms), (vec![18, 9], 8));
    kept.replace(None, 9, 19);
    let until: Vec<u64> = kept.replaced.iter().map(|replaced| replaced.until_ms).collect();
    assert_eq!(until, [19, 18]);
    assert!(kept.is_of_use(18) && !kept.is_of_use(19));
    for _ in 0..2 * MAX_REPLACED {
        kept.replace(Some("whsec_one_more".into()), 9, 19);
    }
    assert_eq!(kept.replaced.len(), MAX_REPLACED);
}
