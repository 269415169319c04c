//! Metric families on the wire.
//!
//! The library writes OpenMetrics, where a counter's family is named without `_total`. In
//! Prometheus' own text format, which every scraper takes, it is named with it: so counters are
//! written under their whole name, with their value as it stands.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet},
    metrics::{MetricType, exemplar::Exemplar},
};

use crate::meter::Reading;

/// Label names and values.
pub type Labels<const N: usize> = [(&'static str, String); N];

type NoExemplars<'a> = Option<&'a std::collections::HashMap<usize, Exemplar<NoLabelSet, f64>>>;

const NANOS_PER_SECOND: f64 = 1e9;

/// Writes families one after the other.
pub struct Families<'e>(pub DescriptorEncoder<'e>);

impl Families<'_> {
    pub fn counter(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.begin(name, help, MetricType::Counter)?.encode_gauge(&value)
    }

    pub fn counters<const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, V)>,
    ) -> fmt::Result {
        values_of(self.begin(name, help, MetricType::Counter)?, values)
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    pub fn gauges<const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, V)>,
    ) -> fmt::Result {
        values_of(self.begin(name, help, MetricType::Gauge)?, values)
    }

    /// A histogram of times, which are read in nanoseconds and written in seconds.
    pub fn times(&mut self, name: &str, help: &str, reading: &Reading) -> fmt::Result {
        let mut encoder = self.begin(name, help, MetricType::Histogram)?;
        histogram(&mut encoder, reading, NANOS_PER_SECOND)
    }

    /// The same by labels.
    pub fn times_by<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        readings: impl IntoIterator<Item = (Labels<N>, Reading)>,
    ) -> fmt::Result {
        let mut encoder = self.begin(name, help, MetricType::Histogram)?;
        for (labels, reading) in readings {
            histogram(&mut encoder.encode_family(&labels)?, &reading, NANOS_PER_SECOND)?;
        }
        Ok(())
    }

    /// A histogram of sizes.
    pub fn sizes(&mut self, name: &str, help: &str, reading: &Reading) -> fmt::Result {
        histogram(&mut self.begin(name, help, MetricType::Histogram)?, reading, 1.0)
    }

    fn begin<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

fn values_of<const N: usize, V: EncodeGaugeValue>(
    mut encoder: MetricEncoder,
    values: impl IntoIterator<Item = (Labels<N>, V)>,
) -> fmt::Result {
    for (labels, value) in values {
        encoder.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn histogram(encoder: &mut MetricEncoder, reading: &Reading, unit: f64) -> fmt::Result {
    let scaled = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / unit);
    let buckets: Vec<(f64, u64)> =
        reading.buckets.iter().map(|(bound, count)| (scaled(*bound), *count)).collect();
    let none: NoExemplars = None;
    encoder.encode_histogram(reading.sum as f64 / unit, reading.count(), &buckets, none)
}
