//! The store in a directory.

use artifactfs::content::options::StoreOptions;
use artifactfs::content::store::Store;
use artifactfs::error::Kind;
use artifactfs::model::object::PackId;

use super::store::keeps_its_promises;

#[test]
fn a_directory_keeps_the_contract_of_a_store() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    keeps_its_promises("file:store", &[], dir.path(), 1);
}

#[test]
fn a_directory_that_is_only_read_is_not_made() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let url = "file:store".parse().unwrap();
    let store = Store::open(&url, &[], dir.path(), &StoreOptions::default()).unwrap();
    let id = PackId([1; 16]);
    assert_eq!(store.refuse_missing().unwrap_err().kind(), Kind::NotFound);
    assert_eq!(store.owner().unwrap(), None);
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(store.read_index(id).unwrap_err().kind(), Kind::NotFound);
    // Its disk may not be mounted, so nothing is written beside it.
    assert_eq!(store.create(id).err().map(|e| e.kind()), Some(Kind::NotFound));
    assert!(!dir.path().join("store").exists());
}
