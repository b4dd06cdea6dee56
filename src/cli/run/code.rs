//! `run --save-code`.

use std::ffi::OsString;
use std::sync::Arc;

use super::super::context::Context;
use artifactfs::error::{Error, Result};
use artifactfs::model::new_version::NewVersion;
use artifactfs::model::reference::ArtifactPath;
use artifactfs::model::run::RunInfo;
use artifactfs::ops::code::Code;
use artifactfs::ops::put::{CODE_TYPE, PutRequest, Silent, put};
use artifactfs::ops::repository::Repository;

/// Logs the code of a command as an artifact of the run.
pub fn save(
    context: &Context,
    repository: &Arc<Repository>,
    run: &RunInfo,
    command: &[OsString],
) -> Result<()> {
    let here = std::env::current_dir().map_err(|e| Error::io("cannot find this directory", e))?;
    let code = Code::of(command, &here);
    if code.is_nothing() {
        context.output.note("artifactfs: no code to save: the command names no script or notebook");
        return Ok(());
    }
    let folder = tempfile::tempdir().map_err(|e| Error::io("cannot make a temporary folder", e))?;
    let project = &run.start.project;
    let gathered = code.gather(folder.path(), project, command)?;
    let path = ArtifactPath { project: project.clone(), artifact: gathered.artifact };
    let version = NewVersion {
        artifact_type: Some(CODE_TYPE.parse()?),
        metadata: Some(gathered.metadata),
        run: Some(run.start.id.clone()),
        ..NewVersion::plain(path.clone())
    };
    let request = PutRequest { version, ..PutRequest::plain(folder.path().to_owned(), path) };
    let report = put(repository, &request, Arc::new(Silent))?;
    if let Some(committed) = report.committed {
        tracing::info!("code: {}:{}", committed.path, committed.number);
    }
    Ok(())
}
