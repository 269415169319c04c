//! Sends signed webhooks as fast as they are answered, each an event of its own.
//!
//! One thread, no HTTP library: what the load costs is taken from the servers, so it is kept cheap. A
//! request is one buffer of which body and signature are written anew each time.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
    time::timeout,
};
use waypost::signature::{self, Key};

/// The secret that load and servers share.
pub const SECRET: &str = "whsec_benchmark";

/// Where events are posted.
pub const PATH: &str = "/hooks/sonzai/agent.message";

/// How long one answer may take before the run is a failure.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Digits of an event's number in its body.
const NUMBER_DIGITS: usize = 20;

/// When the load ends.
#[derive(Clone, Copy)]
pub enum Until {
    Elapsed(Duration),
    /// So many were acknowledged.
    Acknowledged(u64),
}

/// What was acknowledged.
#[derive(Default)]
pub struct Load {
    pub acknowledged: u64,
    /// Answered otherwise.
    pub refused: u64,
    pub lasted: Duration,
    /// Of each answer, in microseconds, unsorted.
    pub latencies_us: Vec<u32>,
}

/// Numbers that no event had before, for the life of the process.
pub struct Numbers(Cell<u64>);

impl Numbers {
    pub fn new() -> Numbers {
        Numbers(Cell::new(0))
    }

    fn next(&self) -> u64 {
        self.0.replace(self.0.get() + 1)
    }
}

/// Loads `address` over so many connections.
pub async fn load(
    address: SocketAddr,
    connections: usize,
    body_bytes: usize,
    until: Until,
    numbers: &Rc<Numbers>,
) -> Load {
    let started = Instant::now();
    let left = Rc::new(Cell::new(match until {
        Until::Elapsed(_) => u64::MAX,
        Until::Acknowledged(count) => count,
    }));
    let ends = match until {
        Until::Elapsed(lasting) => Some(started + lasting),
        Until::Acknowledged(_) => None,
    };
    let local = LocalSet::new();
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (left, numbers) = (left.clone(), numbers.clone());
            local.spawn_local(async move {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                let mut request = Request::new(body_bytes);
                let mut load = Load::default();
                while left.get() > 0 && ends.is_none_or(|ends| Instant::now() < ends) {
                    left.set(left.get() - 1);
                    let sent = Instant::now();
                    let status = request.send(&mut stream, numbers.next()).await;
                    if status == 200 {
                        load.acknowledged += 1;
                        load.latencies_us.push(sent.elapsed().as_micros() as u32);
                    } else {
                        load.refused += 1;
                        left.set(left.get().saturating_add(1));
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                load
            })
        })
        .collect();
    let mut all = Load::default();
    local
        .run_until(async {
            for task in tasks {
                let load = task.await.expect("a connection of the load");
                all.acknowledged += load.acknowledged;
                all.refused += load.refused;
                all.latencies_us.extend(load.latencies_us);
            }
        })
        .await;
    all.lasted = started.elapsed();
    all
}

/// A request that is written again and again.
struct Request {
    key: Key,
    bytes: Vec<u8>,
    signature_at: usize,
    number_at: usize,
    body_at: usize,
    answer: Vec<u8>,
}

impl Request {
    fn new(body_bytes: usize) -> Request {
        let start = r#"{"event_type":"agent.message","agent_id":"agent_7f3a","user_id":"user_19","number":""#;
        let between = r#"","text":""#;
        let number = "0".repeat(NUMBER_DIGITS);
        let filled = start.len() + NUMBER_DIGITS + between.len() + 2;
        let text = "x".repeat(body_bytes.saturating_sub(filled));
        let body = format!("{start}{number}{between}{text}\"}}");
        let key = signature::sonzai::key(SECRET).expect("a key");
        let signature = signature::sonzai::sign(&key, body.as_bytes(), now_s());
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: load\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nsonzai-signature: ",
            body.len()
        );
        let signature_at = head.len();
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(signature.as_bytes());
        bytes.extend_from_slice(b"\r\n\r\n");
        let body_at = bytes.len();
        bytes.extend_from_slice(body.as_bytes());
        let number_at = body_at + start.len();
        Request { key, bytes, signature_at, number_at, body_at, answer: Vec::with_capacity(1024) }
    }

    /// Sends the event of this number; the status of its answer.
    async fn send(&mut self, stream: &mut TcpStream, number: u64) -> u16 {
        let digits = format!("{number:0NUMBER_DIGITS$}");
        self.bytes[self.number_at..self.number_at + NUMBER_DIGITS]
            .copy_from_slice(digits.as_bytes());
        let signature = signature::sonzai::sign(&self.key, &self.bytes[self.body_at..], now_s());
        self.bytes[self.signature_at..self.signature_at + signature.len()]
            .copy_from_slice(signature.as_bytes());
        let answered = timeout(ANSWER_WITHIN, async {
            stream.write_all(&self.bytes).await?;
            read_answer(stream, &mut self.answer).await
        });
        answered.await.expect("an answer in time").expect("an answer")
    }
}

/// Reads one whole answer; its status.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> std::io::Result<u16> {
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(head_len) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&answer[..head_len]).expect("a head of text");
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        let body_len: usize = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, len)| len.trim().parse().ok())
            .expect("a content-length");
        while answer.len() < head_len + 4 + body_len {
            stream.read_buf(answer).await?;
        }
        return Ok(status);
    }
}

fn now_s() -> u64 {
    waypost::clock::now_ms() / 1000
}
