//! The store in a directory.

use super::store::keeps_its_promises;

#[test]
fn a_directory_keeps_the_contract_of_a_store() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    keeps_its_promises("file:store", &[], dir.path(), 1);
}
