//! A client that says exactly what it is told to, byte for byte, and reads what comes back.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::sender::Webhook;

/// How long an answer, or the end of a connection, may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a connection runs over: a socket, or TLS on one.
pub trait Wire: Read + Write + Send {}

impl<W: Read + Write + Send> Wire for W {}

/// How a connection may end out of order.
const ENDS: [io::ErrorKind; 2] = [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];

/// One connection.
pub struct Raw {
    wire: Box<dyn Wire>,
    unread: Vec<u8>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Raw {
        Raw::try_connect(address).expect("a connection")
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Raw> {
        Ok(Raw::over(socket(address)?))
    }

    /// Over something else than a plain socket.
    pub fn over(wire: impl Wire + 'static) -> Raw {
        Raw { wire: Box::new(wire), unread: Vec::new() }
    }

    #[track_caller]
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_say(bytes).expect("to write");
    }

    /// Fails once the other side is known to have closed.
    pub fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.write_all(bytes.as_ref())?;
        self.wire.flush()
    }

    /// Says a whole request and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.say(request);
        self.hear().expect("an answer")
    }

    /// The status of a whole request; `None` from a server that would not hear it.
    #[track_caller]
    pub fn try_ask(&mut self, request: impl AsRef<[u8]>) -> Option<u16> {
        self.try_say(request).ok()?;
        self.hear().map(|answer| answer.status)
    }

    /// The next answer; `None` if the connection ends instead.
    #[track_caller]
    pub fn hear(&mut self) -> Option<Answer> {
        let head_len = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read() {
                assert!(self.unread.is_empty(), "half an answer");
                return None;
            }
        };
        let head: Vec<u8> = self.unread.drain(..head_len).collect();
        let head = String::from_utf8(head).expect("a head in ASCII");
        let mut lines = head.trim_end().lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let mut answer = Answer {
            status: status.parse().expect("a number"),
            headers: lines.map(header).collect(),
            body: String::new(),
        };
        let body_len = answer.header("content-length").map_or(0, |len| len.parse().expect("bytes"));
        while self.unread.len() < body_len {
            assert!(self.read(), "half a body");
        }
        let body = self.unread.drain(..body_len).collect();
        answer.body = String::from_utf8(body).expect("a body in UTF-8");
        Some(answer)
    }

    /// All that comes until the other side closes.
    #[track_caller]
    pub fn everything(&mut self) -> String {
        while self.read() {}
        String::from_utf8(std::mem::take(&mut self.unread)).expect("text in UTF-8")
    }

    /// The next so many bytes; `None` if the connection ends before.
    #[track_caller]
    pub fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.unread.len() < len {
            if !self.read() {
                return None;
            }
        }
        Some(self.unread.drain(..len).collect())
    }

    /// Waits until the other side closes, without another word.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        assert_eq!(self.hear(), None);
    }

    /// More of what comes; false at the end, in order or not.
    #[track_caller]
    fn read(&mut self) -> bool {
        let mut some = [0; 4096];
        match self.wire.read(&mut some) {
            Ok(len) => {
                self.unread.extend_from_slice(&some[..len]);
                len > 0
            }
            // TLS that ends without a farewell is an end too.
            Err(error) if ENDS.contains(&error.kind()) => false,
            Err(error) => panic!("neither an answer nor the end: {error}"),
        }
    }
}

/// A socket that is patient with a busy machine.
pub fn socket(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The whole request.
pub fn request(webhook: &Webhook) -> Vec<u8> {
    let mut bytes = head(webhook, &[&format!("content-length: {}", webhook.body.len())]);
    bytes.extend_from_slice(&webhook.body);
    bytes
}

/// The head alone; `further` are header lines, one of which says how the body comes.
pub fn head(webhook: &Webhook, further: &[&str]) -> Vec<u8> {
    let mut text = format!("POST {} HTTP/1.1\r\nhost: waypost.test\r\n", webhook.path);
    for (name, value) in &webhook.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    for line in further {
        text.push_str(&format!("{line}\r\n"));
    }
    (text + "\r\n").into_bytes()
}
