//! A sick connection between the daemon and a healthy broker: slow, lossy, cut off, reset, or leading
//! nowhere.

use std::{net::SocketAddr, time::Duration};

use crate::common::{
    proxy::{Proxy, Sickness},
    shared::Brokers,
    sinks::{Addresses, Sink},
    variable::number,
    ward::Ward,
};

/// How often each sickness befalls each way; `WAYPOST_SICK_ROUNDS` raises it.
const ROUNDS: u64 = 1;

/// How long a sickness lasts that the daemon need not notice; `WAYPOST_SICK_SECONDS` raises it.
const SECONDS: u64 = 3;

/// After each answer.
const PAUSE: Duration = Duration::from_millis(200);

/// All three at the same time, each with a daemon of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sick_connection_to_a_broker_holds_up_no_other_and_loses_nothing() {
    let brokers = Brokers::shared();
    let kafka = async {
        let behind = brokers.kafka.behind_proxy();
        let proxy = Proxy::start(behind.proxy, local(behind.broker)).await;
        let kafka = proxy.address().to_string();
        let through = Addresses { kafka, ..Addresses::shared() };
        fall_ill("ill-kafka", Sink::Kafka, through, proxy).await;
    };
    let rabbitmq = async {
        let direct = brokers.rabbitmq.url();
        let proxy = Proxy::start(0, local(port(direct))).await;
        let rabbitmq = behind(direct, &proxy);
        let through = Addresses { rabbitmq, ..Addresses::shared() };
        fall_ill("ill-rabbitmq", Sink::RabbitMq, through, proxy).await;
    };
    let nats = async {
        let direct = brokers.nats.url();
        let proxy = Proxy::start(0, local(port(direct))).await;
        let nats = behind(direct, &proxy);
        let through = Addresses { nats, ..Addresses::shared() };
        fall_ill("ill-nats", Sink::Nats, through, proxy).await;
    };
    tokio::join!(kafka, rabbitmq, nats);
}

async fn fall_ill(name: &str, patient: Sink, through: Addresses, proxy: Proxy) {
    let mut ward = Ward::open(name, patient, Addresses::shared(), through, PAUSE).await;
    let rounds = number("WAYPOST_SICK_ROUNDS", ROUNDS);
    let a_while = Duration::from_secs(number("WAYPOST_SICK_SECONDS", SECONDS));
    for sickness in (0..rounds).flat_map(|_| Sickness::ALL) {
        ward.healthy().await;
        let troubles = ward.troubles();
        proxy.sicken(sickness);
        match sickness {
            // Nothing comes through: the daemon notices.
            Sickness::HalfOpen | Sickness::Swallow => {
                let noticed = ward.noticed(troubles + 1);
                ward.sick(noticed).await;
            }
            _ => ward.sick(tokio::time::sleep(a_while)).await,
        }
        proxy.cure();
        ward.cured().await;
    }
    // Each connection that it published on may have ended with a window in flight.
    let connections = ward.connections();
    ward.close(connections).await;
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn port(url: &str) -> u16 {
    let digits = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    url.rsplit(':').next().and_then(digits).expect("a port")
}

/// The broker's url as it is seen through the proxy.
fn behind(url: &str, proxy: &Proxy) -> String {
    url.replace(&port(url).to_string(), &proxy.address().port().to_string())
}
