//! `waypost send`: signs a sample or a file as a source would, and posts it.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use uuid::Uuid;

use super::{
    Error, block_on,
    client::{Endpoint, Trust},
    input, operator, print, printable, read_table, sample, stored,
};
use crate::{
    clock::now_ms, daemon::Addresses, ingress::EVENT_ID, routing::Table, routing::path::Path,
    settings::Settings, source::Source,
};

/// Longest answer that is shown.
const MAX_ANSWER_CHARS: usize = 500;

/// Send a signed webhook to a daemon, as the given source would send it.
///
/// Secrets come from the routing table, and for a source with `register:` from the data directory.
/// Prints the status and the event's id; exits with 1 unless the event was accepted. A sample that
/// carries an id gets another one each time. Sonzai's signature has the second in it: the same body
/// twice within one is the same event, and within an hour where it carries an id.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost send                                      Sonzai's agent.message, to the running daemon
  waypost send sonzai agent.mood_change
  waypost send miibo function_calling
  waypost send sonzai --type agent.message --file body.json
  echo '{\"webhookType\":\"user_utterance\"}' | waypost send miibo --file -
  waypost send --url http://127.0.0.1:8080
  waypost send --url https://hooks.example.com --cacert ca.pem")]
pub struct Arguments {
    /// Name of a source in the routing table [default: the one of type sonzai, else the first]
    source: Option<String>,
    /// Name of a sample [default: the first of the provider]
    #[arg(conflicts_with = "file")]
    sample: Option<String>,
    /// Send this file's bytes instead of a sample; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The event type in the path, where the source's path has one [default: the sample's]
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Where the daemon listens [default: the one that runs on the data directory]
    #[arg(long, value_name = "URL")]
    url: Option<Uri>,
    /// With https, trust the authorities in this PEM file [default: the system's]
    #[arg(long, value_name = "FILE", requires = "url")]
    cacert: Option<PathBuf>,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<(), Error> {
    let mut table = read_table(&settings.routes)?;
    stored::give(&mut table, &settings.data_dir);
    let (path, source) = find(&table, arguments.source.as_deref())?;
    let (sample_type, body) = body(&arguments, source)?;
    let event_type = arguments.event_type.clone().or(sample_type);
    if path.has_type() && event_type.is_none() {
        return Err(Error("the source's path names the event type: say which with --type".into()));
    }
    let event_type = event_type.unwrap_or_default();
    let signing_type = path.has_type().then_some(&*event_type);
    let signed = source
        .sign(signing_type, &body, now_ms() / 1000, Uuid::now_v7())
        .map_err(|why| Error(format!("cannot sign as source `{}`: {why}", source.name)))?;
    let endpoint = endpoint(&arguments, settings)?;
    let mut request = Request::post(path.of_type(&event_type))
        .header("host", &endpoint.authority)
        .header("content-type", "application/json");
    for (name, value) in signed {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(body)).map_err(Error::new)?;
    block_on(post(&endpoint, request))
}

/// Posts, and says what came back.
async fn post(endpoint: &Endpoint, request: Request<Full<Bytes>>) -> Result<(), Error> {
    let response = endpoint.request(request).await?;
    let status = response.status();
    let id = response.headers().get(EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let answer = response.into_body().collect().await.map_err(Error::new)?.to_bytes();
    let answer = printable(&String::from_utf8_lossy(&answer), MAX_ANSWER_CHARS);
    if status == StatusCode::OK {
        print(&format!("{status}  {}\n", id.unwrap_or_default()))?;
        return Ok(());
    }
    Err(Error(format!("not accepted: {status} {answer}{}", advice(status))))
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            "\nThe daemon has another secret than this command: do both read the same routes.yaml, \
             .env and environment?"
        }
        StatusCode::NOT_FOUND => "\nThe daemon runs with another routes.yaml than this command.",
        _ => "",
    }
}

fn find<'t>(table: &'t Table, name: Option<&str>) -> Result<(&'t Path, &'t Source), Error> {
    use crate::source::Provider;
    let is_default = |source: &Source| matches!(source.provider, Provider::Sonzai(_));
    let found = match name {
        Some(name) => table.sources().find(|(_, source)| source.name == name),
        None => table
            .sources()
            .find(|(_, source)| is_default(source))
            .or_else(|| table.sources().next()),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = table.sources().map(|(_, source)| &*source.name).collect();
        let name = name.unwrap_or_default();
        Error(format!("no such source `{name}`; the routing table has: {}", names.join(", ")))
    })
}

/// The body to send, and the type it stands for.
fn body(arguments: &Arguments, source: &Source) -> Result<(Option<String>, Bytes), Error> {
    if let Some(file) = &arguments.file {
        return Ok((None, input::read(file, None)?.into()));
    }
    let samples = sample::of(&source.provider);
    let sample = match &arguments.sample {
        None => samples.first(),
        Some(name) => samples.iter().find(|sample| sample.name == name),
    };
    let sample = sample.ok_or_else(|| {
        let names: Vec<&str> = samples.iter().map(|sample| sample.name).collect();
        let (name, names) = (arguments.sample.as_deref().unwrap_or_default(), names.join(", "));
        Error(format!("no such sample `{name}` for source `{}`; there are: {names}", source.name))
    })?;
    let body = sample.as_another(Uuid::now_v7()).into_owned();
    Ok((Some(sample.name.to_owned()), body.into()))
}

/// Where to send it.
fn endpoint(arguments: &Arguments, settings: &Settings) -> Result<Endpoint, Error> {
    let Some(url) = &arguments.url else { return running(settings) };
    let wrong = || {
        let hint = "write http://HOST:PORT or https://HOST:PORT; the path is the source's";
        Error(format!("--url {url}: {hint}"))
    };
    let host = url.host().filter(|_| matches!(url.path(), "" | "/")).ok_or_else(wrong)?;
    let authority = |port| format!("{host}:{}", url.port_u16().unwrap_or(port));
    match (url.scheme_str(), &arguments.cacert) {
        (Some("https"), None) => Endpoint::tls(authority(443), host, Trust::System),
        (Some("https"), Some(file)) => {
            Endpoint::tls(authority(443), host, Trust::Authorities(file))
        }
        (Some("http"), None) => Ok(Endpoint::plain(authority(80))),
        (Some("http"), Some(_)) => Err(Error(format!("--cacert goes with https, not with {url}"))),
        _ => Err(wrong()),
    }
}

/// The daemon that runs on the data directory, or would.
fn running(settings: &Settings) -> Result<Endpoint, Error> {
    let (address, cert) = match Addresses::read(&settings.data_dir) {
        Some(addresses) => (addresses.listen, addresses.tls_cert),
        None if operator::names_data_dir(settings)
            && settings.listen == Settings::default().listen =>
        {
            return Err(operator::nobody_there(settings, "--url"));
        }
        None => (settings.listen, settings.tls_files().map(|(cert, _)| cert.to_owned())),
    };
    let address = operator::reachable(address);
    match cert {
        Some(cert) => {
            let host = address.ip().to_string();
            Endpoint::tls(address.to_string(), &host, Trust::Exactly(&cert))
        }
        None => Ok(Endpoint::plain(address.to_string())),
    }
}
