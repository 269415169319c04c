//! The client of Sonzai's API against a server on loopback: what it asks for, what it tries again,
//! what it makes of answers.

use std::{path::PathBuf, time::Duration};

use futures_util::future::join_all;
use http::Method;
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpListener, time::Instant};
use waypost::{
    sonzai::client::{
        Client, Error, Limits, MAX_AGENT_PAGE, NewWakeup, ProjectFilter, SetupError, Why,
    },
    source::sonzai::settings::{Api as Settings, Scope},
};

use crate::common::certificates::{Authority, LOOPBACK};

mod api;
mod requests;

use api::{Act, Api, answer, with};

const KEY: &str = "sk_test_hidden_4711";

const PROJECT: &str = "11111111-1111-4111-8111-111111111111";

/// Pauses are short, and nothing is waited for that need not be.
const LIMITS: Limits = Limits {
    request_timeout: Duration::from_secs(10),
    max_attempts: 4,
    max_pause: Duration::from_millis(2),
    max_answer_bytes: 10_000,
    max_requests_per_second: 1_000,
};

const EMPTY: &str = r#"{"webhooks":null}"#;

const SECRET: &str = r#"{"$schema":"x","success":true,"signing_secret":"whsec_new"}"#;

fn settings(url: String) -> Settings {
    Settings { url, key: KEY.into(), ca: None }
}

fn client(api: &Api, limits: Limits) -> Client {
    Client::new(&settings(format!("http://{}", api.address)), limits).expect("a client")
}

fn shows_no_secret(error: &Error) {
    let words = format!("{error} {error:?}");
    assert!(!words.contains(KEY) && !words.contains("hidden"), "{words}");
}

#[tokio::test]
async fn a_request_carries_the_key_and_who_asks() {
    let api = Api::scripted(vec![|| answer(200, EMPTY)]).await;
    client(&api, LIMITS).webhooks(&Scope::Tenant).await.expect("a list");
    let asked = &api.asked()[0];
    assert_eq!(asked.header("authorization"), Some(&*format!("Bearer {KEY}")));
    assert_eq!(asked.header("accept"), Some("application/json"));
    let ourselves = concat!("waypost/", env!("CARGO_PKG_VERSION"));
    assert_eq!(asked.header("user-agent"), Some(ourselves));
    assert_eq!(asked.header("host"), Some(&*api.address.to_string()));
    assert_eq!(asked.header("idempotency-key"), None);
}

#[tokio::test]
async fn what_may_be_well_the_next_time_is_tried_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let api = Api::start(move |index| match index {
            0 => answer(status, ""),
            _ => answer(200, SECRET),
        })
        .await;
        let client = client(&api, LIMITS);
        let secret = client.rotate(&Scope::Tenant, "t").await.expect("a secret");
        assert_eq!(secret.expose_secret(), "whsec_new");
        let stats = client.stats();
        assert_eq!((stats.retried.get(), stats.ok.get(), stats.time.read().count()), (1, 1, 2));

        let keys: Vec<String> = api
            .asked()
            .iter()
            .map(|asked| asked.header("idempotency-key").expect("a key").to_owned())
            .collect();
        assert_eq!(keys[0], keys[1], "one call has one key");
        assert!(keys[0].len() == 32 && keys[0].bytes().all(|byte| byte.is_ascii_hexdigit()));
        client.rotate(&Scope::Tenant, "t").await.expect("a secret");
        let third = api.asked()[2].header("idempotency-key").map(str::to_owned);
        assert_ne!(third.as_deref(), Some(&*keys[0]), "another call has another");
    }
}

#[tokio::test]
async fn attempts_are_bounded_and_a_refusal_is_no_reason_for_another() {
    for (status, attempts, uncertain) in [
        (400, 1, false),
        (401, 1, false),
        (422, 1, false),
        (429, 4, false),
        (501, 1, true),
        (503, 4, true),
    ] {
        let api = Api::start(move |_| answer(status, r#"{"title":"no"}"#)).await;
        let client = client(&api, LIMITS);
        let error = client.rotate(&Scope::Tenant, "t").await.expect_err("an error");
        assert_eq!((api.count(), error.attempts), (attempts, attempts as u32), "{status}");
        assert_eq!(error.status().map(|status| status.as_u16()), Some(status));
        assert_eq!(error.is_uncertain(), uncertain, "{status}");
        assert!(error.to_string().contains(": no"), "{error}");
        let counted = (client.stats().refused.get(), client.stats().failed.get());
        assert_eq!(counted, if status < 500 { (1, 0) } else { (0, 1) }, "{status}");

        let error = client.webhooks(&Scope::Tenant).await.expect_err("an error");
        assert!(!error.is_uncertain(), "what changes nothing has no effect");
    }
}

#[tokio::test]
async fn retry_after_is_waited_for_or_told() {
    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const IN_AN_HOUR: &str = "Sun, 06 Nov 1994 09:49:37 GMT";
    let api = Api::start(|index| match index {
        0 => with(429, &[("retry-after", "0")], ""),
        1 => with(503, &[("retry-after", "0.001")], ""),
        2 => with(429, &[("retry-after", NOW), ("date", IN_AN_HOUR)], ""),
        _ => answer(200, EMPTY),
    })
    .await;
    client(&api, LIMITS).webhooks(&Scope::Tenant).await.expect("a list");
    assert_eq!(api.count(), 4);

    for (retry_after, wanted) in [("7", 7.0), ("1.5", 1.5), (IN_AN_HOUR, 3600.0)] {
        let api =
            Api::start(move |_| with(429, &[("retry-after", retry_after), ("date", NOW)], ""))
                .await;
        let error = client(&api, LIMITS).webhooks(&Scope::Tenant).await.expect_err("an error");
        assert_eq!(api.count(), 1, "{retry_after}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs_f64(wanted)));
        assert!(error.to_string().contains("no request for"), "{error}");
    }
}

#[tokio::test]
async fn a_cut_connection_is_tried_again_and_leaves_doubt() {
    for act in [|| Act::Close, || Act::Cut] as [fn() -> Act; 2] {
        let api = Api::scripted(vec![act, || answer(200, SECRET)]).await;
        client(&api, LIMITS).rotate(&Scope::Tenant, "t").await.expect("a secret");
        assert_eq!(api.count(), 2);

        let api = Api::scripted(vec![act]).await;
        let error = client(&api, LIMITS).rotate(&Scope::Tenant, "t").await.expect_err("an error");
        assert!(matches!(error.why, Why::Cut { .. }), "{error:?}");
        assert!(error.is_uncertain() && api.count() == 4, "{error}");

        let api = Api::scripted(vec![act, || answer(422, "")]).await;
        let error = client(&api, LIMITS).rotate(&Scope::Tenant, "t").await.expect_err("an error");
        assert!(error.is_uncertain(), "the first attempt may have done it: {error}");
        assert!(error.to_string().ends_with("may have taken effect all the same"), "{error}");
    }
}

#[tokio::test]
async fn nobody_who_cannot_be_reached_has_done_anything() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("to bind").local_addr();
    let url = format!("http://{}", gone.expect("an address"));
    let client = Client::new(&settings(url), LIMITS).expect("a client");
    let error = client.rotate(&Scope::Tenant, "t").await.expect_err("an error");
    assert!(matches!(error.why, Why::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(!error.is_uncertain() && error.attempts == 4);
    assert_eq!((client.stats().unreachable.get(), client.stats().retried.get()), (1, 3));
}

#[tokio::test]
async fn an_answer_has_its_time() {
    let limits = Limits { request_timeout: Duration::from_millis(250), max_attempts: 2, ..LIMITS };
    for act in [|| Act::Silence, || Act::Stall] as [fn() -> Act; 2] {
        let api = Api::scripted(vec![act]).await;
        let client = client(&api, limits);
        let error = client.rotate(&Scope::Tenant, "t").await.expect_err("an error");
        assert!(matches!(error.why, Why::Late { .. }), "{error:?}");
        assert!(error.is_uncertain() && error.attempts == 2);
        let error = client.webhooks(&Scope::Tenant).await.expect_err("an error");
        assert!(!error.is_uncertain());
    }
}

#[tokio::test]
async fn an_answer_has_its_size() {
    let fits = format!("{}{EMPTY}", " ".repeat(10_000 - EMPTY.len()));
    let larger = format!("{fits} ");
    let api = Api::start(move |_| answer(200, &fits)).await;
    client(&api, LIMITS).webhooks(&Scope::Tenant).await.expect("a list");
    let announced = Api::start(move |_| answer(200, &larger)).await;
    let streamed = Api::scripted(vec![|| Act::Stream(1_000_000)]).await;
    for api in [announced, streamed] {
        let client = client(&api, LIMITS);
        let error = client.webhooks(&Scope::Tenant).await.expect_err("an error");
        assert!(error.is_too_large() && api.count() == 1, "{error}");
        let error = client.rotate(&Scope::Tenant, "t").await.expect_err("an error");
        assert!(error.is_uncertain());
    }
    // An error is an error, however large.
    let page = "x".repeat(1_000_000);
    let api = Api::start(move |_| with(400, &[("content-type", "text/plain")], &page)).await;
    let error = client(&api, LIMITS).webhooks(&Scope::Tenant).await.expect_err("an error");
    assert_eq!(error.status().map(|status| status.as_u16()), Some(400));
    assert!(error.to_string().len() < 1000);
}

#[tokio::test]
async fn nobody_else_gets_the_key() {
    let other = Api::scripted(vec![|| answer(200, EMPTY)]).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("http://{}/api/v1/webhooks", other.address);
        let api = Api::start(move |_| with(status, &[("location", &location)], "")).await;
        let error = client(&api, LIMITS).webhooks(&Scope::Tenant).await.expect_err("an error");
        assert!(matches!(error.why, Why::Redirected { .. }), "{error:?}");
        assert!(error.to_string().contains("set api.url"), "{error}");
        assert_eq!((api.count(), other.count()), (1, 0));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_asked_for_again_only_where_that_changes_nothing() {
    for body in ["", "{", "<html>", "[]", r#"{"success":true}"#, r#"{"success":false}"#] {
        let api = Api::start(move |_| answer(200, body)).await;
        let client = client(&api, LIMITS);
        let error = client.webhooks(&Scope::Tenant).await.expect_err("an error");
        assert!(matches!(error.why, Why::Malformed { .. }), "{error:?}");
        assert_eq!((api.count(), error.is_uncertain()), (4, false), "{body}");
        let error = client.rotate(&Scope::Tenant, "t").await.expect_err("an error");
        assert_eq!((api.count(), error.is_uncertain()), (5, true), "{body}");
    }
}

#[tokio::test]
async fn what_an_earlier_attempt_deleted_is_deleted() {
    let delete = async |acts: Vec<fn() -> Act>| {
        let api = Api::scripted(acts).await;
        client(&api, LIMITS).delete_webhook(&Scope::Tenant, "t").await
    };
    delete(vec![|| answer(204, "")]).await.expect("deleted");
    delete(vec![|| Act::Close, || answer(404, "")]).await.expect("deleted");
    delete(vec![|| answer(503, ""), || answer(404, "")]).await.expect("deleted");
    for acts in [vec![|| answer(404, "")], vec![|| answer(429, ""), || answer(404, "")]]
        as [Vec<fn() -> Act>; 2]
    {
        let error = delete(acts).await.expect_err("an error");
        assert!(error.is_gone(), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_apis_words_without_what_was_sent() {
    let api = Api::scripted(vec![|| {
        let problem = format!(
            r#"{{"title":"Forbidden","detail":"{KEY} may not say Bearer hidden","errors":[
                {{"location":"body.auth_header","message":"Bearer hidden","value":"Bearer hidden"}}]}}"#
        );
        let kind = ("content-type", "application/problem+json");
        with(403, &[kind, ("x-request-id", "req-1")], &problem)
    }])
    .await;
    let authorization = SecretString::from("Bearer hidden");
    let client = client(&api, LIMITS);
    let scope = Scope::Project(PROJECT.into());
    let registered = client.register(&scope, "t", "https://h/t", Some(&authorization)).await;
    let error = registered.expect_err("an error");
    shows_no_secret(&error);
    assert!(error.is_denied() && !error.is_uncertain());
    assert_eq!(
        error.to_string(),
        format!(
            "{} answered 403 Forbidden: [secret] may not say [secret] \
             (body.auth_header: [secret]) (x-request-id req-1); the key (api.key) may not do this: \
             it needs the scope write:webhooks",
            api.address
        )
    );
    assert!(!format!("{client:?}").contains("hidden"));
}

#[tokio::test]
async fn a_server_is_believed_whose_authority_was_named() {
    let authority = Authority::named("sonzai-tests");
    let api = Api::with_tls(&authority.issue(&LOOPBACK), |_| answer(200, EMPTY)).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, pem: String| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).expect("to write");
        path
    };
    let trusting = |url: String, ca| Client::new(&Settings { ca, ..settings(url) }, LIMITS);
    let right = file("right.pem", authority.pem());
    for host in LOOPBACK {
        let url = format!("https://{host}:{}", api.address.port());
        let client = trusting(url.clone(), Some(right.clone())).expect("a client");
        client.webhooks(&Scope::Tenant).await.expect("a list");

        let wrong = file("wrong.pem", Authority::named("another").pem());
        let client = trusting(url, Some(wrong)).expect("a client");
        let error = client.rotate(&Scope::Tenant, "t").await.expect_err("an error");
        assert!(matches!(error.why, Why::Unreachable { .. }), "{error:?}");
        assert!(!error.is_uncertain() && error.to_string().contains("api.ca"), "{error}");
    }
    assert_eq!(api.count(), 2, "nothing was sent to a server that is not believed");

    let plain = Api::scripted(vec![|| answer(200, EMPTY)]).await;
    let url = format!("https://{}", plain.address);
    let client = trusting(url, Some(right)).expect("a client");
    let error = client.webhooks(&Scope::Tenant).await.expect_err("an error");
    assert!(error.to_string().contains("write http:// in api.url"), "{error}");
}

#[tokio::test]
async fn what_cannot_work_is_told_before_anything_is_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").expect("to write");
    let with_key = |key: &str| Settings { key: key.into(), ..settings("http://h".into()) };
    let with_ca = |ca: PathBuf| Settings { ca: Some(ca), ..settings("http://h".into()) };
    for (settings, expected) in [
        (with_key("sk_hidden\n"), "api.key"),
        (with_key(""), "api.key"),
        (with_key("sk_hidden月"), "api.key"),
        (with_ca(dir.path().join("absent.pem")), "api.ca: cannot read"),
        (with_ca(empty), "holds no certificate"),
        (settings("h:80".into()), "api.url"),
    ] {
        let error: SetupError = Client::new(&settings, LIMITS).expect_err("an error");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!format!("{error} {error:?}").contains("hidden"), "{error:?}");
    }

    let api = Api::scripted(vec![|| answer(200, "{}")]).await;
    let client = client(&api, LIMITS);
    let error = client.consume("agent", "..").await.expect_err("an error");
    assert!(matches!(error.why, Why::Unaskable(_)) && !error.is_uncertain(), "{error:?}");
    let scheduled = client.schedule_wakeup("agent", &NewWakeup::default(), "a\nb").await;
    assert!(scheduled.expect_err("an error").to_string().contains("idempotency key"));
    assert_eq!(api.count(), 0);
}

#[tokio::test]
async fn connections_are_used_again_and_ten_calls_at_once_all_succeed() {
    let api = Api::scripted(vec![|| answer(200, EMPTY)]).await;
    let client = client(&api, LIMITS);
    for _ in 0..20 {
        client.webhooks(&Scope::Tenant).await.expect("a list");
    }
    // One call may come before the connection of the last is free.
    assert!(api.connections() < 20, "{} connections", api.connections());
    let calls = (0..10).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.webhooks(&Scope::Tenant).await })
    });
    for call in join_all(calls).await {
        call.expect("no panic").expect("a list");
    }
    assert_eq!((api.count(), client.stats().ok.get()), (30, 30));
}

/// No bound from above: a machine may be slow. It cannot make a second shorter.
#[tokio::test]
async fn clones_share_one_pace() {
    let api = Api::scripted(vec![|| answer(200, EMPTY)]).await;
    let client = client(&api, Limits { max_requests_per_second: 20, ..LIMITS });
    let start = Instant::now();
    let calls = (0..21).map(|_| {
        let client = client.clone();
        async move { client.webhooks(&Scope::Tenant).await }
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(api.count(), 21);
}

#[tokio::test]
async fn a_base_url_keeps_its_path() {
    let api = Api::scripted(vec![|| answer(200, r#"{"notifications":null}"#)]).await;
    let url = format!("http://{}/below/it/", api.address);
    let client = Client::new(&settings(url), LIMITS).expect("a client");
    let filter = ProjectFilter::default();
    let listed = client.project_notifications(PROJECT, filter, 1000).await.expect("a list");
    assert_eq!((listed.items.len(), listed.unreadable), (0, 0));
    client.agent_notifications("a", None, MAX_AGENT_PAGE).await.expect("a list");
    let targets: Vec<String> = api.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(
        targets,
        [
            format!("/below/it/api/v1/projects/{PROJECT}/notifications?limit=200"),
            "/below/it/api/v1/agents/a/notifications?status=pending&limit=500".to_owned(),
        ]
    );
    assert!(api.asked().iter().all(|asked| asked.method == Method::GET));
}

#[tokio::test]
async fn pages_lead_to_the_next_until_there_is_none() {
    let api = Api::scripted(vec![
        || {
            answer(
                200,
                r#"{"$schema":"x","items":[{"agent_id":"a-1","name":"Luna","new":{}}, {"name":"?"},
                    {"id":2,"project_id":"p"}],"has_more":true,"total_count":0,"next_cursor":"Mg=="}"#,
            )
        },
        || answer(200, r#"{"items":null,"has_more":false,"total_count":0}"#),
        || answer(200, r#"{"items":[],"has_more":true,"next_cursor":"Mg=="}"#),
    ])
    .await;
    let client = client(&api, LIMITS);
    let first = client.agents(Some("p"), None).await.expect("a page");
    let ids: Vec<&str> = first.agents.iter().map(|agent| &*agent.id).collect();
    assert_eq!((ids, first.unreadable), (vec!["a-1", "2"], 1));
    let second = client.agents(Some("p"), first.next_cursor.as_deref()).await.expect("a page");
    assert_eq!((second.agents.len(), second.next_cursor), (0, None));
    let targets: Vec<String> = api.asked().into_iter().map(|asked| asked.target).collect();
    let page = "/api/v1/agents?page_size=100&project_id=p";
    assert_eq!(targets, [page.to_owned(), format!("{page}&cursor=Mg%3D%3D")]);

    let error = client.agents(None, Some("Mg==")).await.expect_err("a circle");
    assert!(error.to_string().contains("same page"), "{error}");
}
