//! `delete` and `prune`.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::context::{Context, parse};
use super::output::{bytes, table};
use super::select::parse_scope;
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::reference::Reference;
use artifactfs::model::time::Timestamp;
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::gc::Collected;
use artifactfs::ops::orphans::release_unfinished;
use artifactfs::ops::prune::{self, PruneRequest};

#[derive(Args)]
pub struct Delete {
    /// project/artifact:alias
    reference: String,
    /// Also when it has aliases, which go with it; never with a protected one
    #[arg(long)]
    delete_aliases: bool,
    /// When dead bytes between living ones go; `later` leaves them to `gc`
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    purge: When,
}

/// When dead bytes between living ones go.
#[derive(Clone, Copy, Default, ValueEnum)]
enum When {
    /// At once
    #[default]
    Now,
    /// With the next `gc`
    Later,
}

impl From<When> for Reclaim {
    fn from(when: When) -> Self {
        match when {
            When::Now => Self::Now,
            When::Later => Self::Later,
        }
    }
}

#[derive(Args)]
pub struct Gc {
    /// Leave no more than this share of a pack dead
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=100))]
    garbage: u64,
    /// Also free what puts that were killed or failed had stored, which is kept a day for them to go on with
    #[arg(long)]
    unfinished: bool,
}

pub fn gc(context: &Context, verb: Gc) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    if verb.unfinished {
        release_unfinished(&repository)?;
    }
    let collected = artifactfs::ops::gc::collect_deferred(&repository, verb.garbage)?;
    let Collected { packs, freed_bytes, left_bytes } = collected;
    let document =
        json!({ "packs": packs, "freed_bytes": freed_bytes, "garbage_bytes": left_bytes });
    context.output.print(document, || {
        let (freed, left) = (bytes(freed_bytes), bytes(left_bytes));
        vec![format!("{packs} packs, {freed} freed, {left} of garbage left")]
    });
    Ok(exit::DONE)
}

#[derive(Args)]
pub struct Prune {
    /// PROJECT or PROJECT/ARTIFACT
    what: String,
    /// Only artifacts of this type
    #[arg(short = 't', long = "type")]
    artifact_type: Option<String>,
    /// Keep so many of the newest versions of each artifact
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_last: usize,
    /// Those whose time is over (--ttl), also when they have aliases that are not protected
    #[arg(long)]
    expired: bool,
    /// Only versions older than this: 30d, 12h, 2 weeks
    #[arg(long, value_name = "DURATION")]
    older_than: Option<String>,
    /// The clock is right, though it is far beyond when the repository was used last
    #[arg(long, requires = "expired")]
    trust_clock: bool,
    /// Only list what would go, and the bytes that would come free
    #[arg(long)]
    dry_run: bool,
    /// When dead bytes between living ones go; `later` leaves them to `gc`
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    purge: When,
}

pub fn delete(context: &Context, verb: Delete) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let repository = connect::open_repository(context)?;
    let when = verb.purge.into();
    let done = artifactfs::ops::delete::delete(&repository, &reference, verb.delete_aliases, when);
    let (info, freed) = done?;
    let reference = info.reference().to_string();
    let document = json!({ "deleted": reference, "freed_bytes": freed });
    context
        .output
        .print(document, || vec![format!("{reference}  deleted, {} freed", bytes(freed))]);
    Ok(exit::DONE)
}

/// The moment that lies `text` back from now, which is the registry's time: versions bear that.
fn before(text: &str, now: Timestamp) -> Result<Timestamp> {
    let bad = |e: jiff::Error| {
        Error::new(Kind::Usage, format!("{text:?} is no duration"))
            .because(e)
            .hint("write 30d, 12h")
    };
    let span: jiff::Span = text.parse().map_err(bad)?;
    let now = jiff::Timestamp::from_millisecond(i64::try_from(now.0).unwrap_or(i64::MAX));
    let now = now.map_err(bad)?.to_zoned_datetime(jiff::tz::TimeZone::UTC);
    let then = now.checked_sub(span.abs()).map_err(bad)?.timestamp().as_millisecond();
    Ok(Timestamp(u64::try_from(then).unwrap_or_default()))
}

pub fn prune(context: &Context, verb: Prune) -> Result<u8> {
    let (project, artifact) = parse_scope(&verb.what)?;
    let repository = connect::open_repository(context)?;
    let now = repository.registry.now()?;
    let request = PruneRequest {
        project,
        artifact,
        artifact_type: verb.artifact_type.as_deref().map(parse).transpose()?,
        keep_last: verb.keep_last,
        before: verb.older_than.as_deref().map(|text| before(text, now)).transpose()?,
        expired: verb.expired,
    };
    if verb.expired && !verb.dry_run {
        repository.registry.time_to_expire(verb.trust_clock)?;
    }
    let doomed = prune::plan(&repository, &request)?;
    let (gone, freed) = if verb.dry_run {
        let bytes = prune::bytes_of(&repository, &doomed)?;
        (doomed, bytes)
    } else {
        prune::prune(&repository, doomed, request.expired, verb.purge.into())?
    };
    print_deleted(context, &gone, freed, verb.dry_run);
    Ok(exit::DONE)
}

fn print_deleted(context: &Context, versions: &[VersionInfo], freed: u64, dry_run: bool) {
    let references: Vec<_> = versions.iter().map(|v| v.reference().to_string()).collect();
    let document = json!({ "versions": references, "freed_bytes": freed, "dry_run": dry_run });
    context.output.print(document, || {
        let row = |v: &VersionInfo| vec![v.reference().to_string(), bytes(v.totals.size_bytes)];
        table(&versions.iter().map(row).collect::<Vec<_>>())
    });
    let verb = if dry_run { "would be deleted" } else { "deleted" };
    let freed = bytes(freed);
    context.output.note(&format!("{} versions {verb}, {freed} freed", versions.len()));
}
