//! What a Sonzai source says of Sonzai's API.

use schemars::JsonSchema;
use serde::Deserialize;

use super::OneOrMany;
use crate::source::sonzai::settings::Mode;

/// Sonzai's API, for whatever is asked of it: `register:`, `poll:`, commands.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Api {
    /// Where the API is; `https://api.sonz.ai` if left out.
    #[schemars(extend("x-secret" = "web-url"))]
    pub url: Option<String>,
    /// The API's key, as `${NAME}` or `${file:PATH}`. It is for one project.
    #[schemars(extend("x-secret" = true))]
    pub key: String,
    /// The path of a PEM file with the only CAs that are trusted; those of the system if left out.
    pub ca: Option<String>,
}

/// The webhooks that `waypost sonzai webhooks sync` registers.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Register {
    /// How Sonzai reaches Waypost, like `https://hooks.example.com`. A webhook's URL is this and the
    /// source's `path:`, with the event type in it.
    #[schemars(extend("x-secret" = "web-url"))]
    pub public_url: String,
    /// The id of the project; the key's own if left out.
    pub project: Option<String>,
    /// The event types, one or a list.
    pub types: OneOrMany,
}

/// What is asked for where webhooks do not arrive: a project's notifications or those of agents.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Poll {
    /// The id of the project whose notifications are polled; they say their types. Not together with
    /// `agents`.
    pub project: Option<String>,
    /// The agents whose notifications are polled: `all`, or a list of ids or names. Not together with
    /// `project`.
    pub agents: Option<OneOrMany>,
    /// With `agents`, the only users whose notifications are polled, by id; all if left out.
    pub users: Option<OneOrMany>,
    /// How often, from `1s` to `1h`; `30s` if left out.
    pub every: Option<String>,
    /// Poll `always`, or as a `fallback`: often only while webhooks do not arrive. `fallback` if left
    /// out.
    pub mode: Option<Mode>,
    /// Whether what is durable here is taken from the list, for whoever else polls, too; `true` if
    /// left out.
    pub take: Option<bool>,
    /// How far back is repaired once, after each start, like `2h` and at most `7d`; not at all if left
    /// out.
    pub repair: Option<String>,
    /// With `agents`, the type of a notification as an event; `agent.message` if left out.
    pub r#type: Option<String>,
}
