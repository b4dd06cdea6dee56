//! Stores whose refusals are retried until a deadline.

use std::fs;

use crate::bucket::{Bucket, Refusal};
use crate::world::{World, noise};

#[test]
fn a_put_refused_until_its_deadline_sends_nothing_more() {
    let bucket = Bucket::start();
    let world = World::with_store(bucket.environment(), "s3://b/x");
    let source = world.tree("src", &[]);
    for n in 0..6 {
        fs::write(source.join(n.to_string()), noise(n, 3_000_000)).unwrap();
    }
    bucket.refuse(Refusal::new(".pack", u64::MAX, 503, "SlowDown"));
    let refused = world.run(&["put", "-n", "p/a", source.to_str().unwrap()]);
    assert!(
        refused.code == 15 && refused.err.contains("SlowDown"),
        "{} {}",
        refused.code,
        refused.err
    );
    // Each of these requests would be retried for as long.
    assert_eq!(bucket.count("?delete"), 0);
    bucket.forgive();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    world.sound();
}
