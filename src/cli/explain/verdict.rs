//! Whether a request is accepted, as the ingress would have it, and why not, as only its operator may
//! know.

use std::time::Duration;

use http::{
    HeaderValue, Method,
    header::{AUTHORIZATION, HOST},
};
use humantime::format_duration;
use secrecy::SecretString;

use super::{
    document::{Clock, Outcome, Reason, Verdict},
    raw::RawRequest,
};
use crate::{
    clock::rfc3339,
    ingress::{self, Rejection},
    routing::{Place, Secrets, Table},
    server::MAX_HEADERS,
    signature::{
        Error, TOLERANCE_S,
        diagnosis::{self, Diagnosis, Fit},
    },
    source::{self, Provider, Source},
};

/// Most units of a time span that are shown: who is years too late does not ask for the seconds.
const MAX_UNITS: usize = 2;

/// A request on a source's path.
#[derive(Clone, Copy)]
pub struct Case<'c> {
    pub table: &'c Table,
    pub source: &'c Source,
    pub path_type: Option<&'c str>,
    pub raw: &'c RawRequest,
    /// When it is received, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl<'c> Case<'c> {
    /// The request as the source takes it.
    pub fn request(&self) -> source::Request<'c> {
        source::Request {
            path_type: self.path_type,
            headers: &self.raw.head.headers,
            body: self.raw.body.clone(),
            now_ms: self.at_ms,
        }
    }

    /// What is known about its signature, with these secrets.
    pub fn diagnose(&self, secrets: &[&SecretString]) -> Diagnosis {
        let diagnose = match &self.source.provider {
            Provider::Sonzai(_) => diagnosis::sonzai::diagnose,
            Provider::Miibo(_) => diagnosis::miibo::diagnose,
            Provider::Standard(_) => diagnosis::standard::diagnose,
        };
        diagnose(secrets, &self.raw.head.headers, &self.raw.body)
    }

    /// The verdict, and what it says of itself; without secrets nothing is verified.
    pub fn verdict(&self, secrets: Option<&Secrets>) -> (Verdict, diagnosis::Claim) {
        let Some(secrets) = secrets else {
            let Diagnosis { claim, faults, .. } = self.diagnose(&[]);
            let reasons = faults.iter().map(Reason::from).collect();
            let clock = claim.timestamp_s.map(|signed| clock(signed, self.at_ms));
            let outcome = Outcome::NotChecked;
            return (Verdict { outcome, status: None, secret: None, clock, reasons }, claim);
        };
        if secrets.signing.is_empty() && self.lacks_registered() {
            let (mut verdict, claim) = self.verdict(None);
            verdict.reasons.push(Reason::new("registered-secrets", self.registered_secrets()));
            return (verdict, claim);
        }
        let ordered = self.likeliest_first(secrets);
        let texts: Vec<&SecretString> = ordered.iter().map(|(_, text)| text).collect();
        let found = self.diagnose(&texts);
        let place = found.fit.as_ref().map(|fit| &ordered[fit.secret].0);
        let refused = self.source.judge(self.request()).err();
        let (outcome, status) = match refused {
            None => (Outcome::Accepted, 200),
            Some(why) => (Outcome::Refused, Rejection::from(why).status_and_words().0.as_u16()),
        };
        let reasons = refused.map(|why| self.reasons(why, &found, place)).unwrap_or_default();
        let clock = found.claim.timestamp_s.map(|signed| clock(signed, self.at_ms));
        let secret = place.map(ToString::to_string);
        (Verdict { outcome, status: Some(status), secret, clock, reasons }, found.claim)
    }

    /// The secrets of the path's type, of all types, and of others, which are not to be found first
    /// where a text stands in two places.
    fn likeliest_first<'s>(&self, secrets: &'s Secrets) -> Vec<&'s (Place, SecretString)> {
        let mut ordered: Vec<_> = secrets.signing.iter().collect();
        ordered.sort_by_key(|(place, _)| match (place.event_type.as_deref(), self.path_type) {
            (Some(of), Some(on_path)) if of == on_path => 0,
            (None, _) | (_, None) => 0,
            (Some("*"), _) => 1,
            _ => 2,
        });
        ordered
    }

    fn reasons(
        &self,
        why: source::Rejection,
        found: &Diagnosis,
        place: Option<&Place>,
    ) -> Vec<Reason> {
        let mut reasons = vec![self.first_reason(why)];
        reasons.extend(found.faults.iter().map(Reason::from));
        match (&found.fit, place) {
            (Some(fit), Some(place)) => reasons.extend(self.of_fit(why, fit, place)),
            _ if why == source::Rejection::Signature(Error::Mismatch) => {
                reasons.push(self.other_source().unwrap_or_else(|| self.no_secret()));
                if self.lacks_registered() {
                    let words = self.registered_secrets();
                    reasons.push(Reason::new("registered-secrets", words));
                }
            }
            _ => reasons.extend(self.other_source()),
        }
        reasons.extend(self.late(found));
        reasons
    }

    /// The answer that the ingress's log has, too.
    fn first_reason(&self, why: source::Rejection) -> Reason {
        let code = match why {
            source::Rejection::Signature(Error::Missing) => "signature-missing",
            source::Rejection::Signature(Error::Malformed) => "signature-malformed",
            source::Rejection::Signature(Error::Mismatch) => "signature-mismatch",
            source::Rejection::Signature(Error::Expired { .. }) => "expired",
            source::Rejection::Changing => "secret-changing",
            source::Rejection::Authorization => {
                let given = self.raw.head.headers.contains_key(AUTHORIZATION);
                let words = match given {
                    true => {
                        "its `Authorization` header is not the one that `authorization:` demands"
                    }
                    false => "it has no `Authorization` header, and `authorization:` demands one",
                };
                return Reason::new(
                    "authorization",
                    format!("the signature is right, but {words}"),
                );
            }
        };
        Reason::new(code, why)
    }

    fn of_fit(&self, why: source::Rejection, fit: &Fit, place: &Place) -> Vec<Reason> {
        let mismatch = why == source::Rejection::Signature(Error::Mismatch);
        if fit.mistakes.is_empty() {
            let on_path = self.path_type.map(|of| format!(" for type `{of}`")).unwrap_or_default();
            let words =
                format!("it was signed with {place}, which does not count on this path{on_path}");
            return mismatch.then(|| Reason::new("other-secret", words)).into_iter().collect();
        }
        let words = format!("the signature fits {place} but for what follows");
        let first = Reason::new("fits-but", words);
        [first].into_iter().chain(fit.mistakes.iter().map(Reason::from)).collect()
    }

    /// Whether the daemon may have secrets that are not at hand here.
    fn lacks_registered(&self) -> bool {
        match &self.source.provider {
            Provider::Sonzai(sonzai) => {
                sonzai.settings.register.is_some() && sonzai.keyring.load().is_empty()
            }
            Provider::Miibo(_) | Provider::Standard(_) => false,
        }
    }

    fn registered_secrets(&self) -> String {
        format!(
            "source `{}` has `register:`: what Sonzai gave when its webhooks were registered is in \
             the daemon's data directory, and was not found here: name that with --data-dir, and \
             run this as the daemon's user",
            self.source.name
        )
    }

    fn no_secret(&self) -> Reason {
        let name = &self.source.name;
        Reason::new(
            "no-secret-fits",
            format!(
                "no secret of source `{name}` made it, by any usual mistake: it was signed with \
                 another one (of another environment, or before a rotation?), or the body is not the \
                 one that was signed"
            ),
        )
    }

    /// Another source that would take it, be it too late.
    fn other_source(&self) -> Option<Reason> {
        let others = self.table.sources().filter(|(_, other)| other.name != self.source.name);
        let mut takers = others.filter(|(_, other)| {
            let request = source::Request { path_type: None, ..self.request() };
            use source::Rejection::Signature;
            !matches!(
                other.judge(request),
                Err(Signature(Error::Missing | Error::Malformed | Error::Mismatch))
            )
        });
        takers.next().map(|(path, other)| {
            let name = &other.name;
            let words = format!(
                "its signature is right for source `{name}`: send it to `{}`",
                path.as_str()
            );
            Reason::new("other-source", words)
        })
    }

    /// How far the signed time is away, if too far.
    fn late(&self, found: &Diagnosis) -> Option<Reason> {
        let signed_s = found.claim.timestamp_s?;
        let now_s = self.at_ms / 1000;
        let span = |seconds| {
            let exact = format_duration(Duration::from_secs(seconds)).to_string();
            exact.split(' ').take(MAX_UNITS).collect::<Vec<_>>().join(" ")
        };
        let skew_s = signed_s.abs_diff(now_s);
        if skew_s <= TOLERANCE_S {
            return None;
        }
        let (skew, allowed) = (span(skew_s), span(TOLERANCE_S));
        let side = if signed_s < now_s { "before" } else { "after" };
        let right = found.fit.as_ref().is_some_and(|fit| fit.mistakes.is_empty());
        let then = match right && found.faults.is_empty() {
            true => format!(" With --at {} it is in time.", rfc3339(signed_s.saturating_mul(1000))),
            false => String::new(),
        };
        let words = format!(
            "it was signed {skew} {side} it was received; at most {allowed} are allowed. Is a clock \
             wrong, or was it held up or captured long ago?{then}"
        );
        Some(Reason::new("clock", words))
    }
}

fn clock(signed_s: u64, at_ms: u64) -> Clock {
    Clock {
        signed_at: rfc3339(signed_s.saturating_mul(1000)),
        age_seconds: (at_ms / 1000).cast_signed().saturating_sub(signed_s.cast_signed()),
        tolerance_seconds: TOLERANCE_S,
    }
}

/// Why the ingress refuses a request before it looks at a signature.
pub fn refused_early(raw: &RawRequest, max_body_bytes: usize) -> Option<Rejection> {
    if raw.head.method != Method::POST {
        return Some(Rejection::Method);
    }
    // Who copies a request often leaves that header out.
    let mut head = raw.head.clone();
    if head.uri.authority().is_none() {
        head.headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    }
    if let Err(rejection) = ingress::check_head(&head, MAX_HEADERS) {
        return Some(rejection);
    }
    (raw.body.len() > max_body_bytes).then_some(Rejection::BodyTooLarge)
}
