//! What client and server agree on.

/// The version of what crosses the socket; both sides must speak the same.
pub const PROTOCOL: &str = "6";
/// The header that says it.
pub const PROTOCOL_HEADER: &str = "artifactfs-protocol";
/// The path of a daemon's numbers.
pub const STATS_PATH: &str = "/v1/stats";
/// The path of registry calls.
pub const REGISTRY_PATH: &str = "/v1/registry";
