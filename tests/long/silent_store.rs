//! Stores that are asked again until a deadline.

use std::fs;

use crate::bucket::{Bucket, Refusal};
use crate::world::{World, noise};

#[test]
fn a_put_that_is_put_off_for_good_ends_and_asks_for_nothing_else() {
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
    // Each of these would have been waited for as long.
    assert_eq!(bucket.count("?delete"), 0);
    bucket.forgive();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    world.sound();
}
