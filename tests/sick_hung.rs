//! Brokers that hang (SIGSTOP): their connections stay open, and nothing answers. For half a minute,
//! and for longer than every timeout of their client.

use std::time::Duration;

use tokio::time::sleep;

use crate::common::{
    brokers::{Kafka, Nats, RabbitMq, Server},
    sinks::{Addresses, Sink},
    variable::number,
    ward::Ward,
};

/// Longer than a restart takes, shorter than some timeouts.
const SHORT: Duration = Duration::from_secs(30);

/// Longer than any timeout of any client: Kafka's are the longest, 45 s for a delivery report.
/// `WAYPOST_HANG_SECONDS` raises it.
const LONG_SECONDS: u64 = 50;

/// After each answer: the load lasts for minutes.
const PAUSE: Duration = Duration::from_millis(200);

/// All three at the same time, each with a daemon of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_broker_that_hangs_holds_up_no_other_and_gets_everything_once_it_goes_on() {
    let kafka = async {
        let mut kafka = Kafka::start();
        let brokers = Addresses { kafka: kafka.bootstrap().to_owned(), ..Addresses::shared() };
        hang("hung-kafka", Sink::Kafka, brokers, &mut kafka).await;
    };
    let rabbitmq = async {
        let mut rabbitmq = RabbitMq::start();
        let brokers = Addresses { rabbitmq: rabbitmq.url().to_owned(), ..Addresses::shared() };
        hang("hung-rabbitmq", Sink::RabbitMq, brokers, &mut rabbitmq).await;
    };
    let nats = async {
        let mut nats = Nats::start();
        let brokers = Addresses { nats: nats.url().to_owned(), ..Addresses::shared() };
        hang("hung-nats", Sink::Nats, brokers, &mut nats).await;
    };
    tokio::join!(kafka, rabbitmq, nats);
}

async fn hang(name: &str, patient: Sink, brokers: Addresses, server: &mut Server) {
    let mut ward = Ward::open(name, patient, brokers.clone(), brokers, PAUSE).await;
    let long = Duration::from_secs(number("WAYPOST_HANG_SECONDS", LONG_SECONDS));
    let mut short = 0;
    for lasts in [SHORT, long] {
        short = ward.troubles();
        ward.healthy().await;
        server.pause();
        ward.sick(sleep(lasts)).await;
        server.resume();
        ward.cured().await;
    }
    let troubles = ward.close(2).await;
    assert_eq!(troubles, short + 1, "{patient:?}: each trouble is told once");
}
