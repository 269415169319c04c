use std::time::Duration;

use secrecy::ExposeSecret;

use crate::{
    routing::{self, CommandSettings, Table, table::From},
    source::{
        Provider,
        sonzai::settings::{Agents, Api, Mode, Poll, Register, Scope, Settings, Whose},
    },
};

/// Every setting of Sonzai's API, and a command at each kind of broker.
const TEXT: &str = include_str!("../../../../tests/routes/valid/sonzai_api.yaml");

fn compiled() -> Table {
    let env = |name: &str| (name == "SECRET").then(|| "whsec_0123456789abcdef".to_owned());
    routing::compile("routes.yaml", TEXT, &env).unwrap()
}

fn settings(source: &str) -> Settings {
    let table = compiled();
    let (_, source) = table.sources().find(|(_, other)| other.name == source).unwrap();
    match &source.provider {
        Provider::Sonzai(sonzai) => sonzai.settings.clone(),
        other => panic!("{other:?}"),
    }
}

fn api(url: &str, key: &str) -> Option<Api> {
    Some(Api { url: url.to_owned(), key: key.to_owned().into(), ca: None })
}

#[test]
fn what_is_said_of_the_api_is_what_is_asked_of_it() {
    let expected = Settings {
        api: api("https://api.sonz.ai", "whsec_0123456789abcdef"),
        register: Some(Register {
            public_url: "https://hooks.example.com/waypost".to_owned(),
            scope: Scope::Project("project-1".to_owned()),
            types: vec!["on_wakeup_ready".to_owned(), "agent.message".to_owned()],
        }),
        poll: Some(Poll {
            whose: Whose::Project("whsec_0123456789abcdef".to_owned()),
            every: Duration::from_secs(30),
            mode: Mode::Fallback,
            take: true,
            repair: Some(Duration::from_secs(7200)),
            kind: "agent.message".into(),
        }),
    };
    assert_eq!(settings("sonzai"), expected);
    let agents = Agents::Named(vec!["luna".to_owned(), "Mira & Co.".to_owned()]);
    let expected = Settings {
        api: api("http://127.0.0.1:8089", "sk_stand_in"),
        register: Some(Register {
            public_url: "http://localhost:8080".to_owned(),
            scope: Scope::Tenant,
            types: vec!["on_wakeup_ready".to_owned()],
        }),
        poll: Some(Poll {
            whose: Whose::Agents { agents, users: vec!["user-1".to_owned()] },
            every: Duration::from_secs(1),
            mode: Mode::Always,
            take: false,
            repair: None,
            kind: "agent.note".into(),
        }),
    };
    assert_eq!(settings("agents"), expected);
}

#[test]
fn what_is_left_out_has_the_defaults() {
    let Settings { api, register, poll } = settings("one");
    assert_eq!(api.unwrap().url, "https://api.sonz.ai");
    assert_eq!(register, None);
    let expected = Poll {
        whose: Whose::Agents { agents: Agents::All, users: vec![] },
        every: Duration::from_secs(30),
        mode: Mode::Fallback,
        take: true,
        repair: None,
        kind: "agent.message".into(),
    };
    assert_eq!(poll, Some(expected));
}

#[test]
fn the_key_is_never_printed() {
    let settings = settings("one");
    let key = settings.api.as_ref().unwrap().key.expose_secret().to_owned();
    assert!(!format!("{settings:?}").contains(&key));
}

#[test]
fn a_command_knows_its_place_and_its_consumer() {
    let command = |name: &str, source: &str, broker: &str, from| CommandSettings {
        name: name.into(),
        source: source.into(),
        broker: broker.into(),
        from,
    };
    let expected = [
        command(
            "reminders",
            "agents",
            "live",
            From::Nats { subject: "commands.reminders".into(), group: "reminders".into() },
        ),
        command(
            "stream.of.wakeups",
            "sonzai",
            "stream",
            From::Kafka {
                topic: "commands.wakeups".into(),
                group: "waypost-stream.of.wakeups".into(),
            },
        ),
        command("tasks", "one", "tasks", From::RabbitMq { queue: "wakeups".into() }),
        command(
            "wakeups",
            "sonzai",
            "live",
            From::Nats { subject: "commands.wakeups".into(), group: "waypost-wakeups".into() },
        ),
    ];
    assert_eq!(compiled().commands(), expected);
    let none = "sources: {}\nbrokers: {}\nroutes: []\n";
    assert_eq!(routing::compile("f", none, &|_| None).unwrap().commands(), []);
}

#[test]
fn nothing_of_the_api_is_looked_at_without_secrets() {
    let table = routing::compile_unseen("routes.yaml", &TEXT.replace("SECRET", "UNSET")).unwrap();
    assert_eq!((table.sources().count(), table.commands().len()), (3, 4));
}
