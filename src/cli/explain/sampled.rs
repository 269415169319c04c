//! A sample as the request that `waypost send` would send.

use bytes::Bytes;
use http::{HeaderValue, Request, header};

use super::{id_at, raw::RawRequest};
use crate::{
    cli::{
        Error,
        sample::{self, Sample},
    },
    routing::{Table, path::Path},
    source::Source,
};

/// The request of the sample `[SOURCE/]NAME`, sent at that time.
pub fn request(table: &Table, name: &str, at_ms: u64, signed: bool) -> Result<RawRequest, Error> {
    let (path, source, sample) = find(table, name)?;
    let body = Bytes::from_static(sample.body.trim_end().as_bytes());
    let mut request = Request::post(path.of_type(sample.name)).header(header::HOST, "localhost");
    request = request.header(header::CONTENT_TYPE, "application/json");
    request = request.header(header::CONTENT_LENGTH, body.len());
    if signed {
        let event_type = path.has_type().then_some(sample.name);
        let headers = source.sign(event_type, &body, at_ms / 1000, id_at(at_ms));
        let headers = headers.map_err(|why| {
            let hint = "explain it with --no-secrets";
            Error(format!("cannot sign as source `{}`: {why}; or {hint}", source.name))
        })?;
        for (name, value) in headers {
            let mut value = HeaderValue::try_from(value).map_err(Error::new)?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
    }
    let (head, ()) = request.body(()).map_err(Error::new)?.into_parts();
    Ok(RawRequest { head, body, notes: Vec::new() })
}

fn find<'t>(
    table: &'t Table,
    name: &str,
) -> Result<(&'t Path, &'t Source, &'static Sample), Error> {
    let (wanted, name) = match name.split_once('/') {
        Some((source, name)) => (Some(source), name),
        None => (None, name),
    };
    let candidates = || {
        let sources = table.sources().filter(|(_, s)| wanted.is_none_or(|wanted| s.name == wanted));
        sources.flat_map(|(path, source)| {
            sample::of(&source.provider).iter().map(move |sample| (path, source, sample))
        })
    };
    candidates().find(|(_, _, sample)| sample.name == name).ok_or_else(|| {
        let all =
            candidates().map(|(_, source, sample)| format!("{}/{}", source.name, sample.name));
        let all = all.collect::<Vec<_>>().join(", ");
        match (wanted, all.is_empty()) {
            (Some(source), true) => Error(format!("the routing table has no source `{source}`")),
            _ => Error(format!("no such sample `{name}`; there are: {all}")),
        }
    })
}
