//! The numbers of a server since it began, for Prometheus.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The bounds of the classes of durations in seconds: from a millisecond to half a minute.
const FIRST_SECONDS: f64 = 0.001;
const FACTOR: f64 = 2.0;
const CLASSES: u16 = 16;

/// The name of the call that a reply belongs to, for the log of requests and the numbers.
#[derive(Clone, Copy)]
pub(super) struct CallName(pub(super) &'static str);

/// A kind of request: the name of a call, or a method and the pattern of a path. There are as many as
/// the server has routes and calls.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    call: String,
}

/// A kind of reply.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    call: String,
    status: u16,
}

/// The numbers of a server.
pub(super) struct Counters {
    requests: Family<Outcome, Counter>,
    seconds: Family<Kind, Histogram, fn() -> Histogram>,
    under_way: Gauge,
    registry: Registry,
}

/// A request that counts as under way until this is dropped.
pub(super) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(FIRST_SECONDS, FACTOR, CLASSES))
}

impl Default for Counters {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("artifactfs_server");
        let requests = Family::default();
        registry.register("requests", "Requests with a reply", requests.clone());
        let seconds = Family::new_with_constructor(histogram as fn() -> Histogram);
        let help = "Time until the reply began, with waits for changes";
        registry.register_with_unit("request", help, Unit::Seconds, seconds.clone());
        let under_way = Gauge::default();
        let help = "Requests without a reply yet, with waits for changes";
        registry.register("requests_under_way", help, under_way.clone());
        Self { requests, seconds, under_way, registry }
    }
}

impl Counters {
    /// Counts a request as under way.
    pub(super) fn begin(&self) -> UnderWay {
        self.under_way.inc();
        UnderWay(self.under_way.clone())
    }

    /// Counts a reply.
    pub(super) fn end(
        &self,
        call: Option<CallName>,
        route: String,
        status: StatusCode,
        took: Duration,
    ) {
        let call = call.map_or(route, |CallName(name)| name.to_owned());
        self.seconds.get_or_create(&Kind { call: call.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&Outcome { call, status: status.as_u16() }).inc();
    }

    /// Returns the registry of the numbers.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// Returns the method and the pattern of the path of a request.
pub(super) fn route_of(request: &Request) -> String {
    let pattern = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    // A method is any word that a client sends.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "PUT" | "POST" | "DELETE") => known,
        _ => "OTHER",
    };
    format!("{method} {}", pattern.unwrap_or("other"))
}
