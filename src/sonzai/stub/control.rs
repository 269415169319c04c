//! `/-/`: what a stand-in is told from outside, and what it tells. It wants no key: it is on loopback,
//! and answers nobody who calls it by a name that could be somebody else's.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Shared,
    answers::Reply,
    emit::{self, Emit},
    faults::Rule,
    options::MAX_FAULTS,
    stubborn::Stubborn,
};
use crate::{clock::now_ms, host::names_this_machine};

/// What can be asked for.
const PAGES: &str = "POST /-/emit, POST or DELETE /-/faults, POST or DELETE /-/fail-take, \
                     GET or DELETE /-/requests, GET /-/state";

/// Whether a path is of this API.
pub fn is_path(path: &str) -> bool {
    path.starts_with("/-/")
}

/// Answers one request.
pub fn answer(
    shared: &Arc<Shared>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Reply {
    if !names_this_machine(headers) {
        return refused(StatusCode::MISDIRECTED_REQUEST, "ask for localhost, or by address");
    }
    // A page in a browser cannot send this type elsewhere without asking first.
    if *method == Method::POST && !is_json(headers) {
        let words = "send JSON, and say so: content-type: application/json";
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, words);
    }
    match (method.as_str(), path) {
        ("POST", "/-/emit") => emitted(shared, body),
        ("POST", "/-/faults") => fault(shared, body),
        ("DELETE", "/-/faults") => {
            shared.lock().faults.clear();
            done()
        }
        ("POST", "/-/fail-take") => fail_take(shared, body),
        ("DELETE", "/-/fail-take") => {
            shared.lock().stubborn = Stubborn::default();
            done()
        }
        ("GET", "/-/requests") => Reply::json(StatusCode::OK, &shared.lock().requests.shown()),
        ("DELETE", "/-/requests") => {
            shared.lock().requests.forget();
            done()
        }
        ("GET", "/-/state") => Reply::json(StatusCode::OK, &shared.lock().shown(now_ms())),
        _ => refused(StatusCode::NOT_FOUND, &format!("there are {PAGES}")),
    }
}

fn emitted(shared: &Arc<Shared>, body: &Bytes) -> Reply {
    let read = read::<Emit>(body);
    let emitted = read.and_then(|emit| emit::emit(shared, emit).map_err(|e| e.to_string()));
    match emitted {
        Ok(emitted) => Reply::json(StatusCode::OK, &emitted),
        Err(words) => refused(StatusCode::UNPROCESSABLE_ENTITY, &words),
    }
}

/// One rule, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rules {
    Several(Vec<Value>),
    One(Value),
}

fn fault(shared: &Arc<Shared>, body: &Bytes) -> Reply {
    let parsed = read::<Rules>(body).and_then(|rules| {
        let rules = match rules {
            Rules::Several(rules) => rules,
            Rules::One(rule) => vec![rule],
        };
        let rule = |rule| serde_json::from_value::<Rule>(rule).map_err(|e| e.to_string());
        rules.into_iter().map(rule).collect::<Result<Vec<Rule>, String>>()
    });
    let rules = match parsed {
        Ok(rules) => rules,
        Err(words) => return refused(StatusCode::UNPROCESSABLE_ENTITY, &words),
    };
    let mut state = shared.lock();
    match rules.into_iter().all(|rule| state.faults.add(rule)) {
        true => done(),
        false => {
            let words = format!("there are {MAX_FAULTS} faults, and no more: delete them");
            refused(StatusCode::INSUFFICIENT_STORAGE, &words)
        }
    }
}

fn fail_take(shared: &Arc<Shared>, body: &Bytes) -> Reply {
    let read = read::<Stubborn>(body);
    match read.and_then(|stubborn| stubborn.check().map(|()| stubborn)) {
        Ok(stubborn) => {
            shared.lock().stubborn = stubborn;
            done()
        }
        Err(words) => refused(StatusCode::UNPROCESSABLE_ENTITY, &words),
    }
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn done() -> Reply {
    Reply::json(StatusCode::OK, &json!({ "done": true }))
}

fn refused(status: StatusCode, words: &str) -> Reply {
    Reply::json(status, &json!({ "error": words }))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).map(str::trim);
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}
