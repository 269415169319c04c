//! What was asked of the API, for tests to look at. Without the key.

use std::{collections::VecDeque, time::Instant};

use http::{HeaderMap, Method, Uri, header};
use serde_json::{Value, json};

use super::options::{MAX_REQUEST_BODY_SHOWN, MAX_REQUESTS};
use crate::clock::rfc3339;

#[derive(Debug, Default)]
pub struct Requests {
    latest: VecDeque<Request>,
    /// Since the start, and the number of the latest.
    count: u64,
    under_way: usize,
    most_under_way: usize,
}

#[derive(Debug)]
struct Request {
    number: u64,
    at_ms: u64,
    started: Instant,
    method: Method,
    target: String,
    headers: Value,
    body: String,
    /// What was answered, once it is; 0 for an answer that was withheld.
    status: Option<u16>,
    took_ms: Option<u64>,
}

impl Requests {
    /// Notes a request, and numbers it.
    pub fn arrived(
        &mut self,
        method: &Method,
        target: &Uri,
        headers: &HeaderMap,
        body: &[u8],
        now_ms: u64,
    ) -> u64 {
        self.count += 1;
        self.under_way += 1;
        self.most_under_way = self.most_under_way.max(self.under_way);
        if self.latest.len() == MAX_REQUESTS {
            self.latest.pop_front();
        }
        self.latest.push_back(Request {
            number: self.count,
            at_ms: now_ms,
            started: Instant::now(),
            method: method.clone(),
            target: target.to_string(),
            headers: shown_headers(headers),
            body: String::from_utf8_lossy(&body[..body.len().min(MAX_REQUEST_BODY_SHOWN)]).into(),
            status: None,
            took_ms: None,
        });
        self.count
    }

    /// Notes that a request is over; without a status its answer was withheld.
    pub fn over(&mut self, number: u64, status: Option<u16>) {
        self.under_way = self.under_way.saturating_sub(1);
        // It may have been forgotten.
        let Some(first) = self.latest.front() else { return };
        let index = number.checked_sub(first.number).and_then(|index| usize::try_from(index).ok());
        let found = index.and_then(|index| self.latest.get_mut(index));
        if let Some(request) = found {
            request.status = Some(status.unwrap_or(0));
            request.took_ms = Some(request.started.elapsed().as_millis() as u64);
        }
    }

    /// Forgets them; the count goes on.
    pub fn forget(&mut self) {
        self.latest.clear();
        self.most_under_way = self.under_way;
    }

    pub fn shown(&self) -> Value {
        let requests: Vec<Value> = self.latest.iter().map(Request::shown).collect();
        json!({
            "count": self.count,
            "under_way": self.under_way,
            "most_under_way": self.most_under_way,
            "requests": requests,
        })
    }
}

impl Request {
    fn shown(&self) -> Value {
        json!({
            "number": self.number,
            "at": rfc3339(self.at_ms),
            "method": self.method.as_str(),
            "target": self.target,
            "headers": self.headers,
            "body": self.body,
            "status": self.status,
            "took_ms": self.took_ms,
        })
    }
}

/// Several of one name are joined, as HTTP reads them.
fn shown_headers(headers: &HeaderMap) -> Value {
    let shown = headers.keys().map(|name| {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values.map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        let value = match *name {
            header::AUTHORIZATION => "(withheld)".to_owned(),
            _ => values.join(", "),
        };
        (name.to_string(), Value::String(value))
    });
    Value::Object(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_on_and_shown_without_the_key() {
        let mut requests = Requests::default();
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer sk_1".parse().unwrap());
        headers.insert("accept", "*/*".parse().unwrap());
        let target = Uri::from_static("/api/v1/agents?page_size=2");
        let ask =
            |requests: &mut Requests| requests.arrived(&Method::GET, &target, &headers, b"", 0);
        let first = ask(&mut requests);
        let second = ask(&mut requests);
        requests.over(second, Some(200));
        requests.over(first, None);
        let shown = requests.shown();
        assert_eq!(shown["count"], 2);
        assert_eq!(shown["most_under_way"], 2);
        assert_eq!(shown["requests"][0]["status"], 0);
        assert_eq!(shown["requests"][1]["status"], 200);
        assert_eq!(shown["requests"][1]["target"], "/api/v1/agents?page_size=2");
        assert!(!shown.to_string().contains("sk_1"));
        requests.forget();
        let third = ask(&mut requests);
        requests.over(third, Some(200));
        assert_eq!(requests.shown()["count"], 3);
        assert_eq!(requests.shown()["requests"][0]["number"], 3);
    }
}
