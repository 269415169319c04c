//! RabbitMQ's memory alarm: the broker is there, and takes nothing until the alarm has ended.

use std::{fs, time::Duration};

use tokio::time::sleep;

use crate::common::{
    brokers::RabbitMq,
    sinks::{Addresses, Sink},
    ward::Ward,
};

/// Longer than a message may otherwise wait for its confirmation.
const ALARM: Duration = Duration::from_secs(35);

const PAUSE: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_is_waited_out_on_the_same_connection_and_told_once() {
    let rabbitmq = RabbitMq::start();
    let brokers = Addresses { rabbitmq: rabbitmq.url().to_owned(), ..Addresses::shared() };
    let mut ward =
        Ward::open("alarm", Sink::RabbitMq, brokers.clone(), brokers.clone(), PAUSE).await;
    ward.healthy().await;
    rabbitmq.alarm(true);
    let noticed = ward.noticed(1);
    let lasts = async {
        noticed.await;
        sleep(ALARM).await;
    };
    ward.sick(lasts).await;
    rabbitmq.alarm(false);
    ward.cured().await;
    let log = fs::read_to_string(ward.scene.log_file()).expect("the log");
    let told = "the broker blocks publishing (low on memory)";
    assert!(log.lines().any(|line| line.contains("broker=tasks") && line.contains(told)), "{log}");
    // Nothing was lost sight of, so nothing comes twice: there was no other connection.
    assert_eq!(ward.close(0).await, 1);
}

/// A hold has no end if its connection has: nothing need be in flight that would show it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_during_its_alarm_gets_everything_once_it_is_back() {
    let mut rabbitmq = RabbitMq::start();
    let brokers = Addresses { rabbitmq: rabbitmq.url().to_owned(), ..Addresses::shared() };
    let mut ward =
        Ward::open("killed-in-alarm", Sink::RabbitMq, brokers.clone(), brokers, PAUSE).await;
    ward.healthy().await;
    rabbitmq.alarm(true);
    let noticed = ward.noticed(1);
    let killed = async {
        noticed.await;
        rabbitmq.kill();
    };
    ward.sick(killed).await;
    // An alarm's limit does not outlive the node.
    rabbitmq.restart();
    ward.cured().await;
    assert_eq!(ward.close(1).await, 1);
}
