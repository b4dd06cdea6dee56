//! Statistics as text for Prometheus (prometheus.io/docs/instrumenting/exposition_formats).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::error::{Error, RepositoryHint, Result};
use crate::ops::repository::Repository;
use crate::ops::stats::{Stats, stats};

/// The HTTP path of the metrics.
const PATH: &str = "/metrics";
/// The type of the text.
const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The statistics at one moment.
#[derive(Debug)]
struct Moment(Stats);

type Row = (&'static str, &'static str, u64);

impl Moment {
    fn counters(&self) -> [Row; 10] {
        let Stats {
            cache_hits: hits,
            cache_misses: misses,
            saved_bytes,
            fetched_bytes,
            requests,
            ..
        } = self.0;
        let Stats { retries, failures, wrong_objects, evictions, .. } = self.0;
        [
            ("reads", "Reads of objects", hits + misses),
            ("cache_hits", "Reads of objects that did not wait for the store", hits),
            ("cache_misses", "Reads of objects that waited for the store", misses),
            ("saved_bytes", "Bytes read that did not have to be fetched", saved_bytes),
            ("store_bytes", "Bytes that came from the store", fetched_bytes),
            ("store_requests", "Requests to the store that ended", requests),
            ("store_retries", "Attempts that failed and were made again", retries),
            ("store_failures", "Requests to the store that failed", failures),
            ("wrong_objects", "Objects whose bytes were wrong", wrong_objects),
            ("cache_evictions", "Segments that left the cache for others", evictions),
        ]
    }

    fn gauges(&self) -> [Row; 4] {
        let Stats { in_flight, cache_bytes, cache_limit_bytes, cache_files, .. } = self.0;
        [
            ("store_requests_in_flight", "Requests to the store under way", in_flight),
            ("cache_bytes", "Bytes in the cache", cache_bytes),
            ("cache_limit_bytes", "Bytes the cache may have", cache_limit_bytes),
            ("cache_segments", "Segments in the cache", cache_files),
        ]
    }
}

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut put = |(name, help, _): Row, metric: &dyn Fn() -> Box<dyn EncodeAny>| {
            let metric = metric();
            let unit: Option<&Unit> = None;
            let encoder = encoder.encode_descriptor(name, help, unit, metric.kind())?;
            metric.put(encoder)
        };
        for row in self.counters() {
            put(row, &|| Box::new(ConstCounter::new(row.2)))?;
        }
        for row in self.gauges() {
            put(row, &|| Box::new(ConstGauge::new(i64::try_from(row.2).unwrap_or(i64::MAX))))?;
        }
        Ok(())
    }
}

/// A metric of either kind.
trait EncodeAny {
    fn kind(&self) -> prometheus_client::metrics::MetricType;
    fn put(
        &self,
        encoder: prometheus_client::encoding::MetricEncoder<'_>,
    ) -> Result<(), std::fmt::Error>;
}

impl<T: EncodeMetric> EncodeAny for T {
    fn kind(&self) -> prometheus_client::metrics::MetricType {
        self.metric_type()
    }

    fn put(
        &self,
        encoder: prometheus_client::encoding::MetricEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        self.encode(encoder)
    }
}

/// Returns the numbers of a registry in the OpenMetrics text format.
pub(super) fn text_of(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, registry);
    text
}

/// Returns statistics in the same format.
fn text(stats: Stats) -> String {
    let mut registry = Registry::with_prefix("artifactfs");
    registry.register_collector(Box::new(Moment(stats)));
    text_of(&registry)
}

fn router_of(text: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    Router::new().route(PATH, get(move || async move { ([(CONTENT_TYPE, CONTENT)], text()) }))
}

/// Returns the route of the metrics of `repository`.
pub(crate) fn router(repository: Arc<Repository>) -> Router {
    router_of(move || text(stats(&repository)))
}

/// Serves the metrics of `repository` on TCP until this process ends. They contain no secrets.
///
/// # Errors
/// Fails if the address cannot be bound.
pub(crate) fn serve_metrics(address: SocketAddr, repository: Arc<Repository>) -> Result<()> {
    serve(address, move || text(stats(&repository)))
}

/// Serves `text` on TCP until this process ends.
///
/// # Errors
/// Fails if the address cannot be bound.
pub(super) fn serve(
    address: SocketAddr,
    text: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Result<()> {
    let cannot = |e| {
        Error::io(format!("cannot listen on {address}"), e).hint(RepositoryHint::ListenElsewhere)
    };
    let listener = std::net::TcpListener::bind(address).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let router = router_of(text);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::io("cannot serve metrics", e))?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let served = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => axum::serve(listener, router).await,
                Err(e) => Err(e),
            };
            if let Err(e) = served {
                tracing::error!("the server of metrics ended: {e}");
            }
        });
    });
    Ok(())
}
