//! What there is to do so that what is registered is what `routes.yaml` says: a pure function of both
//! and of what is kept.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{
    routing::path::Path,
    secret,
    sonzai::{client::Webhook, store::Content},
    source::sonzai::{
        keyring,
        settings::{Register, Scope},
    },
};

/// What the file says.
#[derive(Clone, Copy)]
pub struct Wanted<'w> {
    pub register: Option<&'w Register>,
    /// Of the source.
    pub path: &'w Path,
    /// What the webhooks are to be registered with.
    pub authorization: Option<&'w SecretString>,
}

/// What is known of the secrets.
#[derive(Clone, Copy)]
pub struct Known<'k> {
    pub content: &'k Content,
    /// Whose webhooks are compared.
    pub scope: &'k Scope,
    /// The project of the key.
    pub own: Option<&'k str>,
    /// Whether the file has a secret for this type.
    pub lists_key: &'k dyn Fn(&str) -> bool,
}

/// A webhook that is there, or is to be.
#[derive(Clone, Debug)]
pub struct Planned {
    pub event_type: String,
    /// Where it is to lead; where it leads, if it is none of ours.
    pub url: String,
    /// As it is registered now.
    pub listed: Option<Webhook>,
    /// Whether it leads here, or did when we registered it; or is to.
    pub is_ours: bool,
    pub step: Step,
    pub secret: Secret,
    /// Whether another secret is made.
    pub rotates: bool,
}

/// What is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is as it is to be.
    Keep,
    Register,
    Update(Vec<Difference>),
    /// It leads here, and its type is not wanted any more.
    Delete,
    /// It is somebody else's, who is left alone.
    LeaveAlone,
}

/// How it differs from what it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    Url,
    Authorization,
    Inactive,
}

/// What is known of its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// It is kept since then, in milliseconds since the Unix epoch.
    Stored(u64),
    /// The file has one for this type.
    Listed,
    /// It is being changed since then.
    Changing(u64),
    /// It is registered, and nobody here knows its secret.
    Unknown,
    /// There is none, or it is nothing to us.
    None,
}

impl Planned {
    /// What was done with it, once it was.
    pub fn done(&self) -> &'static str {
        match (&self.step, self.rotates) {
            (Step::Register, _) => "registered",
            (Step::Update(_), false) => "updated",
            (Step::Update(_), true) => "updated and rotated",
            (Step::Delete, _) => "deleted",
            (Step::Keep, true) => "rotated",
            (Step::Keep, false) | (Step::LeaveAlone, _) => "left as it is",
        }
    }

    /// Whether anything is done with it.
    pub fn changes(&self) -> bool {
        self.rotates || !matches!(self.step, Step::Keep | Step::LeaveAlone)
    }
}

impl Wanted<'_> {
    /// Where the webhook of a type leads.
    pub fn url(&self, event_type: &str) -> Option<String> {
        let public_url = &self.register?.public_url;
        Some(format!("{public_url}{}", self.path.of_type(event_type)))
    }

    /// Whether a webhook of this type that leads there is ours.
    pub fn leads_here(&self, event_type: &str, url: &str) -> bool {
        match self.url(event_type) {
            Some(ours) => url == ours,
            // Where it does not say how senders reach it, the path has to tell.
            None => url.ends_with(&self.path.of_type(event_type)),
        }
    }
}

/// Compares. `rotate_unknown`: whether secrets that nobody knows are made anew.
pub fn plan(
    wanted: Wanted,
    known: Known,
    listed: &[Webhook],
    rotate_unknown: bool,
) -> Vec<Planned> {
    let types = wanted.register.map(|register| &register.types[..]).unwrap_or_default();
    let ours = types.iter().map(|event_type| {
        let listed = listed.iter().find(|webhook| webhook.event_type == *event_type);
        let url = wanted.url(event_type).unwrap_or_default();
        let step = match listed {
            None => Step::Register,
            Some(webhook) => match differences(webhook, &url, wanted, known) {
                differences if differences.is_empty() => Step::Keep,
                differences => Step::Update(differences),
            },
        };
        let secret = secret(known, event_type, listed.is_some());
        let rotates = listed.is_some()
            && (matches!(secret, Secret::Changing(_))
                || (rotate_unknown && secret == Secret::Unknown));
        let is_ours = listed.is_none_or(|webhook| is_ours(wanted, known, webhook));
        let (event_type, listed) = (event_type.clone(), listed.cloned());
        Planned { event_type, url, listed, is_ours, step, secret, rotates }
    });
    let mut others: Vec<Planned> = listed
        .iter()
        .filter(|webhook| !types.contains(&webhook.event_type))
        .map(|webhook| {
            let is_ours = is_ours(wanted, known, webhook);
            let deletes = is_ours && wanted.register.is_some();
            Planned {
                event_type: webhook.event_type.clone(),
                url: webhook.url.clone(),
                step: if deletes { Step::Delete } else { Step::LeaveAlone },
                secret: match is_ours {
                    true => secret(known, &webhook.event_type, true),
                    false => Secret::None,
                },
                listed: Some(webhook.clone()),
                is_ours,
                rotates: false,
            }
        })
        .collect();
    others.sort_by(|one, other| one.event_type.cmp(&other.event_type));
    ours.chain(others).collect()
}

/// Whether a registered webhook leads here, or did when we registered it.
fn is_ours(wanted: Wanted, known: Known, webhook: &Webhook) -> bool {
    let kept = known.content.of(known.scope, known.own, &webhook.event_type);
    wanted.leads_here(&webhook.event_type, &webhook.url)
        || kept.is_some_and(|kept| kept.url == webhook.url)
}

/// What stands for the `Authorization` header of a webhook, or for none.
pub fn digest(authorization: Option<&SecretString>) -> String {
    keyring::digest(authorization.map(|value| value.expose_secret().as_bytes()).unwrap_or_default())
}

fn differences(webhook: &Webhook, url: &str, wanted: Wanted, known: Known) -> Vec<Difference> {
    let kept = known.content.of(known.scope, known.own, &webhook.event_type);
    let registered = kept.and_then(|kept| kept.authorization.as_ref());
    let same_authorization = match (&webhook.authorization, wanted.authorization) {
        (None, None) => true,
        (Some(shown), Some(wanted)) if secret::same(shown, wanted) => true,
        // What is masked is what was registered last, as far as anybody can tell.
        (Some(shown), Some(wanted)) if is_masked(shown) => {
            registered == Some(&digest(Some(wanted)))
        }
        _ => false,
    };
    let all = [
        (Difference::Url, webhook.url != url),
        (Difference::Authorization, !same_authorization),
        (Difference::Inactive, !webhook.is_active),
    ];
    all.into_iter().filter_map(|(difference, is_there)| is_there.then_some(difference)).collect()
}

/// Whether a value is shown with a part of it hidden.
fn is_masked(shown: &SecretString) -> bool {
    let shown = shown.expose_secret();
    shown.is_empty() || shown.contains(['*', '•', '…']) || shown.contains("...")
}

fn secret(known: Known, event_type: &str, is_registered: bool) -> Secret {
    let Known { content, scope, own, lists_key } = known;
    let change = content
        .changes
        .iter()
        .find(|change| change.name.event_type == event_type && change.name.is_of(scope, own));
    let kept = content.of(scope, own, event_type);
    match (change, kept.filter(|kept| kept.secret.is_some())) {
        (Some(change), _) => Secret::Changing(change.since_ms),
        _ if !is_registered => Secret::None,
        (None, Some(kept)) => Secret::Stored(kept.since_ms),
        (None, None) if lists_key(event_type) => Secret::Listed,
        (None, None) => Secret::Unknown,
    }
}

#[cfg(test)]
mod tests;
