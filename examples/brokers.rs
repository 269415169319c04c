//! The tests' three brokers, for work by hand: `make brokers`.
//!
//! They run until Ctrl-C and leave nothing behind. Each takes its usual port where that is free, and
//! has what the comments in `routes.yaml` publish to, and take commands from.

#[path = "../tests/common"]
#[allow(dead_code, unused_imports, reason = "the tests do more with them")]
mod common {
    pub mod brokers;
    pub mod consume;
}

use std::{
    io::{BufRead, stdin},
    net::TcpListener,
    process::ExitCode,
    time::Duration,
};

use async_nats::jetstream::stream;
use common::{
    brokers::{Kafka, Nats, RabbitMq, Server},
    consume::{self, Consumed},
};
use tokio::runtime::Runtime;

const HELP: &str = "\
Type `show` to see what arrived, or `kill`, `stop`, `restart`, `pause`, `resume` and a broker's name
(kafka, rabbitmq, nats) to see how waypost takes it. Ctrl-C ends them and removes what they stored.";

/// What the comments in `routes.yaml` publish to, and take commands from.
const TOPICS: [&str; 3] = ["agent.message", "agent.memory", "miibo.conversation"];
const EXCHANGES: [(&str, &str); 2] = [("agents", "message.#"), ("miibo", "call.#")];
const STREAM: &str = "agents";
const COMMANDS: &str = "commands";

fn main() -> ExitCode {
    let started = start().and_then(|brokers| {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        runtime.block_on(create(&brokers));
        Ok((brokers, runtime))
    });
    match started {
        Ok((brokers, runtime)) => serve(brokers, &runtime),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

async fn create(brokers: &Brokers) {
    for topic in TOPICS {
        consume::create_topic(brokers.kafka.bootstrap(), topic, 3, &[]).await;
    }
    for (exchange, binding) in EXCHANGES {
        let arguments = Default::default();
        consume::declare_queue(brokers.rabbitmq.url(), exchange, exchange, binding, arguments)
            .await;
    }
    for name in [STREAM, COMMANDS] {
        let stream = stream::Config {
            name: name.to_owned(),
            subjects: vec![format!("{name}.>")],
            // As long as waypost tries: see docs/brokers.md.
            duplicate_window: Duration::from_secs(600),
            ..Default::default()
        };
        consume::create_stream(brokers.nats.url(), stream).await;
    }
}

/// Prints everything that arrived so far.
async fn show(brokers: &Brokers) {
    for topic in TOPICS {
        print("kafka", "ce_", &consume::read_topic(brokers.kafka.bootstrap(), topic, 0).await);
    }
    for (queue, _) in EXCHANGES {
        let messages = consume::read_queue(brokers.rabbitmq.url(), queue, 0).await;
        print("rabbitmq", "cloudEvents_", &messages);
    }
    print("nats", "ce-", &consume::read_stream(brokers.nats.url(), STREAM, 0).await);
}

fn print(broker: &str, prefix: &str, messages: &[Consumed]) {
    for message in messages {
        let attribute = |name| message.header(&format!("{prefix}{name}")).unwrap_or("-");
        let key = message.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        let body = message.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        println!("{broker} {} {key} {} {}", message.address, attribute("type"), attribute("id"));
        println!("    {body}");
    }
}

struct Brokers {
    kafka: Kafka,
    rabbitmq: RabbitMq,
    nats: Nats,
}

fn start() -> Result<Brokers, String> {
    println!("Starting Kafka, RabbitMQ and NATS …");
    let nats = if is_free(4222) { Nats::start_on(4222)? } else { Nats::start() };
    let kafka = if is_free(9092) { Kafka::start_on(9092)? } else { Kafka::start() };
    let rabbitmq = if is_free(5672) { RabbitMq::start_on(5672)? } else { RabbitMq::start() };
    Ok(Brokers { kafka, rabbitmq, nats })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Obeys what is typed. Ctrl-C ends the process, and the brokers with it.
fn serve(mut brokers: Brokers, runtime: &Runtime) {
    println!("\nFor routes.yaml:\n\nbrokers:");
    println!("  stream: {{ type: kafka, bootstrap: \"{}\" }}", brokers.kafka.bootstrap());
    println!("  tasks:  {{ type: rabbitmq, url: \"{}\" }}", brokers.rabbitmq.url());
    println!("  live:   {{ type: nats, url: \"{}\" }}", brokers.nats.url());
    println!("\n{HELP}");
    for line in stdin().lock().lines().map_while(Result::ok) {
        if line.trim() == "show" {
            runtime.block_on(show(&brokers));
            println!("done");
        } else if obey(&mut brokers, &line).is_some() {
            println!("done");
        } else {
            println!("{HELP}");
        }
    }
    // Nobody types (it runs in the background): serve all the same.
    loop {
        std::thread::park();
    }
}

fn obey(brokers: &mut Brokers, line: &str) -> Option<()> {
    let (command, name) = line.trim().split_once(' ')?;
    let server: &mut Server = match name.trim() {
        "kafka" => &mut brokers.kafka,
        "rabbitmq" => &mut brokers.rabbitmq,
        "nats" => &mut brokers.nats,
        _ => return None,
    };
    match command {
        "kill" => server.kill(),
        "stop" => server.stop(),
        "restart" => server.restart(),
        "pause" => server.pause(),
        "resume" => server.resume(),
        _ => return None,
    }
    Some(())
}
