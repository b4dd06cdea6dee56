//! Facts as JSON documents: the same in every face that speaks JSON.

use serde_json::{Value, json};

use crate::model::digest::Digest;
use crate::model::external::External;
use crate::model::properties::Ttl;
use crate::model::run::RunInfo;
use crate::model::tree::{Entry, Target};
use crate::model::version::{ArtifactInfo, ProjectInfo, VersionInfo};

/// Returns a project as JSON.
pub fn project(info: &ProjectInfo) -> Value {
    json!({ "project": info.name, "artifacts": info.artifacts })
}

/// Returns a version as JSON.
pub fn version(info: &VersionInfo) -> Value {
    json!({
        "reference": info.reference().to_string(),
        "project": info.path.project,
        "artifact": info.path.artifact,
        "version": info.number.to_string(),
        "type": info.artifact_type,
        "digest": info.root.to_string(),
        "aliases": info.aliases,
        "description": info.description,
        "metadata": info.metadata.to_object(),
        "tags": info.tags,
        "ttl": info.ttl.to_string(),
        "expires": info.expires.map(|at| at.to_string()),
        "protected": info.protected,
        "created": info.created.to_string(),
        "files": info.totals.files,
        "directories": info.totals.directories,
        "symlinks": info.totals.symlinks,
        "size_bytes": info.totals.size_bytes,
        "external": info.totals.external,
    })
}

/// Returns an artifact as JSON.
pub fn artifact(info: &ArtifactInfo) -> Value {
    json!({
        "artifact": info.path.to_string(),
        "type": info.artifact_type,
        "versions": info.versions,
        "newest": info.newest.map(|number| number.to_string()),
        "newest_created": info.newest_created.map(|at| at.to_string()),
        "description": info.description,
        "tags": info.tags,
        "ttl": info.ttl_milliseconds.map_or(Ttl::Never, Ttl::After).to_string(),
        "protected": info.protected,
    })
}

/// Returns a run as JSON.
pub fn run(run: &RunInfo) -> Value {
    json!({
        "id": run.start.id,
        "project": run.start.project,
        "name": run.start.name,
        "state": run.state,
        "group": run.start.group,
        "job_type": run.start.job_type,
        "sweep": run.start.sweep,
        "command": run.start.command,
        "config": run.start.config.to_object(),
        "summary": run.summary.to_object(),
        "created": run.created.to_string(),
        "ended": run.ended.map(|at| at.to_string()),
        "exit_code": run.exit_code,
        "metric_rows": run.rows,
    })
}

/// Returns the description of an external file as JSON.
pub fn external(external: &External) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "url": external.url.as_str(),
        "etag": some(&external.etag),
        "version": some(&external.version),
        "modified": some(&external.modified),
        "checksum": external.checksum.map(|sum| Digest::from_bytes(sum).to_string()),
        "proven": external.is_proven(),
    })
}

/// Returns an entry of a directory as JSON; `described` describes an external file.
pub fn entry(entry: &Entry, described: Option<&External>) -> Value {
    let mut document = match &entry.target {
        Target::Directory(digest) => {
            json!({ "kind": "directory", "digest": digest.to_string() })
        }
        Target::Symlink(target) => {
            let mut document = json!({ "kind": "symlink" });
            name_in_json(&mut document, "target", target);
            document
        }
        Target::File { content, executable } => json!({
            "kind": "file",
            "size_bytes": content.size_bytes(),
            "executable": executable,
            "digest": content.digest().map(|digest| digest.to_string()),
            "external": described.map(external),
        }),
    };
    name_in_json(&mut document, "name", entry.name.as_bytes());
    document
}

/// Sets `key` to a name as text; if that loses bytes, sets `<key>_hex` to the bytes in hexadecimal.
pub fn name_in_json(document: &mut Value, key: &str, bytes: &[u8]) {
    document[key] = String::from_utf8_lossy(bytes).into();
    if std::str::from_utf8(bytes).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        document[format!("{key}_hex")] = hex.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_text_are_told_exactly() {
        let mut document = json!({});
        name_in_json(&mut document, "name", b"a\xff");
        name_in_json(&mut document, "target", b"b");
        let wanted = json!({ "name": "a\u{fffd}", "name_hex": "61ff", "target": "b" });
        assert_eq!(document, wanted);
    }
}
