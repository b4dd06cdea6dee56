//! Selecting versions by their properties, and changing many of them, one after another.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::str::FromStr;

use globset::{Glob, GlobMatcher};
use serde_json::Value;

use super::{glob, listing};
use crate::error::{Error, Kind, Result};
use crate::model::json::parse_or_text;
use crate::model::name::{Alias, ArtifactName, ArtifactType, ProjectName, Tag};
use crate::model::properties::parse_duration;
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::run::{find, is_value};
use crate::model::time::Timestamp;
use crate::model::version::VersionInfo;
use crate::registry::{Detail, Registry};

const HINT: &str = "write type=model, tag=x, alias=best, name='mnist-*', metadata.lr<=0.1, \
                    created>30d or expires<7d; != negates";

/// A condition: `type=model`, `metadata.val.acc>0.9`, `created<30d`.
#[derive(Debug, Clone)]
pub struct Filter {
    test: Test,
    operator: Operator,
}

#[derive(Debug, Clone)]
enum Test {
    Type(ArtifactType),
    Tag(Tag),
    Alias(Alias),
    /// The name of the artifact.
    Name(Box<GlobMatcher>),
    /// The milliseconds since the version was committed.
    Created(u64),
    /// The milliseconds until the time of the version is over.
    Expires(u64),
    /// The value under a path of the metadata.
    Metadata(String, Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// The operators as they are written. One that begins with another comes before it.
const OPERATORS: &[(&str, Operator)] = &[
    ("!=", Operator::IsNot),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("=", Operator::Is),
    ("<", Operator::Less),
    (">", Operator::More),
];

impl Operator {
    fn compares(self) -> bool {
        !matches!(self, Self::Is | Self::IsNot)
    }

    /// Reports whether the operator holds for two values of this order.
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Is => order.is_eq(),
            Self::IsNot => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: &str| Error::new(Kind::Usage, format!("{text:?} {what}")).hint(HINT);
        let at = text.find(['=', '<', '>', '!']).ok_or_else(|| bad("is not a condition"))?;
        let (key, rest) = (text[..at].trim(), &text[at..]);
        let found = OPERATORS.iter().find_map(|(name, operator)| {
            rest.strip_prefix(name).map(|value| (*operator, value.trim()))
        });
        let (operator, value) = found.ok_or_else(|| bad("is not a condition"))?;
        let test = match key {
            "type" => Test::Type(value.parse()?),
            "tag" => Test::Tag(value.parse()?),
            "alias" => Test::Alias(value.parse()?),
            "name" => {
                let glob = Glob::new(value)
                    .map_err(|e| bad(&format!("is not a pattern: {}", glob::fault(&e))))?;
                Test::Name(Box::new(glob.compile_matcher()))
            }
            "created" => Test::Created(parse_duration(value)?),
            "expires" => Test::Expires(parse_duration(value)?),
            key => match key.strip_prefix("metadata.") {
                Some(path) => Test::Metadata(path.to_owned(), parse_or_text(value)?),
                None => return Err(bad("names a property that versions do not have")),
            },
        };
        match (&test, operator.compares()) {
            (Test::Created(_) | Test::Expires(_), false) => Err(bad("needs <, <=, > or >=")),
            (Test::Metadata(_, wanted), true) if !wanted.is_number() => {
                Err(bad("compares with a value that is not a number"))
            }
            (Test::Type(_) | Test::Tag(_) | Test::Alias(_) | Test::Name(_), true) => {
                Err(bad("needs = or !="))
            }
            _ => Ok(Self { test, operator }),
        }
    }
}

impl Filter {
    /// Makes the condition that a version has this tag.
    pub fn tag(tag: Tag) -> Self {
        Self { test: Test::Tag(tag), operator: Operator::Is }
    }

    /// Reports whether the condition needs metadata, which only a full listing contains.
    fn reads_metadata(&self) -> bool {
        matches!(self.test, Test::Metadata(..))
    }

    /// Reports whether the condition holds for a version; `now` is by the registry's clock.
    pub(crate) fn holds(&self, version: &VersionInfo, now: Timestamp) -> bool {
        let wanted = self.operator != Operator::IsNot;
        match &self.test {
            Test::Type(wanted_type) => (version.artifact_type == *wanted_type) == wanted,
            Test::Tag(tag) => version.tags.contains(tag) == wanted,
            Test::Alias(alias) => version.aliases.contains(alias) == wanted,
            Test::Name(glob) => glob.is_match(version.path.artifact.as_str()) == wanted,
            Test::Created(age) => {
                self.operator.holds(now.0.saturating_sub(version.created.0).cmp(age))
            }
            Test::Expires(left) => version
                .expires
                .is_some_and(|at| self.operator.holds(at.0.saturating_sub(now.0).cmp(left))),
            Test::Metadata(path, value) => {
                let metadata = Value::Object(version.metadata.to_object());
                let found = find(&metadata, path);
                if !self.operator.compares() {
                    return is_value(found, value) == wanted;
                }
                let numbers = found.and_then(Value::as_f64).zip(value.as_f64());
                let order = numbers.and_then(|(found, value)| found.partial_cmp(&value));
                order.is_some_and(|order| self.operator.holds(order))
            }
        }
    }
}

/// A selection of versions: those for which all filters hold.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The project; all if `None`.
    pub project: Option<ProjectName>,
    /// The artifact; all if `None`.
    pub artifact: Option<ArtifactName>,
    /// The conditions, all of which must hold.
    pub filters: Vec<Filter>,
    /// The detail in which each version is listed.
    pub detail: Detail,
}

/// Calls `each` with every version of a selection, in the order of project, artifact and number.
///
/// # Errors
/// [`Kind::NotFound`] for a project or artifact that does not exist, and the errors of `each`.
pub(crate) fn each_selected(
    registry: &dyn Registry,
    selection: &Selection,
    each: &mut dyn FnMut(VersionInfo) -> Result<()>,
) -> Result<()> {
    let now = registry.now()?;
    let detail = match selection.filters.iter().any(Filter::reads_metadata) {
        true => Detail::Full,
        false => selection.detail,
    };
    let mut of_artifact = |path: &ArtifactPath| {
        listing::each_of_artifact(registry, path, detail, &mut |version| match selection
            .filters
            .iter()
            .all(|filter| filter.holds(&version, now))
        {
            true => each(version),
            false => Ok(()),
        })
    };
    if let (Some(project), Some(artifact)) = (&selection.project, &selection.artifact) {
        return of_artifact(&ArtifactPath { project: project.clone(), artifact: artifact.clone() });
    }
    let projects = match &selection.project {
        Some(project) => vec![project.clone()],
        None => registry.projects()?.into_iter().map(|project| project.name).collect(),
    };
    for project in projects {
        for artifact in listing::artifacts(registry, &project)? {
            of_artifact(&artifact.path)?;
        }
    }
    Ok(())
}

/// The versions that a change applies to.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// References to versions.
    pub references: Vec<Reference>,
    /// A selection, which is evaluated when the change begins.
    pub selection: Option<Selection>,
    /// True if the change is not made, and its versions are only listed.
    pub dry_run: bool,
}

impl Chosen {
    /// Resolves the versions. A reference that does not exist fails before any change.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a reference, project or artifact that does not exist.
    pub(super) fn targets(self, registry: &dyn Registry) -> Result<Targets> {
        let mut found = Vec::new();
        for reference in self.references {
            found.push(registry.lookup(reference)?.reference());
        }
        if let Some(selection) = &self.selection {
            each_selected(registry, selection, &mut |version| {
                found.push(version.reference());
                Ok(())
            })?;
        }
        let mut seen = HashSet::new();
        found.retain(|reference| seen.insert(reference.clone()));
        let (selected, dry_run) = (self.selection.is_some(), self.dry_run);
        Ok(Targets { references: found, selected, dry_run })
    }
}

/// The resolved versions of a change.
pub(super) struct Targets {
    /// References by number, each once.
    references: Vec<Reference>,
    /// True if filters found them: one that is gone when its turn comes is then skipped.
    selected: bool,
    dry_run: bool,
}

impl Targets {
    /// Refuses two versions of one artifact: an alias stands for one.
    ///
    /// # Errors
    /// [`Kind::Usage`] for two versions of one artifact.
    pub(super) fn one_each(&self) -> Result<()> {
        let mut seen = HashSet::new();
        for reference in &self.references {
            if !seen.insert(&reference.path) {
                let what = format!("more than one version of {} is selected", reference.path);
                return Err(Error::new(Kind::Usage, what)
                    .hint("an alias stands for one version of an artifact: name one of each"));
            }
        }
        Ok(())
    }

    /// Changes each, in order, until one fails.
    pub(super) fn change(
        self,
        change: &mut dyn FnMut(Reference) -> Result<VersionInfo>,
    ) -> Changed {
        if self.dry_run {
            return Changed { done: self.references, ..Changed::default() };
        }
        let mut changed = Changed::default();
        let mut left = self.references.into_iter();
        for reference in left.by_ref() {
            match change(reference.clone()) {
                Ok(_) => changed.done.push(reference),
                Err(e) if self.selected && e.kind() == Kind::NotFound => {}
                Err(e) => {
                    changed.left.push(reference);
                    changed.error = Some(e);
                    break;
                }
            }
        }
        changed.left.extend(left);
        changed
    }
}

/// The result of changing many versions.
#[derive(Debug, Default)]
pub struct Changed {
    /// The versions that were changed, or would be.
    pub done: Vec<Reference>,
    /// The versions that were not changed.
    pub left: Vec<Reference>,
    /// The error that ended the change.
    pub error: Option<Error>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;
    use crate::model::properties::Ttl;
    use crate::model::version::Totals;

    fn version() -> VersionInfo {
        VersionInfo {
            path: "p/mnist-small".parse().unwrap(),
            artifact_type: "model".parse().unwrap(),
            number: "v3".parse().unwrap(),
            root: Digest::from_bytes([0; 32]),
            totals: Totals::default(),
            created: Timestamp(100 * 86_400_000),
            time_seconds: 0,
            aliases: vec!["best".parse().unwrap()],
            description: String::new(),
            metadata: r#"{"a": {"b": 3}, "name": "x", "n": "7", "lr": 1e-3}"#.parse().unwrap(),
            tags: vec!["good".parse().unwrap()],
            ttl: Ttl::After(20 * 86_400_000),
            expires: Some(Timestamp(120 * 86_400_000)),
            protected: Vec::new(),
        }
    }

    #[test]
    fn conditions_hold_for_what_is_said() {
        let now = Timestamp(110 * 86_400_000);
        let holds = |text: &str| text.parse::<Filter>().unwrap().holds(&version(), now);
        for yes in [
            "type=model",
            "type!=dataset",
            "tag=good",
            "tag!=bad",
            "alias=best",
            "alias!=latest",
            "name=mnist-*",
            "name!=cifar*",
            "metadata.a.b=3",
            "metadata.a.b>2",
            "metadata.a.b>=3",
            "metadata.a.b<=3.0",
            "metadata.a.b < 4",
            "metadata.name=x",
            "metadata.n=7",
            "metadata.lr=0.001",
            "metadata.none!=1",
            "created<11d",
            "created>=10d",
            "created<=10d",
            "expires<11d",
            "expires>9d",
        ] {
            assert!(holds(yes), "{yes}");
        }
        for no in [
            "type=dataset",
            "tag=bad",
            "tag!=good",
            "alias=latest",
            "name=mnist",
            "metadata.a.b=4",
            "metadata.a.b<3",
            "metadata.a.b>3",
            "metadata.a=3",
            "metadata.name>1",
            "metadata.none<1",
            "metadata.none=1",
            "created<10d",
            "created>10d",
            "expires<10d",
            "expires>10d",
        ] {
            assert!(!holds(no), "{no}");
        }
    }

    #[test]
    fn conditions_that_make_no_sense_are_refused() {
        for bad in [
            "",
            "type",
            "=",
            "size=3",
            "metadata=1",
            "type<model",
            "name>a",
            "created=3d",
            "created<soon",
            "metadata.a<b",
            "name=[",
            "type!model",
        ] {
            assert_eq!(bad.parse::<Filter>().unwrap_err().kind(), Kind::Usage, "{bad}");
        }
        assert_eq!("tag=a/b".parse::<Filter>().unwrap_err().kind(), Kind::BadName);
        assert_eq!("alias=v3".parse::<Filter>().unwrap_err().kind(), Kind::BadName);
    }
}
