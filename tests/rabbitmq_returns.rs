//! RabbitMQ returns a message that no queue takes, and then acknowledges it like any other. The
//! client library hands a return to whichever confirmation resolves next, so under load some
//! confirmations carry the return of another message. Here every verdict on thousands of messages
//! is compared with what the queue really holds.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{
    Connection, ConnectionProperties, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use waypost::{
    broker::{
        Broker, Error, Publication,
        rabbitmq::{RabbitMq, Settings},
    },
    event::{Address, Event},
};

use crate::common::{consume, shared::Brokers};

/// Enough for tens of returns to go astray.
const MESSAGES: usize = 4_000;

/// How messages are published to which kind of queue.
struct Load {
    /// Of the exchange, the queue and the key that binds it.
    name: &'static str,
    /// A quorum queue, or else a classic one that writes nothing to disk.
    quorum: bool,
    in_flight: usize,
    /// One message in so many goes where nothing is bound.
    unroutable_every: usize,
}

/// A return goes astray where one acknowledgement covers its message and others: a classic queue's
/// confirmations come often enough for that, a quorum queue's do while few messages are in flight.
const LOADS: [Load; 4] = [
    Load { name: "returns-classic", quorum: false, in_flight: 700, unroutable_every: 7 },
    Load { name: "returns-classic-half", quorum: false, in_flight: 700, unroutable_every: 2 },
    Load { name: "returns-quorum", quorum: true, in_flight: 700, unroutable_every: 7 },
    Load { name: "returns-quorum-half", quorum: true, in_flight: 16, unroutable_every: 2 },
];

#[tokio::test(flavor = "multi_thread")]
async fn no_unroutable_message_is_reported_confirmed_and_no_good_one_blamed() {
    let url = Brokers::shared().rabbitmq.url();
    for load in LOADS {
        load.declare(url).await;
        let (confirmed, refused) = load.publish(url).await;
        let unroutable = MESSAGES / load.unroutable_every;
        let queued = consume::read_queue(url, load.name, MESSAGES - unroutable).await;

        let name = load.name;
        let held: BTreeSet<String> =
            queued.iter().filter_map(|message| Some(message.event_id()?.to_owned())).collect();
        let lost: Vec<_> = confirmed.difference(&held).collect();
        assert!(lost.is_empty(), "{name}: confirmed, though the queue does not hold it: {lost:?}");
        let blamed: Vec<_> = refused.intersection(&held).collect();
        assert!(blamed.is_empty(), "{name}: refused, though the queue holds it: {blamed:?}");
        assert_eq!(queued.len(), held.len(), "{name}: published twice");
        assert_eq!((held.len(), refused.len()), (MESSAGES - unroutable, unroutable), "{name}");
    }
}

impl Load {
    async fn declare(&self, url: &str) {
        let connection = Connection::connect(url, ConnectionProperties::default());
        let connection = connection.await.expect("a connection to rabbitmq");
        let channel = connection.create_channel().await.expect("a channel");
        let (name, nothing) = (self.name, FieldTable::default);
        let mut arguments = nothing();
        let kind = if self.quorum { "quorum" } else { "classic" };
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let options = QueueDeclareOptions { durable: self.quorum, ..Default::default() };
        channel.queue_declare(name.into(), options, arguments).await.expect("the queue");
        let options = ExchangeDeclareOptions::default();
        let declared =
            channel.exchange_declare(name.into(), ExchangeKind::Direct, options, nothing());
        declared.await.expect("the exchange");
        let options = QueueBindOptions::default();
        let bound = channel.queue_bind(name.into(), name.into(), name.into(), options, nothing());
        bound.await.expect("the binding");
    }

    /// The ids of those that were reported confirmed and refused.
    async fn publish(&self, url: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut broker = RabbitMq::new(Settings { url: url.into(), login: None, tls: None })
            .expect("a valid url");
        broker.connect().await.expect("a connection to rabbitmq");
        let (mut confirmed, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let mut in_flight = FuturesUnordered::new();
        for number in 0..MESSAGES {
            let id = number.to_string();
            let confirmation =
                broker.publish(&self.publication(number)).await.expect("the message taken");
            in_flight.push(async move { (id, confirmation.await) });
            let last = number + 1 == MESSAGES;
            while in_flight.len() >= self.in_flight || (last && !in_flight.is_empty()) {
                let Some((id, verdict)) = in_flight.next().await else { break };
                match verdict {
                    Ok(()) => confirmed.insert(id),
                    Err(Error::Refused(_)) => refused.insert(id),
                    Err(error) => panic!("{}: no verdict on message {id}: {error}", self.name),
                };
            }
        }
        broker.close(Duration::from_secs(10)).await;
        (confirmed, refused)
    }

    fn publication(&self, number: usize) -> Publication {
        let routable = !(number + 1).is_multiple_of(self.unroutable_every);
        let routing_key = if routable { self.name } else { "nobody" };
        let event = Event {
            id: number.to_string().into(),
            source: "test".into(),
            kind: "agent.message".into(),
            subject: None,
            time_ms: 1_700_000_000_000,
            content_type: None,
            traceparent: None,
            extensions: Vec::new(),
            headers: Vec::new(),
            body: "{}".into(),
        };
        let address =
            Address::Exchange { exchange: self.name.into(), routing_key: routing_key.into() };
        Publication::binary(Arc::new(event), address)
    }
}
