//! The decision about a commit: a pure function of the rows that were seen.

use super::Update;
use crate::error::{Error, Kind, PutHint, Result};
use crate::model::name::{ArtifactType, VersionNumber};
use crate::model::properties::change_tags;
use crate::model::reference::ArtifactPath;
use crate::model::time::Timestamp;
use crate::registry::CommitRequest;
use crate::registry::names::decide::{Targets, apply, check_texts, keep_protected};
use crate::registry::record::{ArtifactRecord, VersionCount, VersionRecord};

/// The rows that a commit depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The artifact.
    pub(crate) artifact: Option<ArtifactRecord>,
    /// The count of its versions, also if its record has none.
    pub(crate) count: VersionCount,
    /// Its highest version that exists.
    pub(crate) newest: Option<(VersionNumber, VersionRecord)>,
    /// The latest time of any version that it ever had, in seconds, if that was recorded.
    pub(crate) last_time_seconds: Option<u64>,
    /// Its protected aliases.
    pub(crate) protected: Targets,
}

/// The change that a commit makes; afterwards its aliases and `latest` stand for the version.
#[derive(Debug)]
pub(super) enum Decision {
    /// The newest version has this content and gets new properties.
    Same(VersionNumber, VersionRecord),
    /// The artifact gets a version.
    New(VersionNumber, VersionRecord, ArtifactRecord),
}

impl Decision {
    /// Returns the number of the version.
    pub(crate) fn number(&self) -> VersionNumber {
        let (Self::Same(number, _) | Self::New(number, ..)) = self;
        *number
    }
}

/// Decides what a commit changes.
///
/// # Errors
/// [`Kind::Conflict`] for another type, another newest version than expected, and an alias that is
/// protected; [`Kind::Usage`] for texts, metadata and tags beyond their bounds.
pub(super) fn commit(seen: &Seen, request: &CommitRequest, now: Timestamp) -> Result<Decision> {
    let new = &request.version;
    check_texts(new.description.as_deref(), new.metadata.as_ref())?;
    let artifact = match &seen.artifact {
        Some(artifact) => {
            let (is, wanted) = (&artifact.artifact_type, new.artifact_type.as_ref());
            refuse_other_type(&new.path.to_string(), is, wanted)?;
            artifact.clone()
        }
        None => new_artifact(new.artifact_type.clone().unwrap_or_default()),
    };
    if let Some(expected) = new.expect {
        refuse_other_newest(&new.path, expected, seen.newest.as_ref().map(|(number, _)| *number))?;
    }
    let decision = match living(seen, &artifact, request, now) {
        Some((number, version)) => Decision::Same(number, with_properties(version, request)?),
        None => add(seen, artifact, request, now)?,
    };
    keep_protected(&new.path, &seen.protected, &new.aliases, Some(decision.number()))?;
    Ok(decision)
}

fn new_artifact(artifact_type: ArtifactType) -> ArtifactRecord {
    ArtifactRecord {
        artifact_type,
        next: VersionNumber(0),
        description: String::new(),
        tags: Vec::new(),
        ttl_milliseconds: None,
        protected: Vec::new(),
        count: Some(VersionCount::default()),
    }
}

/// Returns the newest version if it has the content of the commit, unless it has expired: then new
/// content would be deleted with it.
fn living<'a>(
    seen: &'a Seen,
    artifact: &ArtifactRecord,
    request: &CommitRequest,
    now: Timestamp,
) -> Option<(VersionNumber, &'a VersionRecord)> {
    let (number, version) =
        seen.newest.as_ref().filter(|(_, version)| version.root == request.root)?;
    let ttl = request.version.ttl.unwrap_or(version.ttl);
    let expires = ttl.expires(version.created, artifact.ttl_milliseconds);
    let kept = seen.protected.iter().any(|(_, target)| target == number);
    (kept || expires.is_none_or(|at| at > now)).then_some((*number, version))
}

fn with_properties(version: &VersionRecord, request: &CommitRequest) -> Result<VersionRecord> {
    let update = Update {
        description: request.version.description.clone(),
        metadata: request.version.metadata.clone(),
        ttl: request.version.ttl,
        tag: request.version.tags.clone(),
        ..Update::default()
    };
    let mut version = version.clone();
    apply(&mut version, &update)?;
    Ok(version)
}

fn add(
    seen: &Seen,
    mut artifact: ArtifactRecord,
    request: &CommitRequest,
    now: Timestamp,
) -> Result<Decision> {
    let (number, new) = (artifact.next, &request.version);
    let mut tags = Vec::new();
    change_tags(&mut tags, &new.tags, &[])?;
    let version = VersionRecord {
        root: request.root,
        totals: request.totals,
        created: now,
        time_seconds: time_after(seen, artifact.next, now),
        description: new.description.clone().unwrap_or_default(),
        metadata: new.metadata.clone().unwrap_or_default(),
        tags,
        ttl: new.ttl.unwrap_or_default(),
    };
    let newest = Some((number, now));
    artifact.count = Some(VersionCount { versions: seen.count.versions + 1, newest });
    artifact.next = VersionNumber(number.0 + 1);
    Ok(Decision::New(number, version, artifact))
}

/// Returns the time of the next version, in seconds: now, or one second after the latest time of
/// any version that the artifact ever had. So programs that compare paths, sizes and times see each
/// change.
fn time_after(seen: &Seen, next: VersionNumber, now: Timestamp) -> u64 {
    let now = now.seconds();
    let newest = seen.newest.as_ref().map(|(number, version)| (*number, version.time_seconds));
    // Older releases did not keep the times of deleted versions, which were those of their commits.
    let deleted = newest.is_none_or(|(number, _)| number.0 + 1 < next.0);
    let unknown = (seen.last_time_seconds.is_none() && next.0 > 0 && deleted).then_some(now);
    let times = [seen.last_time_seconds, newest.map(|(_, time)| time), unknown];
    let last = times.into_iter().flatten().max();
    last.map_or(now, |last| now.max(last.saturating_add(1)))
}

/// Refuses a commit if the newest version is not the expected one.
fn refuse_other_newest(
    path: &ArtifactPath,
    expected: VersionNumber,
    found: Option<VersionNumber>,
) -> Result<()> {
    if found == Some(expected) {
        return Ok(());
    }
    let found = found.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let what = format!("the newest version of {path} is {found}, not {expected}");
    Err(Error::new(Kind::Conflict, what).hint(PutHint::Expect))
}

/// Refuses a type that differs from the existing type of `what`.
pub(in crate::registry) fn refuse_other_type(
    what: &str,
    is: &ArtifactType,
    wanted: Option<&ArtifactType>,
) -> Result<()> {
    match wanted {
        Some(wanted) if wanted != is => {
            Err(Error::new(Kind::Conflict, format!("{what} has type {is}, not {wanted}"))
                .hint("an artifact keeps its type: leave it out, or choose another name"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;
    use crate::model::object_kind::ObjectKind;
    use crate::model::properties::Ttl;
    use proptest::prelude::*;

    fn root(seed: u8) -> Digest {
        Digest::of(ObjectKind::Tree, &[seed])
    }

    fn request(seed: u8) -> CommitRequest {
        CommitRequest::plain("p/a".parse().unwrap(), root(seed))
    }

    /// The rows after a decision, as the engine would hold them.
    fn after(mut seen: Seen, decision: Decision) -> Seen {
        match decision {
            Decision::Same(number, version) => seen.newest = Some((number, version)),
            Decision::New(number, version, artifact) => {
                seen.last_time_seconds = Some(version.time_seconds);
                seen.count = artifact.count.unwrap();
                seen.artifact = Some(artifact);
                seen.newest = Some((number, version));
            }
        }
        seen
    }

    #[test]
    fn the_first_commit_makes_the_artifact_and_version_0() {
        let Decision::New(number, version, artifact) =
            commit(&Seen::default(), &request(1), Timestamp(5_000)).unwrap()
        else {
            panic!("there is no version yet");
        };
        assert_eq!((number.0, version.time_seconds, artifact.next.0), (0, 5, 1));
        assert_eq!(artifact.count.unwrap().newest, Some((number, Timestamp(5_000))));
    }

    #[test]
    fn equal_content_is_the_same_version_until_that_has_expired() {
        let mut first = request(1);
        first.version.ttl = Some(Ttl::After(1_000));
        let seen = after(Seen::default(), commit(&Seen::default(), &first, Timestamp(0)).unwrap());
        let number =
            |seen: &Seen, now| commit(seen, &request(1), Timestamp(now)).unwrap().number().0;
        assert_eq!((number(&seen, 999), number(&seen, 1_000)), (0, 1));
        let protected = vec![("prod".parse().unwrap(), VersionNumber(0))];
        assert_eq!(number(&Seen { protected, ..seen }, 1_000), 0, "a protected alias keeps it");
    }

    #[test]
    fn a_commit_is_refused_for_what_it_expects_its_type_and_a_protected_alias() {
        let seen =
            after(Seen::default(), commit(&Seen::default(), &request(1), Timestamp(0)).unwrap());
        let refused = |change: &dyn Fn(&mut CommitRequest)| {
            let mut request = request(2);
            change(&mut request);
            let protected = vec![("prod".parse().unwrap(), VersionNumber(0))];
            let seen = Seen { protected, ..seen.clone() };
            commit(&seen, &request, Timestamp(9)).map_err(|e| e.kind()).err()
        };
        assert_eq!(refused(&|_| ()), None);
        assert_eq!(refused(&|r| r.version.expect = Some(VersionNumber(0))), None);
        for change in [
            &(|r: &mut CommitRequest| r.version.expect = Some(VersionNumber(1)))
                as &dyn Fn(&mut CommitRequest),
            &|r: &mut CommitRequest| r.version.artifact_type = Some("model".parse().unwrap()),
            &|r: &mut CommitRequest| r.version.aliases = vec!["prod".parse().unwrap()],
        ] {
            assert_eq!(refused(change), Some(Kind::Conflict));
        }
    }

    proptest! {
        #[test]
        fn numbers_and_times_only_rise(commits in prop::collection::vec((0u8..3, 0u64..10_000), 1..60)) {
            let mut seen = Seen::default();
            let mut last: Option<(u64, u64)> = None;
            for (content, now) in commits {
                let decision = commit(&seen, &request(content), Timestamp(now)).unwrap();
                if let Decision::New(number, version, artifact) = &decision {
                    let is = (number.0, version.time_seconds);
                    prop_assert!(last.is_none_or(|last| last.0 + 1 == is.0 && last.1 < is.1));
                    prop_assert_eq!(artifact.count.unwrap().versions, is.0 + 1);
                    last = Some(is);
                }
                seen = after(seen, decision);
            }
        }
    }
}
