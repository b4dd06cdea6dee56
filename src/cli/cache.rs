//! `cache` and `prefetch`: the cache of remote stores.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, parse};
use super::output::{Bar, bytes, table};
use super::{connect, exit};
use artifactfs::config::{Origin, parse_size};
use artifactfs::content::cache::Cache;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::model::reference::Reference;
use artifactfs::ops::cache::{CacheCheck, check};
use artifactfs::ops::prefetch;
use artifactfs::ops::put::Filters;

#[derive(Subcommand)]
pub enum CacheVerb {
    /// Show size, limit and pins of the cache
    Status,
    /// Evict least recently read content until the cache has at most this size
    Cleanup(Cleanup),
    /// Hash cached content of this repository again, and remove what is wrong
    Verify,
    /// Fetch a version and keep it in the cache
    Pin(Pin),
    /// Let the cache evict a pinned version again
    Unpin(Unpin),
}

#[derive(Args)]
pub struct Cleanup {
    /// The size that may stay: 1GB, 500MiB, 0
    size: String,
}

#[derive(Args)]
pub struct Pin {
    /// The version: project/artifact:alias
    reference: String,
}

#[derive(Args)]
pub struct Unpin {
    /// The version as `cache status` names it: project/artifact:v3
    reference: String,
}

#[derive(Args)]
pub struct Prefetch {
    /// The version: project/artifact:alias
    reference: String,
    /// Fetch only files that match; may be given several times
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
}

/// Opens the named cache, else that of a running mount, else the default one.
fn open(context: &Context) -> Result<Cache> {
    if context.config.cache_dir.origin == Origin::Default {
        let running = artifactfs::daemon::daemons(&connect::place_of(context)?)?;
        let held =
            running.into_iter().find_map(|one| Some((one.cache?, one.cache_bytes, one.mount)));
        if let Some((root, limit_bytes, mount)) = held {
            let (root_shown, mount) = (root.display(), mount.display());
            context.output.note(&format!("artifactfs: {root_shown}, the cache of {mount}"));
            return Cache::open(&root, limit_bytes);
        }
    }
    let root = context.access.cache.as_deref().ok_or_else(|| {
        Error::new(Kind::Usage, "no cache: neither --cache-dir nor $HOME is set")
            .hint("say where it is with --cache-dir DIR")
    })?;
    Cache::open(root, context.access.cache_bytes)
}

pub fn cache(context: &Context, verb: CacheVerb) -> Result<u8> {
    match verb {
        CacheVerb::Status => status(context),
        CacheVerb::Cleanup(verb) => cleanup(context, &verb),
        CacheVerb::Verify => verify(context),
        CacheVerb::Pin(verb) => pin(context, &verb),
        CacheVerb::Unpin(verb) => unpin(context, &verb),
    }
}

fn status(context: &Context) -> Result<u8> {
    let cache = open(context)?;
    let (used, pins) = (cache.usage()?, cache.pins());
    let pins: Vec<_> = pins.iter().map(|name| name.replace('!', "/")).collect();
    let root = cache.root().display().to_string();
    let document = json!({
        "directory": root,
        "bytes": used.bytes,
        "files": used.files,
        "pinned_bytes": used.pinned_bytes,
        "limit_bytes": used.limit_bytes,
        "pins": pins,
    });
    context.output.print(document, || {
        let held = format!("{} in {}", bytes(used.bytes), counted(used.files, "file"));
        let mut rows = vec![
            vec!["cache".to_owned(), root],
            vec!["holds".to_owned(), held],
            vec!["limit".to_owned(), bytes(used.limit_bytes)],
            vec!["pinned".to_owned(), bytes(used.pinned_bytes)],
        ];
        rows.extend(pins.into_iter().map(|name| vec!["pin".to_owned(), name]));
        table(&rows)
    });
    Ok(exit::DONE)
}

fn cleanup(context: &Context, verb: &Cleanup) -> Result<u8> {
    let size = parse_size(&verb.size)?;
    let cache = open(context)?;
    let freed = cache.shrink_to(size)?;
    let left = cache.usage()?.bytes;
    let root = cache.root().display().to_string();
    let document = json!({ "directory": root, "freed_bytes": freed, "bytes": left });
    context
        .output
        .print(document, || vec![format!("{} freed, {} left", bytes(freed), bytes(left))]);
    Ok(exit::DONE)
}

fn verify(context: &Context) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let CacheCheck { objects, wrong, unknown } = check(&repository)?;
    let document =
        json!({ "objects": objects, "wrong_objects": wrong, "unknown_segments": unknown });
    context.output.print(document, || {
        let (objects, unknown) = (counted(objects, "object"), counted(unknown, "segment"));
        vec![format!("{objects} right, {wrong} wrong and removed, {unknown} of other repositories")]
    });
    Ok(if wrong == 0 { exit::DONE } else { exit::code(Kind::Corrupt) })
}

fn pin(context: &Context, verb: &Pin) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let repository = connect::open_repository(context)?;
    let bar = |total| Bar::new("fetching", Some(total), context.output);
    let (info, fetched) = prefetch::pin(&repository, reference, bar)?;
    let reference = info.reference().to_string();
    let document = json!({ "pinned": reference, "files": fetched.files, "bytes": fetched.bytes });
    context.output.print(document, || vec![format!("{reference}  {} kept", bytes(fetched.bytes))]);
    Ok(exit::DONE)
}

fn unpin(context: &Context, verb: &Unpin) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let cache = open(context)?;
    if !cache.unpin(&prefetch::pin_name(&reference))? {
        let what = format!("{reference} is not pinned");
        return Err(Error::new(Kind::NotFound, what).hint("`artifactfs cache status` lists pins"));
    }
    let document = json!({ "unpinned": reference.to_string() });
    context.output.print(document, || vec![format!("{reference}  unpinned")]);
    Ok(exit::DONE)
}

pub fn prefetch(context: &Context, verb: Prefetch) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let filters = Filters::new(&verb.include, &[])?;
    let repository = connect::open_repository(context)?;
    let bar = |total| Bar::new("fetching", Some(total), context.output);
    let takes = |path: &Path| filters.takes(path);
    let (info, fetched) = prefetch::version(&repository, reference, &takes, bar)?;
    let reference = info.reference().to_string();
    let document =
        json!({ "reference": reference, "files": fetched.files, "bytes": fetched.bytes });
    context.output.print(document, || {
        let files = counted(fetched.files, "file");
        vec![format!("{reference}  {files}, {} cached", bytes(fetched.bytes))]
    });
    Ok(exit::DONE)
}
