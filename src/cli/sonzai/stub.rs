//! `waypost sonzai stub`: the stand-in for Sonzai's API, until it is told to stop.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Arg, ArgMatches, parser::ValueSource, value_parser};
use humantime::parse_duration;
use secrecy::ExposeSecret;

use super::super::{Error, print};
use crate::{
    shutdown::{Asked, Signals},
    sonzai::stub::{Answers, Options, Stub, options},
};

/// Run a stand-in for Sonzai's API, for tests and for trying things out without an account.
///
/// It keeps what it is told in memory, until it ends. It listens on this machine alone, and delivers
/// webhooks to this machine alone. What it can be told to do, and to do wrong, is in
/// docs/sonzai-stub.md.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost sonzai stub
  waypost sonzai stub --listen 127.0.0.1:0 --key sk_test --agents 100
  waypost sonzai stub --cache 2s --rate 10 --retry-delay 100ms
  curl -H 'authorization: Bearer sk_stub' http://127.0.0.1:9900/api/v1/agents
  curl -H 'content-type: application/json' http://127.0.0.1:9900/-/emit \\
       -d '{\"type\": \"on_wakeup_ready\"}'")]
pub struct Arguments {
    #[command(flatten)]
    listen: Listen,
    /// The API key that is right
    #[arg(long, value_name = "KEY", default_value = options::DEFAULT_KEY)]
    key: String,
    /// The key's project, and the only one there is
    #[arg(long, value_name = "ID", default_value = options::DEFAULT_PROJECT)]
    project: String,
    /// So many agents: agent-1, named `Luna 1`, and so on
    #[arg(long, value_name = "N", default_value_t = 3)]
    agents: usize,
    /// Notifications that each agent has pending at the start
    #[arg(long, value_name = "N", default_value_t = 2)]
    notifications: usize,
    /// Wakeups that each agent has pending at the start, a day ahead
    #[arg(long, value_name = "N", default_value_t = 1)]
    wakeups: usize,
    /// How answers look where the document leaves a choice
    #[arg(long, value_enum, default_value_t)]
    answers: Answers,
    /// Time before a delivery is tried again; doubled each time
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    retry_delay: Duration,
    /// Sign a retry again with a new time, or repeat the first signature
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    resign: bool,
    /// How long a webhook's receiver may take to answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    delivery_timeout: Duration,
    /// With https webhooks, trust the authorities in this PEM file [default: the system's]
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// How long a list of notifications is answered from a cache
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    cache: Duration,
    /// After how long a project notification that nobody took expires [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expire: Option<Duration>,
    /// Requests a second, beyond which they are refused with 429 [default: no limit]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// How often due wakeups are looked for
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    tick: Duration,
}

/// `--listen`, which elsewhere is where webhooks are received: the variable of that one does not count
/// here.
struct Listen(Option<SocketAddr>);

impl clap::FromArgMatches for Listen {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Listen, clap::Error> {
        let mut listen = Listen(None);
        listen.update_from_arg_matches(matches)?;
        Ok(listen)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        if matches.value_source("listen") == Some(ValueSource::CommandLine) {
            self.0 = matches.get_one("listen").copied();
        }
        Ok(())
    }
}

impl clap::Args for Listen {
    fn augment_args(command: clap::Command) -> clap::Command {
        let help =
            "Where it listens, on loopback; port 0 picks a free one [default: 127.0.0.1:9900]";
        let listen = Arg::new("listen").long("listen").value_name("IP:PORT").help(help);
        command.arg(listen.value_parser(value_parser!(SocketAddr)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Listen::augment_args(command)
    }
}

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Options {
        Options {
            listen: arguments.listen.0.unwrap_or(Options::default().listen),
            key: arguments.key.into(),
            project: arguments.project,
            agents: arguments.agents,
            notifications: arguments.notifications,
            wakeups: arguments.wakeups,
            answers: arguments.answers,
            retry_delay: arguments.retry_delay,
            resign: arguments.resign,
            delivery_timeout: arguments.delivery_timeout,
            ca: arguments.cacert,
            cache: arguments.cache,
            expire: arguments.expire,
            rate: arguments.rate,
            tick: arguments.tick,
        }
    }
}

pub fn main(arguments: Arguments) -> Result<ExitCode, Error> {
    let options = Options::from(arguments);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Error::new)?;
    runtime.block_on(run(options))?;
    // What is still under way has nothing left to lose.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn run(options: Options) -> Result<(), Error> {
    let mut signals = Signals::listen().map_err(Error::new)?;
    let key = options.key.clone();
    let project = options.project.clone();
    let stub = Stub::start(options).await.map_err(Error::new)?;
    print(&greeting(stub.url(), key.expose_secret(), &project))?;
    // There is nothing to read again.
    while signals.next().await == Asked::Reload {}
    Ok(())
}

/// The first line is for scripts, the rest for people.
fn greeting(url: &str, key: &str, project: &str) -> String {
    format!(
        "listening on {url}\n\
         \n\
         This is a stand-in for Sonzai's API, not Sonzai: it keeps everything in memory, and delivers\n\
         webhooks to this machine alone. Let clients and SDKs talk to it:\n\
         \n\
         \x20 export SONZAI_BASE_URL={url} SONZAI_API_KEY={key}\n\
         \n\
         Register a webhook, and make it happen:\n\
         \n\
         \x20 curl -X PUT -H 'authorization: Bearer {key}' -H 'content-type: application/json' \\\n\
         \x20      {url}/api/v1/projects/{project}/webhooks/on_wakeup_ready \\\n\
         \x20      -d '{{\"webhook_url\": \"http://127.0.0.1:8080/hooks/sonzai/on_wakeup_ready\"}}'\n\
         \x20 curl -H 'content-type: application/json' {url}/-/emit -d '{{\"type\": \"on_wakeup_ready\"}}'\n\
         \n\
         More is in docs/sonzai-stub.md. Ctrl-C ends it.\n"
    )
}
