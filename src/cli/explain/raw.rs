//! A raw HTTP request as somebody captured it: from a proxy's log, tcpdump, or `curl -v`.
//!
//! The head is read kindly, since it was copied by hand: line ends of either kind, curl's `> ` in
//! front of every line, an HTTP/2 request line. The body is taken to the byte, since it was signed.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header, request::Parts};

/// Most headers that are read, more than the ingress takes, so that it can be said that it does not.
const MAX_HEADERS: usize = 256;

/// A request, and what had to be guessed to read it.
#[derive(Debug)]
pub struct RawRequest {
    pub head: Parts,
    pub body: Bytes,
    pub notes: Vec<String>,
}

/// Why text is no request: what, and what to do next.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no request: it is empty")]
    Empty,
    #[error(
        "the first line must be `POST /path HTTP/1.1`, then the headers, an empty line and the body; \
         is this the body alone?"
    )]
    RequestLine,
    #[error("the head is no HTTP request: {0}")]
    Head(httparse::Error),
    #[error("the request line names no path: write `POST /path HTTP/1.1`")]
    Target,
    #[error("the header `{0}` has a value that HTTP does not allow")]
    HeaderValue(String),
}

/// Reads a request.
pub fn parse(text: &[u8]) -> Result<RawRequest, Error> {
    let mut notes = Vec::new();
    let (lines, rest) = split(text);
    if lines.is_empty() {
        return Err(Error::Empty);
    }
    let Some(rest) = rest else {
        notes.push("no empty line ends the head; the body is taken to be empty".to_owned());
        return assemble(&lines, Bytes::new(), notes);
    };
    assemble(&lines, Bytes::copy_from_slice(rest), notes)
}

/// The head's lines without their ends, and what comes after the empty line, if there is one.
fn split(text: &[u8]) -> (Vec<&[u8]>, Option<&[u8]>) {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (line, after) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line {
            b"" if lines.is_empty() => {}
            b"" | b">" | b"> " => return (without_marks(lines), Some(rest)),
            _ => lines.push(line),
        }
    }
    (without_marks(lines), None)
}

/// Without curl's marks, if every line has one.
fn without_marks(lines: Vec<&[u8]>) -> Vec<&[u8]> {
    let unmarked: Option<Vec<&[u8]>> = lines.iter().map(|line| line.strip_prefix(b"> ")).collect();
    unmarked.unwrap_or(lines)
}

fn assemble(lines: &[&[u8]], body: Bytes, mut notes: Vec<String>) -> Result<RawRequest, Error> {
    let (request_line, header_lines) = lines.split_first().ok_or(Error::Empty)?;
    let request_line = as_http_1(request_line, &mut notes);
    let mut head = request_line;
    for line in header_lines {
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(line);
    }
    head.extend_from_slice(b"\r\n\r\n");
    let head = parse_head(&head)?;
    let body = to_its_length(&head, dechunked(&head, body, &mut notes), &mut notes);
    Ok(RawRequest { head, body, notes })
}

/// The line as HTTP/1.1 has it; curl shows that of HTTP/2 and 3 in the same form.
fn as_http_1(line: &[u8], notes: &mut Vec<String>) -> Vec<u8> {
    let newer = [&b" HTTP/2"[..], b" HTTP/2.0", b" HTTP/3"];
    match newer.iter().find_map(|version| line.strip_suffix(*version)) {
        Some(start) => {
            notes.push("not HTTP/1.1; read as if it were".to_owned());
            [start, b" HTTP/1.1"].concat()
        }
        None => line.to_vec(),
    }
}

fn parse_head(text: &[u8]) -> Result<Parts, Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(text) {
        Ok(_) => {}
        Err(httparse::Error::Token | httparse::Error::Version | httparse::Error::NewLine)
            if parsed.version.is_none() =>
        {
            return Err(Error::RequestLine);
        }
        Err(error) => return Err(Error::Head(error)),
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(Error::RequestLine);
    };
    let uri: Uri = target.parse().map_err(|_| Error::Target)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Error::RequestLine)?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.uri, head.version) = (method, uri, version);
    for header in parsed.headers {
        let unusable = || Error::HeaderValue(header.name.to_owned());
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| unusable())?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| unusable())?;
        head.headers.append(name, value);
    }
    Ok(head)
}

/// The body without its chunks' sizes, if it still has them.
fn dechunked(head: &Parts, body: Bytes, notes: &mut Vec<String>) -> Bytes {
    let coding = head.headers.get(header::TRANSFER_ENCODING);
    if !coding.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return body;
    }
    match chunks(&body) {
        Some(whole) => {
            notes.push("the body was captured in chunks; they are put together".to_owned());
            whole.into()
        }
        None => body,
    }
}

fn chunks(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, len))) = httparse::parse_chunk_size(body) else {
            return None;
        };
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        let chunk = body.get(start..end)?;
        if chunk.is_empty() {
            return Some(whole);
        }
        whole.extend_from_slice(chunk);
        body = body[end..].strip_prefix(b"\r\n")?;
    }
}

/// The body as its sender announced it: what comes after that is not part of it.
fn to_its_length(head: &Parts, body: Bytes, notes: &mut Vec<String>) -> Bytes {
    let announced = head.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.trim().parse::<usize>().ok());
    let Some(announced) = announced else { return body };
    let len = body.len();
    match body.get(announced..) {
        Some(b"") => body,
        Some(more) => {
            let why = match more.trim_ascii() {
                b"" => ": white space, as an editor adds it",
                _ => "",
            };
            let more = more.len();
            notes.push(format!(
                "{more} bytes after the {announced} of Content-Length are left out{why}"
            ));
            body.slice(..announced)
        }
        None => {
            notes.push(format!(
                "Content-Length is {announced} and the body has only {len} bytes: it was cut off or \
                 changed when it was captured"
            ));
            body
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> RawRequest {
        parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    #[test]
    fn line_ends_and_marks_of_the_head_do_not_matter_and_the_body_is_taken_to_the_byte() {
        for text in [
            "POST /hooks/a?x=1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n\r\n{\"a\":\r\n1}\n",
            "POST /hooks/a HTTP/1.1\nHost: h\nX-A: 1\n\n{\"a\":\r\n1}\n",
            "\n\nPOST /hooks/a HTTP/1.1\nHost: h\nX-A:1\n\n{\"a\":\r\n1}\n",
            "> POST /hooks/a HTTP/1.1\n> Host: h\n> X-A: 1\n> \n{\"a\":\r\n1}\n",
            "> POST /hooks/a HTTP/1.1\r\n> Host: h\r\n> X-A: 1\r\n>\r\n{\"a\":\r\n1}\n",
            "POST http://h/hooks/a HTTP/1.1\nHost: h\nX-A: 1\n\n{\"a\":\r\n1}\n",
        ] {
            let raw = read(text);
            assert_eq!(
                (&raw.head.method, raw.head.uri.path()),
                (&Method::POST, "/hooks/a"),
                "{text}"
            );
            assert_eq!(
                (&raw.head.headers["x-a"], raw.head.headers.len()),
                (&"1".parse().unwrap(), 2)
            );
            assert_eq!((&*raw.body, &*raw.notes), (&b"{\"a\":\r\n1}\n"[..], &[][..]), "{text}");
        }
    }

    #[test]
    fn what_had_to_be_guessed_is_noted() {
        for (text, body, note) in [
            ("POST /a HTTP/1.1\nHost: h", "", "no empty line"),
            ("POST /a HTTP/2\nHost: h\n\n{}", "{}", "not HTTP/1.1"),
            ("POST /a HTTP/1.1\nContent-Length: 2\n\n{}\n", "{}", "1 bytes after the 2 of"),
            (
                "POST /a HTTP/1.1\nContent-Length: 2\n\n{}\n",
                "{}",
                "white space, as an editor adds it",
            ),
            ("POST /a HTTP/1.1\nContent-Length: 2\n\n{}xyz", "{}", "3 bytes after the 2 of"),
            ("POST /a HTTP/1.1\nContent-Length: 9\n\n{}", "{}", "only 2 bytes"),
            (
                "POST /a HTTP/1.1\nTransfer-Encoding: chunked\n\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
                "{}",
                "put together",
            ),
        ] {
            let raw = read(text);
            assert_eq!(raw.body, body, "{text}");
            let [found] = &raw.notes[..] else { panic!("{text}: {:?}", raw.notes) };
            assert!(found.contains(note), "{found}");
        }
        let plain = read("POST /a HTTP/1.1\nTransfer-Encoding: chunked\n\n{}");
        assert_eq!((&*plain.body, plain.notes.len()), (&b"{}"[..], 0));
    }

    #[test]
    fn what_is_no_request_says_what_to_write() {
        for (text, expected) in [
            ("", "it is empty"),
            ("\n\n", "it is empty"),
            ("{\"a\":1}", "is this the body alone?"),
            ("{\n  \"a\": 1\n}\n", "is this the body alone?"),
            ("POST /a", "POST /path HTTP/1.1"),
            ("POST HTTP/1.1\n\n", "POST /path HTTP/1.1"),
            ("POST /a HTTP/1.1\nno header\n\n", "invalid header name"),
            ("< HTTP/1.1 200 OK\n\n", "POST /path HTTP/1.1"),
        ] {
            let error = parse(text.as_bytes()).map(|raw| raw.notes).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_request_is_read_back_as_it_was_written(
            path in "/[a-z/.]{0,20}", value in "[!-~]{1,20}", body: Vec<u8>, marked: bool, crlf: bool,
        ) {
            let (mark, end) = (if marked { "> " } else { "" }, if crlf { "\r\n" } else { "\n" });
            let head = format!("{mark}POST {path} HTTP/1.1{end}{mark}X-A: {value}{end}{mark}{end}");
            let raw = parse(&[head.as_bytes(), &body].concat()).unwrap();
            prop_assert_eq!(raw.head.uri.path(), path);
            prop_assert_eq!(raw.head.headers["x-a"].as_bytes(), value.as_bytes());
            prop_assert_eq!(raw.body, body);
        }

        #[test]
        fn nothing_makes_it_panic(text: Vec<u8>, lines in "(POST /|> |[A-Z-]{1,4}: |chunked|\r?\n|.){0,40}") {
            let _either = parse(&text);
            let _either = parse(lines.as_bytes());
        }
    }
}
