//! Families of metrics, in the order in which they were first named.

use std::io;

use prometheus::core::Collector;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, Histogram, TextEncoder};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// See the module.
#[derive(Default)]
pub(super) struct Page(Vec<MetricFamily>);

impl Page {
    /// One value. Exact below 2^53.
    pub(super) fn one(&mut self, kind: Kind, name: &str, help: &str, labels: &[(&str, String)], value: u64) {
        let mut metric = Metric::from_label(pairs(labels));
        let value = value as f64;
        let field = match kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
                MetricType::COUNTER
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
                MetricType::GAUGE
            }
        };
        self.add(field, name, help, metric);
    }

    /// One histogram as it is now.
    pub(super) fn histogram(&mut self, name: &str, help: &str, labels: &[(&str, String)], from: &Histogram) {
        let collected = from.collect();
        let Some(now) = collected.first().and_then(|f| f.get_metric().first()) else { return };
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(now.get_histogram().clone());
        self.add(MetricType::HISTOGRAM, name, help, metric);
    }

    fn add(&mut self, kind: MetricType, name: &str, help: &str, metric: Metric) {
        let name = format!("migshare_storage_{name}");
        if let Some(family) = self.0.iter_mut().find(|f| f.name() == name) {
            family.mut_metric().push(metric);
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name);
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(vec![metric]);
        self.0.push(family);
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0, &mut text).map_err(io::Error::other)?;
        Ok(text)
    }
}

fn pairs(labels: &[(&str, String)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.clone());
        pair
    };
    labels.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_with_quotes_and_new_lines_stays_one_label() {
        let mut page = Page::default();
        page.one(Kind::Gauge, "x", "Help.", &[("mount", "/a\"b\nc".into())], 3);
        page.one(Kind::Gauge, "x", "Help.", &[("mount", "/d".into())], 4);
        let text = String::from_utf8(page.encode().unwrap()).unwrap();
        assert_eq!(
            text,
            "# HELP migshare_storage_x Help.\n# TYPE migshare_storage_x gauge\n\
             migshare_storage_x{mount=\"/a\\\"b\\nc\"} 3\nmigshare_storage_x{mount=\"/d\"} 4\n"
        );
    }
}
