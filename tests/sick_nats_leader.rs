//! A NATS cluster whose leaders go: the stream's, the cluster's, and one that is told to step down.
//! What a stream without a leader does not take waits, in order.

use std::time::Duration;

use async_nats::jetstream;

use crate::common::{
    brokers::NatsCluster,
    scene::Scene,
    sinks::{Addresses, Sink, Sinks},
    ward::{WINDOW, Ward},
};

/// How long a stream may be without a leader before it has the next one.
const ELECTED_WITHIN: Duration = Duration::from_secs(60);

const STREAM: &str = "leader-gone";

/// Of these, those that kill a server end its connections, and may lose sight of a window.
const FAULTS: usize = 3;

const PAUSE: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_stream_whose_leader_goes_gets_everything_once_it_has_another() {
    let mut cluster = NatsCluster::start();
    let dir = tempfile::tempdir().expect("a directory");
    let brokers = Addresses { nats: cluster.url_of_one(), ..Addresses::shared() };
    let mut sinks = Sinks::replicated(STREAM, brokers, dir.path(), 3).await;
    sinks.daemon_s.nats = cluster.url();
    let window = WINDOW.to_string();
    let settings = [("WAYPOST_DISPATCH__WINDOW_MESSAGES", &*window)];
    let mut ward = Ward::around(Scene::around(dir, sinks, &settings), Sink::Nats, PAUSE);

    // Told to step down, it hands over at once.
    ward.healthy().await;
    let before = leader(&cluster).await;
    step_down(&cluster).await;
    ward.sick(async { assert_ne!(leader(&cluster).await, before) }).await;
    ward.cured().await;

    // Killed, it takes nothing with it; and where the daemon was connected to it, it connects to
    // another.
    for whose in ["the stream's", "the cluster's"] {
        ward.healthy().await;
        let victim = match whose {
            "the stream's" => cluster.named(&leader(&cluster).await),
            _ => cluster.meta_leader(),
        };
        cluster.kill(victim);
        ward.scene.sinks.read_from_nats(cluster.url_of_one());
        ward.sick(async { assert_ne!(cluster.named(&leader(&cluster).await), victim) }).await;
        cluster.restart(victim);
        ward.cured().await;
    }
    ward.close(FAULTS).await;
}

/// The name of the server that leads the stream; waits until one does that runs.
async fn leader(cluster: &NatsCluster) -> String {
    let find = async {
        loop {
            if let Ok(leader) = ask_for_leader(cluster).await {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(ELECTED_WITHIN, find).await.expect("a leader of the stream")
}

async fn ask_for_leader(cluster: &NatsCluster) -> Result<String, String> {
    let client = async_nats::connect(cluster.url_of_one()).await.map_err(|e| e.to_string())?;
    let mut stream = jetstream::new(client).get_stream(STREAM).await.map_err(|e| e.to_string())?;
    let info = stream.info().await.map_err(|e| e.to_string())?;
    let leader = info.cluster.as_ref().and_then(|cluster| cluster.leader.clone());
    let leader = leader.filter(|leader| !leader.is_empty()).ok_or("none")?;
    if cluster.is_up(cluster.named(&leader)) { Ok(leader) } else { Err("it is gone".to_owned()) }
}

async fn step_down(cluster: &NatsCluster) {
    let client = async_nats::connect(cluster.url_of_one()).await.expect("a connection");
    let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}");
    let answer = client.request(subject, "".into()).await.expect("an answer");
    let json: serde_json::Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(json["success"], true, "{json}");
}
