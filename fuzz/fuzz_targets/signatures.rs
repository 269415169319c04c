//! Whatever happens to a signed request on its way: if it still passes, then with the body, the time
//! and the id that were signed, and only within the tolerance. Left alone it passes.

#![no_main]

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use waypost::signature::{Error, TOLERANCE_S, miibo, sonzai, standard};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    scheme: Scheme,
    id: u32,
    body: &'a [u8],
    time_s: u32,
    now_s: u32,
    changes: Vec<Change<'a>>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Scheme {
    Sonzai,
    Miibo,
    Standard,
}

#[derive(Arbitrary, Debug)]
enum Change<'a> {
    /// Another header, or the same again.
    Add {
        name: u8,
        value: &'a [u8],
    },
    Remove {
        which: u8,
    },
    Replace {
        which: u8,
        value: &'a [u8],
    },
    /// One byte of a header's value is put in or exchanged.
    Edit {
        which: u8,
        at: u8,
        byte: u8,
        insert: bool,
    },
    Body(&'a [u8]),
    /// The signed text `id.time.body` is cut elsewhere.
    CutAgain,
}

const NAMES: [&str; 9] = [
    sonzai::HEADER,
    miibo::HEADER,
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "authorization",
];

/// What was signed, and what arrives.
struct Request {
    headers: Vec<(HeaderName, Vec<u8>)>,
    body: Vec<u8>,
    now_s: u64,
}

/// What passed: the signed time and id, where the scheme has them.
type Passed = (Option<u64>, Option<String>);

fuzz_target!(|input: Input| {
    let (id, time_s) = (format!("msg_{:x}", input.id), u64::from(input.time_s));
    let mut request = sign(&input, &id, time_s);
    for change in &input.changes {
        request.suffer(change);
    }
    let verdict = request.verify(input.scheme);
    let untouched = input.changes.is_empty();
    let timely = request.now_s.abs_diff(time_s) <= TOLERANCE_S;
    match verdict {
        Ok((verified_time_s, verified_id)) => {
            assert_eq!(request.body, input.body, "another body");
            match input.scheme {
                Scheme::Miibo => assert_eq!((verified_time_s, verified_id), (None, None)),
                Scheme::Sonzai => {
                    assert_eq!((verified_time_s, verified_id), (Some(time_s), None));
                    assert!(timely);
                }
                Scheme::Standard => {
                    assert_eq!((verified_time_s, verified_id), (Some(time_s), Some(id)));
                    assert!(timely);
                }
            }
        }
        Err(Error::Expired { timestamp }) => assert!(timestamp == time_s && !timely),
        Err(error) => assert!(!untouched, "{error}"),
    }
});

fn sign(input: &Input, id: &str, time_s: u64) -> Request {
    let header =
        |name: &'static str, value: String| (HeaderName::from_static(name), value.into_bytes());
    let headers = match input.scheme {
        Scheme::Sonzai => {
            let key = sonzai::key("whsec_secret").expect("a key");
            vec![header(sonzai::HEADER, sonzai::sign(&key, input.body, time_s))]
        }
        Scheme::Miibo => {
            let key = miibo::key("secret").expect("a key");
            vec![header(miibo::HEADER, miibo::sign(&key, input.body))]
        }
        Scheme::Standard => {
            let [key, _] = standard_keys();
            let signed = standard::sign(&key, id, input.body, time_s).expect("a signature");
            signed.map(|(name, value)| header(name, value)).into()
        }
    };
    Request { headers, body: input.body.to_vec(), now_s: input.now_s.into() }
}

/// One of each kind; nobody here has the private half of the second.
fn standard_keys() -> [standard::Key; 2] {
    let public = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
    ["whsec_c2VjcmV0", public].map(|secret| standard::key(secret).expect("a key"))
}

impl Request {
    fn suffer(&mut self, change: &Change) {
        match *change {
            Change::Add { name, value } => {
                let name = HeaderName::from_static(NAMES[usize::from(name) % NAMES.len()]);
                self.headers.push((name, value.to_vec()));
            }
            Change::Remove { which } => {
                if let Some(at) = self.at(which) {
                    self.headers.remove(at);
                }
            }
            Change::Replace { which, value } => {
                if let Some(at) = self.at(which) {
                    self.headers[at].1 = value.to_vec();
                }
            }
            Change::Edit { which, at, byte, insert } => {
                let Some(header) = self.at(which) else { return };
                let value = &mut self.headers[header].1;
                let at = usize::from(at) % (value.len() + 1);
                let end = if insert { at } else { (at + 1).min(value.len()) };
                value.splice(at..end, [byte]);
            }
            Change::Body(body) => self.body = body.to_vec(),
            Change::CutAgain => self.cut_again(),
        }
    }

    fn at(&self, which: u8) -> Option<usize> {
        usize::from(which).checked_rem(self.headers.len())
    }

    /// The id takes in the time, and the body's beginning becomes the time, if it can be one.
    fn cut_again(&mut self) {
        let [(_, id), (_, time), _] = &mut self.headers[..] else { return };
        let Some(dot) = self.body.iter().position(|byte| *byte == b'.') else { return };
        let (begin, rest) = (self.body[..dot].to_vec(), self.body[dot + 1..].to_vec());
        id.push(b'.');
        id.append(&mut std::mem::replace(time, begin));
        self.body = rest;
        if let Some(now_s) = std::str::from_utf8(time).ok().and_then(|text| text.parse().ok()) {
            self.now_s = now_s;
        }
    }

    fn verify(&self, scheme: Scheme) -> Result<Passed, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            // What no HTTP message can hold does not arrive.
            if let Ok(value) = HeaderValue::from_bytes(value.trim_ascii()) {
                headers.append(name, value);
            }
        }
        let (body, now_s) = (&self.body[..], self.now_s);
        match scheme {
            Scheme::Sonzai => {
                let keys = [sonzai::key("whsec_secret").expect("a key")];
                sonzai::verify(&keys, &headers, body, now_s).map(|by| (by.timestamp, None))
            }
            Scheme::Miibo => {
                let keys = [miibo::key("secret").expect("a key")];
                miibo::verify(&keys, &headers, body).map(|by| (by.timestamp, None))
            }
            Scheme::Standard => standard::verify(&standard_keys(), &headers, body, now_s)
                .map(|(by, id)| (by.timestamp, Some(id.to_owned()))),
        }
    }
}
