//! `/metrics`: everything counted, in Prometheus' text format 0.0.4. `docs/metrics.md` lists it.
//!
//! Written from the meters' owners at each scrape; nothing is kept here. Label values are names from
//! the routing table, and words and numbers of our own: what a sender says never becomes one.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode_registry},
    registry::Registry,
};

use self::families::Families;
use super::view::View;

mod brokers;
mod commands;
mod config;
mod families;
mod ingress;
mod journal;
mod polls;
mod process;
mod sonzai;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page.
pub fn page(view: &Arc<View>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(view.clone())));
    let mut text = String::new();
    // Writing to a string cannot fail, and the metrics' own code returns no other error.
    encode_registry(&mut text, &registry).expect("a string takes everything");
    text
}

struct Page(Arc<View>);

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let (view, mut families) = (&*self.0, Families(encoder));
        let out = &mut families;
        out.gauge(
            "waypost_ready",
            "Whether events can be taken.",
            view.not_ready().is_empty() as u64,
        )?;
        ingress::write(view, out)?;
        sonzai::write(view, out)?;
        journal::write(view, out)?;
        brokers::write(view, out)?;
        polls::write(view, out)?;
        commands::write(view, out)?;
        config::write(&view.config, out)?;
        process::write(view, out)
    }
}
