//! The few instrument shapes beyond Prometheus's own, so that a call site is one call that cannot fail
//! and no label value is ever made from data of unbounded variety.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use crate::change::position::{NodeId, ShardId};

/// Two names for one count: the Go program's and the one with Prometheus's suffix.
#[derive(Clone)]
pub struct TwinCounter {
    old: IntCounter,
    new: IntCounter,
}

impl TwinCounter {
    /// Adds to both.
    pub fn inc_by(&self, n: u64) {
        self.old.inc_by(n);
        self.new.inc_by(n);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.new.get()
    }
}

/// Two names for one number.
#[derive(Clone)]
pub struct TwinGauge {
    old: Gauge,
    new: Gauge,
}

impl TwinGauge {
    /// Sets both.
    pub fn set(&self, value: f64) {
        self.old.set(value);
        self.new.set(value);
    }
}

/// Two names for one distribution.
#[derive(Clone)]
pub struct TwinHistogram {
    old: Histogram,
    new: Histogram,
}

impl TwinHistogram {
    /// Observes in both.
    pub fn observe(&self, value: f64) {
        self.old.observe(value);
        self.new.observe(value);
    }
}

/// A count per reason. Reasons are words of the source code, so their number is bounded.
#[derive(Clone)]
pub struct ReasonCounter(pub(super) IntCounterVec);

impl ReasonCounter {
    /// Counts one more for `reason`.
    pub fn inc(&self, reason: &'static str) {
        self.inc_by(reason, 1);
    }

    /// What was counted for `reason`.
    pub fn get(&self, reason: &'static str) -> u64 {
        let counter = self.0.get_metric_with_label_values(&[reason]);
        counter.map_or(0, |counter| counter.get())
    }

    /// Counts `n` more for `reason`.
    pub fn inc_by(&self, reason: &'static str, n: u64) {
        if let Ok(counter) = self.0.get_metric_with_label_values(&[reason]) {
            counter.inc_by(n);
        }
    }
}

/// A flag per reason, of which at most one is up.
#[derive(Clone)]
pub struct ReasonFlag(pub(super) IntGaugeVec);

impl ReasonFlag {
    /// These reasons exist: their flags are down, rather than not there.
    pub fn declare(&self, reasons: &[&'static str]) {
        for reason in reasons {
            if let Ok(flag) = self.0.get_metric_with_label_values(&[reason]) {
                flag.set(0);
            }
        }
    }

    /// Takes all flags down, then raises the one of `reason`.
    pub fn set(&self, reason: Option<&'static str>) {
        // Removing all would make a raised flag's series vanish instead of falling to 0: alerts want the 0.
        for family in self.0.collect() {
            for metric in family.get_metric() {
                for label in metric.get_label() {
                    if label.name() == "reason"
                        && let Ok(flag) = self.0.get_metric_with_label_values(&[label.value()])
                    {
                        flag.set(0);
                    }
                }
            }
        }
        if let Some(reason) = reason
            && let Ok(flag) = self.0.get_metric_with_label_values(&[reason])
        {
            flag.set(1);
        }
    }
}

/// A number per shard.
#[derive(Clone)]
pub struct ShardGauge(pub(super) IntGaugeVec);

impl ShardGauge {
    /// Sets the number of one shard.
    pub fn set(&self, shard: ShardId, value: u64) {
        if let Ok(gauge) = self.0.get_metric_with_label_values(&[shard.to_string()]) {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

/// Seconds per shard.
#[derive(Clone)]
pub struct ShardSeconds(pub(super) GaugeVec);

impl ShardSeconds {
    /// Sets the time of one shard.
    pub fn set(&self, shard: ShardId, time: Duration) {
        if let Ok(gauge) = self.0.get_metric_with_label_values(&[shard.to_string()]) {
            gauge.set(time.as_secs_f64());
        }
    }
}

/// A number for each of a few things with a name.
#[derive(Clone)]
pub struct NamedGauge(pub(super) IntGaugeVec);

impl NamedGauge {
    /// Sets the number of one of them. Their names are words of the program and numbers of shards.
    pub fn set(&self, name: &str, value: u64) {
        if let Ok(gauge) = self.0.get_metric_with_label_values(&[name]) {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

/// A real number for each of a few things with a name.
#[derive(Clone)]
pub struct NamedReal(pub(super) GaugeVec);

impl NamedReal {
    /// Sets the number of one of them.
    pub fn set(&self, name: &'static str, value: f64) {
        if let Ok(gauge) = self.0.get_metric_with_label_values(&[name]) {
            gauge.set(value);
        }
    }
}

/// A number for each of the other nodes, and perhaps for each of their shards.
#[derive(Clone)]
pub struct PeerGauge(pub(super) GaugeVec);

impl PeerGauge {
    /// Sets the number of a node.
    pub fn set(&self, peer: NodeId, value: f64) {
        if let Ok(gauge) = self.0.get_metric_with_label_values(&[peer.to_string()]) {
            gauge.set(value);
        }
    }

    /// Sets the number of a node in a shard.
    pub fn set_shard(&self, peer: NodeId, shard: ShardId, value: u64) {
        // Exact up to 2^53.
        #[allow(clippy::cast_precision_loss)]
        self.set_real(peer, shard, value as f64);
    }

    /// Sets the time of a node in a shard.
    pub fn set_seconds(&self, peer: NodeId, shard: ShardId, time: Duration) {
        self.set_real(peer, shard, time.as_secs_f64());
    }

    fn set_real(&self, peer: NodeId, shard: ShardId, value: f64) {
        let labels = [peer.to_string(), shard.to_string()];
        if let Ok(gauge) = self.0.get_metric_with_label_values(&labels) {
            gauge.set(value);
        }
    }

    /// Removes what is shown of a node that is there no more, or of one of its shards.
    pub fn remove(&self, peer: NodeId, shard: Option<ShardId>) {
        let mut labels = vec![peer.to_string()];
        labels.extend(shard.map(|shard| shard.to_string()));
        // It may not have been shown at all.
        let _ = self.0.remove_label_values(&labels);
    }
}

/// Depth and bound of every queue.
#[derive(Clone)]
pub struct QueueGauges {
    depth: IntGaugeVec,
    limit: IntGaugeVec,
}

impl QueueGauges {
    /// Names a queue, notes its bound (in items, or in bytes where the name says so) and returns the gauge of
    /// its depth.
    ///
    /// # Errors
    /// Never with the label set of this program; the type is Prometheus's.
    pub fn queue(&self, name: &'static str, limit: usize) -> Result<IntGauge, prometheus::Error> {
        let bound = self.limit.get_metric_with_label_values(&[name])?;
        bound.set(i64::try_from(limit).unwrap_or(i64::MAX));
        self.depth.get_metric_with_label_values(&[name])
    }
}

/// Makes instruments under one prefix with one constant label, and registers them.
pub(super) struct Maker<'a> {
    pub(super) registry: &'a Registry,
    pub(super) namespace: &'a str,
    pub(super) subsystem: &'a str,
    pub(super) node_id: String,
}

type Made<T> = Result<T, super::MetricsError>;

impl Maker<'_> {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help)
            .namespace(self.namespace)
            .subsystem(self.subsystem)
            .const_label("node_id", &self.node_id)
    }

    pub(super) fn register<T: Collector + Clone + 'static>(
        &self,
        name: &str,
        made: prometheus::Result<T>,
    ) -> Made<T> {
        made.and_then(|instrument| {
            self.registry.register(Box::new(instrument.clone()))?;
            Ok(instrument)
        })
        .map_err(|source| super::MetricsError::Register {
            name: self.opts(name, "").fq_name(),
            source,
        })
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Made<IntCounter> {
        self.register(name, IntCounter::with_opts(self.opts(name, help)))
    }

    pub(super) fn counter_with(&self, opts: (&str, &str, &str, &str)) -> Made<IntCounter> {
        let (name, help, label, value) = opts;
        let opts = self.opts(name, help).const_label(label, value);
        self.register(name, IntCounter::with_opts(opts))
    }

    pub(super) fn counters(&self, name: &str, help: &str, label: &str) -> Made<IntCounterVec> {
        self.register(name, IntCounterVec::new(self.opts(name, help), &[label]))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.register(name, IntGauge::with_opts(self.opts(name, help)))
    }

    pub(super) fn gauge_with(&self, opts: (&str, &str, &str, &str)) -> Made<IntGauge> {
        let (name, help, label, value) = opts;
        let opts = self.opts(name, help).const_label(label, value);
        self.register(name, IntGauge::with_opts(opts))
    }

    pub(super) fn real_gauge(&self, name: &str, help: &str) -> Made<Gauge> {
        self.register(name, Gauge::with_opts(self.opts(name, help)))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.register(name, IntGaugeVec::new(self.opts(name, help), labels))
    }

    pub(super) fn reals(&self, name: &str, help: &str, labels: &[&str]) -> Made<GaugeVec> {
        self.register(name, GaugeVec::new(self.opts(name, help), labels))
    }

    pub(super) fn queues(&self, depth: (&str, &str), limit: (&str, &str)) -> Made<QueueGauges> {
        Ok(QueueGauges {
            depth: self.gauges(depth.0, depth.1, &["queue"])?,
            limit: self.gauges(limit.0, limit.1, &["queue"])?,
        })
    }

    pub(super) fn twin_counter(&self, old: &str, new: &str, help: &str) -> Made<TwinCounter> {
        Ok(TwinCounter {
            old: self.counter(old, help)?,
            new: self.counter(new, help)?,
        })
    }

    pub(super) fn twin_gauge(&self, old: &str, new: &str, help: &str) -> Made<TwinGauge> {
        Ok(TwinGauge {
            old: self.real_gauge(old, help)?,
            new: self.real_gauge(new, help)?,
        })
    }

    pub(super) fn twin_seconds(
        &self,
        old: &str,
        new: &str,
        help: &str,
        buckets: &[f64],
    ) -> Made<TwinHistogram> {
        Ok(TwinHistogram {
            old: self.seconds(old, help, buckets)?,
            new: self.seconds(new, help, buckets)?,
        })
    }

    pub(super) fn seconds(&self, name: &str, help: &str, buckets: &[f64]) -> Made<Histogram> {
        let opts = HistogramOpts::new(name, help)
            .namespace(self.namespace)
            .subsystem(self.subsystem)
            .const_label("node_id", &self.node_id)
            .buckets(buckets.to_vec());
        self.register(name, Histogram::with_opts(opts))
    }
}
