//! A provider: signs events as Sonzai and miibo do, and posts them over connections it keeps.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use waypost::signature;

use super::daemon::{MIIBO_SECRET, SONZAI_SECRET};

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A signed request.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub event_id: Option<String>,
    pub retry_after: Option<String>,
    pub body: Bytes,
}

/// Sonzai's request for an event of this type, signed now.
pub fn sonzai(event_type: &str, body: impl Into<Bytes>) -> Webhook {
    sonzai_at(event_type, body, now_s())
}

/// The same, signed at a given time.
pub fn sonzai_at(event_type: &str, body: impl Into<Bytes>, timestamp_s: u64) -> Webhook {
    let body = body.into();
    let key = signature::sonzai::key(SONZAI_SECRET).expect("a key");
    let value = signature::sonzai::sign(&key, &body, timestamp_s);
    Webhook {
        path: format!("/hooks/sonzai/{event_type}"),
        headers: vec![("Sonzai-Signature".to_owned(), value), json()],
        body,
    }
}

/// miibo's request.
pub fn miibo(body: impl Into<Bytes>) -> Webhook {
    let body = body.into();
    let key = signature::miibo::key(MIIBO_SECRET).expect("a key");
    let value = signature::miibo::sign(&key, &body);
    Webhook {
        path: "/hooks/miibo".to_owned(),
        headers: vec![("X-HMAC".to_owned(), value), json()],
        body,
    }
}

fn json() -> (String, String) {
    ("content-type".to_owned(), "application/json".to_owned())
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// One kept connection.
pub struct Sender(SendRequest<Full<Bytes>>);

impl Sender {
    pub async fn connect(address: SocketAddr) -> Result<Sender, String> {
        let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(Sender(sender))
    }

    /// Posts; an error is an outcome that the sender cannot know.
    pub async fn post(&mut self, webhook: &Webhook) -> Result<Answer, String> {
        let mut request = Request::post(&webhook.path).header("host", "waypost.test");
        for (name, value) in &webhook.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(webhook.body.clone())).expect("a request");
        timeout(ANSWER_WITHIN, async {
            self.0.ready().await.map_err(|e| e.to_string())?;
            let response = self.0.send_request(request).await.map_err(|e| e.to_string())?;
            let (head, body) = response.into_parts();
            let header = |name| head.headers.get(name)?.to_str().ok().map(str::to_owned);
            Ok(Answer {
                status: head.status,
                event_id: header("waypost-event-id"),
                retry_after: header("retry-after"),
                body: body.collect().await.map_err(|e: hyper::Error| e.to_string())?.to_bytes(),
            })
        })
        .await
        .map_err(|_| "no answer in time".to_owned())?
    }
}

/// Posts one webhook on a connection of its own.
pub async fn post(address: SocketAddr, webhook: &Webhook) -> Result<Answer, String> {
    Sender::connect(address).await?.post(webhook).await
}

/// Events sent as fast as they are answered, over several connections, until stopped. What was
/// answered 2xx is in the ledger, which the daemon never sees.
pub struct Load {
    running: Arc<AtomicBool>,
    ledger: Arc<Mutex<Vec<String>>>,
    refused: Arc<AtomicU64>,
    unanswered: Arc<AtomicU64>,
    connections: Vec<JoinHandle<()>>,
}

impl Load {
    /// `webhook` makes the n-th event; each must be an event of its own. `address` is asked anew for
    /// every connection, so that a daemon that was started again is found.
    pub fn start(
        connections: usize,
        address: Arc<Mutex<SocketAddr>>,
        webhook: impl Fn(u64) -> Webhook + Send + Sync + 'static,
    ) -> Load {
        Load::start_paced(connections, address, Duration::ZERO, webhook)
    }

    /// The same, with a pause after each answer: for a load that brokers keep up with.
    pub fn start_paced(
        connections: usize,
        address: Arc<Mutex<SocketAddr>>,
        pause: Duration,
        webhook: impl Fn(u64) -> Webhook + Send + Sync + 'static,
    ) -> Load {
        let running = Arc::new(AtomicBool::new(true));
        let (ledger, refused) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicU64>::default());
        let unanswered = Arc::<AtomicU64>::default();
        let (next, webhook) = (Arc::<AtomicU64>::default(), Arc::new(webhook));
        let connections = (0..connections).map(|_| {
            let (running, ledger, refused) = (running.clone(), ledger.clone(), refused.clone());
            let (next, webhook, address) = (next.clone(), webhook.clone(), address.clone());
            let unanswered = unanswered.clone();
            tokio::spawn(async move {
                while running.load(Ordering::Relaxed) {
                    let address = *address.lock().expect("the address");
                    let Ok(mut sender) = Sender::connect(address).await else {
                        unanswered.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    while running.load(Ordering::Relaxed) {
                        let event = webhook(next.fetch_add(1, Ordering::Relaxed));
                        let Ok(answer) = sender.post(&event).await else {
                            unanswered.fetch_add(1, Ordering::Relaxed);
                            break;
                        };
                        if answer.status.is_success() {
                            let id = answer.event_id.expect("an accepted event has an id");
                            ledger.lock().expect("the ledger").push(id);
                            tokio::time::sleep(pause).await;
                        } else {
                            refused.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
            })
        });
        let connections = connections.collect();
        Load { running, ledger, refused, unanswered, connections }
    }

    /// How many were answered 2xx so far.
    pub fn accepted(&self) -> usize {
        self.ledger.lock().expect("the ledger").len()
    }

    /// The ids of all that was answered 2xx so far, in the order of the answers.
    pub fn ledger(&self) -> Vec<String> {
        self.ledger.lock().expect("the ledger").clone()
    }

    /// How many were answered otherwise so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many connections and requests came to nothing so far: the outcome is not known.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Waits until this many more were accepted.
    pub async fn accept_more(&self, count: usize) {
        let (target, started) = (self.accepted() + count, std::time::Instant::now());
        while self.accepted() < target {
            assert!(started.elapsed() < Duration::from_secs(120), "the load does not get through");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops, and hands over the ids of all that was answered 2xx.
    pub async fn stop(self) -> Vec<String> {
        self.running.store(false, Ordering::Relaxed);
        for connection in self.connections {
            connection.await.expect("a connection of the load");
        }
        std::mem::take(&mut *self.ledger.lock().expect("the ledger"))
    }
}
