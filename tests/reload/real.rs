//! Each real broker's client is changed under load: what was in flight is confirmed by the old one, or
//! sent again by the new one.

use std::time::Duration;

use super::reload;
use crate::common::{
    scene::{SMALL_BYTES, Scene},
    sinks::{self, Addresses},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_each_real_broker_is_changed_under_load() {
    let mut scene = Scene::create("reload-real", Addresses::shared(), &[]).await;
    scene.start_daemon();
    let senders = scene.send(sinks::TO_ALL, SMALL_BYTES, Duration::from_millis(2));
    let routes = scene.sinks.routes();
    for n in 0..4 {
        senders.accept_more(60).await;
        // The same brokers, said otherwise each time.
        let changed: String = routes.lines().map(|line| otherwise(line, n) + "\n").collect();
        assert_ne!(changed, routes);
        reload(scene.daemon(), scene.dir.path(), &changed);
    }
    senders.accept_more(60).await;
    assert_eq!(senders.refused(), 0);
    let accepted = senders.stop().await;
    for (sink, twice) in scene.assert_all_arrived("changed", &accepted).await {
        assert_eq!(twice, 0, "{sink:?}");
    }
    assert!(scene.stop_daemon());
}

/// A broker's line with another way to say where it is.
fn otherwise(line: &str, n: usize) -> String {
    let quoted = line.split('"').nth(1).unwrap_or_default();
    let again = |times| vec![quoted; times].join(",");
    let other = match line {
        _ if line.contains("type: kafka") || line.contains("type: nats") => again(n % 2 + 2),
        _ if line.contains("type: rabbitmq") => format!("{quoted}?heartbeat={}", 20 + n),
        _ => return line.to_owned(),
    };
    line.replace(&format!("\"{quoted}\""), &format!("\"{other}\""))
}
