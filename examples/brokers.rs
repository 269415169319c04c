//! The tests' three brokers, for work by hand: `make brokers`.
//!
//! They run until Ctrl-C and leave nothing behind. Each takes its usual port where that is free.

#[path = "../tests/common"]
mod common {
    pub mod brokers;
}

use std::{
    io::{BufRead, stdin},
    net::TcpListener,
    process::ExitCode,
};

use common::brokers::{Kafka, Nats, RabbitMq, Server};

const HELP: &str = "\
Type `kill`, `stop`, `restart`, `pause` or `resume` and a broker's name (kafka, rabbitmq, nats)
to see how waypost takes it. Ctrl-C ends them and removes what they stored.";

fn main() -> ExitCode {
    match start() {
        Ok(brokers) => serve(brokers),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
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
fn serve(mut brokers: Brokers) {
    println!("\nFor routes.yaml:\n\nbrokers:");
    println!("  stream: {{ type: kafka, bootstrap: \"{}\" }}", brokers.kafka.bootstrap());
    println!("  tasks:  {{ type: rabbitmq, url: \"{}\" }}", brokers.rabbitmq.url());
    println!("  live:   {{ type: nats, url: \"{}\" }}", brokers.nats.url());
    println!("\n{HELP}");
    for line in stdin().lock().lines().map_while(Result::ok) {
        match obey(&mut brokers, &line) {
            Some(done) => println!("{done}"),
            None => println!("{HELP}"),
        }
    }
    // Nobody types (it runs in the background): serve all the same.
    loop {
        std::thread::park();
    }
}

fn obey(brokers: &mut Brokers, line: &str) -> Option<&'static str> {
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
    Some("done")
}
