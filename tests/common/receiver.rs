//! A receiver of webhooks that keeps what it got and answers as it is told.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{self, Receiver as Inbox, Sender},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// How long a delivery that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came.
#[derive(Debug)]
pub struct Delivery {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Listens until the process ends.
pub struct Receiver {
    pub address: SocketAddr,
    inbox: Inbox<Delivery>,
}

impl Receiver {
    /// Answers with these statuses in turn, then always with the last.
    pub fn start(statuses: &[u16]) -> Receiver {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let (sender, inbox) = mpsc::channel();
        let statuses = statuses.to_vec();
        std::thread::spawn(move || serve(&listener, &statuses, &sender));
        Receiver { address, inbox }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    /// The next delivery.
    #[track_caller]
    pub fn next(&self) -> Delivery {
        self.inbox.recv_timeout(PATIENCE).expect("a delivery")
    }

    /// Those that came meanwhile.
    pub fn rest(&self) -> Vec<Delivery> {
        self.inbox.try_iter().collect()
    }
}

/// One request a connection, until nobody wants to know any more.
fn serve(listener: &TcpListener, statuses: &[u16], inbox: &Sender<Delivery>) {
    for (index, stream) in listener.incoming().enumerate() {
        let status = statuses.get(index).or(statuses.last()).expect("a status");
        let Ok(mut stream) = stream else { return };
        let Some(delivery) = read(&stream) else { continue };
        if inbox.send(delivery).is_err() {
            return;
        }
        let answer =
            format!("HTTP/1.1 {status} Told\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        // A sender that went away has no use for it.
        stream.write_all(answer.as_bytes()).ok();
    }
}

fn read(stream: &TcpStream) -> Option<Delivery> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HeaderMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value).ok()?);
    }
    let len = headers.get("content-length")?.to_str().ok()?.parse().ok()?;
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Delivery { path, headers, body })
}
