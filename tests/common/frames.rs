//! A client that speaks HTTP/2 frame by frame (RFC 9113), so that it can also speak it wrongly.

use std::net::SocketAddr;

use super::{raw::Raw, sender::Webhook};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// SETTINGS_HEADER_TABLE_SIZE = 0: the server's header blocks then refer to no earlier ones.
const NO_TABLE: &[u8] = &[0, 1, 0, 0, 0, 0];

/// Frame types.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Error codes.
pub const PROTOCOL_ERROR: u32 = 1;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM, or of a GOAWAY, where it follows the last stream's number.
    fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// How a stream, or its connection, was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    Reset(u32),
    /// The whole connection was told to go away, for an error.
    GoAway(u32),
    /// It ended without a word.
    Closed,
}

/// One connection.
pub struct Http2 {
    raw: Raw,
    /// Whether SETTINGS and PINGs are answered, as they must be.
    pub polite: bool,
    /// Streams that were answered before they were asked about.
    answered: Vec<(u32, Answer)>,
    /// Whether the server has said that it takes no further streams.
    pub going_away: bool,
}

impl Http2 {
    /// Connects and says what every connection begins with.
    pub fn connect(address: SocketAddr) -> Http2 {
        let mut connection = Http2::over(Raw::connect(address));
        connection.say(opening());
        connection
    }

    /// Says nothing yet.
    pub fn over(raw: Raw) -> Http2 {
        Http2 { raw, polite: true, answered: Vec::new(), going_away: false }
    }

    #[track_caller]
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.raw.say(bytes);
    }

    /// Fails once the other side is known to have closed.
    pub fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.raw.try_say(bytes)
    }

    /// The next frame; `None` at the end.
    #[track_caller]
    pub fn next(&mut self) -> Option<Frame> {
        let head = self.raw.take(9)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.raw.take(len)?;
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if self.polite && frame.flags & ACK == 0 && [SETTINGS, PING].contains(&frame.kind) {
            let payload = if frame.kind == PING { &frame.payload[..] } else { b"" };
            // A server that has closed needs no answer any more.
            self.raw.try_say(self::frame(frame.kind, ACK, 0, payload)).ok();
        }
        self.going_away |= frame.kind == GOAWAY;
        Some(frame)
    }

    /// Sends a whole request on a stream and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, stream: u32, request: impl AsRef<[u8]>) -> Answer {
        self.say(request);
        self.answer(stream)
    }

    /// How a stream is answered; its connection's end counts too.
    #[track_caller]
    pub fn answer(&mut self, stream: u32) -> Answer {
        loop {
            if let Some(at) = self.answered.iter().position(|(number, _)| *number == stream) {
                return self.answered.swap_remove(at).1;
            }
            let Some(frame) = self.next() else { return Answer::Closed };
            match frame.kind {
                HEADERS => {
                    let status = Answer::Status(status(&frame.payload));
                    self.answered.push((frame.stream, status));
                }
                // After an answer this only says that the rest of the request is not wanted.
                RST_STREAM => self.answered.push((frame.stream, Answer::Reset(frame.code()))),
                GOAWAY if frame.code() != 0 => return Answer::GoAway(frame.code()),
                _ => {}
            }
        }
    }

    /// Waits for the end of the connection; the error code that it was closed with, if any.
    #[track_caller]
    pub fn closed(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }
}

/// The preface and the SETTINGS after it.
pub fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, NO_TABLE)].concat()
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A request's fields, the pseudo ones first.
pub type Fields = Vec<(String, String)>;

/// The fields of a webhook's request.
pub fn fields(webhook: &Webhook) -> Fields {
    let pseudo = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "waypost.test"),
        (":path", &webhook.path),
    ];
    let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    pseudo.into_iter().chain(webhook.headers.iter().map(lower)).collect()
}

/// A whole request: HEADERS, and DATA in frames of at most 16 KiB.
pub fn request(stream: u32, webhook: &Webhook) -> Vec<u8> {
    with_body(stream, &fields(webhook), &webhook.body)
}

/// The same with fields of one's own.
pub fn with_body(stream: u32, fields: &Fields, body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &block(fields));
    for part in body.chunks(16 << 10) {
        bytes.extend_from_slice(&frame(DATA, 0, stream, part));
    }
    bytes.extend_from_slice(&frame(DATA, END_STREAM, stream, b""));
    bytes
}

/// A header block: every field as a literal that is not remembered (RFC 7541, section 6.2.2), so that
/// blocks can be cut, repeated and left out at will.
pub fn block(fields: &Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 127 {
        bytes.push(value as u8);
        return;
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The status that a header block begins with: one of the static table, or a literal with the name
/// from there (RFC 7541, appendix A: index 8 to 14).
fn status(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        // The end of the table.
        [0x20, rest @ ..] => status(rest),
        [first @ 0x88..=0x8e, ..] => STATIC[usize::from(first - 0x88)],
        [0x08, len, rest @ ..] if len & 0x80 == 0 => digits(rest.iter().take((*len).into())),
        [0x08, len, rest @ ..] => huffman(&rest[..usize::from(len & 0x7f)]),
        _ => panic!("a block that does not begin with a status: {block:02x?}"),
    }
}

fn digits<'d>(text: impl Iterator<Item = &'d u8>) -> u16 {
    text.fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
}

/// Digits in Huffman's code: 0, 1 and 2 take five bits, the others six (RFC 7541, appendix B).
fn huffman(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let (mut rest, mut text) = (&bits[..], Vec::new());
    // The rest of the last byte is padding.
    while text.len() < 3 {
        let (digit, len) = match number(&rest[..5]) {
            short @ 0..=2 => (short, 5),
            _ => (number(&rest[..6]) - 0b01_1001 + 3, 6),
        };
        text.push(b'0' + digit);
        rest = &rest[len..];
    }
    digits(text.iter())
}
