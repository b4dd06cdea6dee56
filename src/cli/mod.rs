//! The command line, for people: the only room that prints or exits.
//!
//! It holds arguments, texts and exit codes. Invariant: stdout carries data, stderr everything
//! else; `--json` prints one document.

mod access;
mod alias;
mod cache;
mod config;
mod connect;
mod context;
mod copy_store;
mod delete;
mod diff;
mod draft;
mod exit;
mod fsck;
mod gc;
mod get;
mod groups;
mod hints;
mod init;
mod lineage;
mod login;
mod ls;
mod mount;
mod output;
mod place;
mod project;
mod properties;
mod prune;
mod put;
mod run;
mod run_output;
mod runs;
mod select;
mod serve;
mod show;
mod stats;
mod status;
mod stream;
mod sweep;
#[cfg(feature = "tables")]
mod table;
#[cfg(not(feature = "tables"))]
#[path = "table_absent.rs"]
mod table;
mod text;
mod umount;
mod update;
mod usage;
mod used;
mod user;
mod verify;
mod watchdog;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use artifactfs::config::{Config, Environment, Flags};
use artifactfs::daemon::process;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::telemetry::Audience;
use context::Context;
use output::Output;

/// Versions of datasets and models as read-only directories.
#[derive(Parser)]
#[command(name = "artifactfs", version, propagate_version = true)]
struct Cli {
    /// The repository: a directory, or https://HOST/TEAM [default: $ARTIFACTFS_REPO, or
    /// $XDG_DATA_HOME/artifactfs, made on first use]
    #[arg(long, global = true, value_name = "DIR|URL")]
    repo: Vec<PathBuf>,
    /// The directory of the cache for remote stores [default: $ARTIFACTFS_CACHE_DIR, or
    /// $XDG_CACHE_HOME/artifactfs]
    #[arg(long, global = true, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// The size limit of the cache: 500MB, 10GiB, … [default: $ARTIFACTFS_CACHE_SIZE, or 10GiB]
    #[arg(long, global = true, value_name = "SIZE")]
    cache_size: Option<String>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// Print more on stderr; repeat for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print nothing but errors on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Create a repository
    Init(init::Init),
    /// Log a file or directory as the next version of an artifact
    Put(put::Put),
    /// Merge the parts of a group into one version
    Finish(groups::Finish),
    /// List or discard groups of parts from several writers
    #[command(subcommand)]
    Group(groups::GroupVerb),
    /// Write a version to a directory as ordinary files
    Get(get::Get),
    /// List projects, artifacts, versions or files
    Ls(ls::Ls),
    /// Show everything about a version or an artifact
    Show(show::Show),
    /// Change the properties of versions or artifacts
    Update(update::Update),
    /// Add, remove, set, list or protect aliases
    #[command(subcommand)]
    Alias(alias::Alias),
    /// Delete a version and free the bytes that only it used
    Delete(delete::Delete),
    /// Delete versions that have no alias, or that have expired
    Prune(prune::Prune),
    /// Compare two versions, or a draft and its base; exit 1 if they differ
    Diff(diff::Diff),
    /// Read the content of versions again and check every hash
    Verify(verify::Verify),
    /// Check that reference counts, indexes and store agree
    Fsck(fsck::Fsck),
    /// Mount every version as a read-only directory
    Mount(mount::Mount),
    /// Unmount and end the daemon
    Umount(umount::Umount),
    /// Commit a draft as the next version of its artifact
    Commit(draft::Commit),
    /// Begin a draft from a version, list drafts, or discard one
    Draft(draft::Draft),
    /// Restore a path of a draft from the version that the draft is based on
    Restore(draft::Restore),
    /// Fetch a version from a remote store into the cache
    Prefetch(cache::Prefetch),
    /// Inspect, shrink or verify the cache; pin versions in it
    #[command(subcommand)]
    Cache(cache::CacheVerb),
    /// Free the dead bytes that `--purge later` left
    Gc(gc::Gc),
    /// Copy all packs of one store to another; resumable
    CopyStore(copy_store::CopyStore),
    /// Print tables that the library of W&B wrote, and join their parts
    #[command(subcommand)]
    Table(table::TableVerb),
    /// Show live statistics of cache and remote store
    Stats(stats::StatsVerb),
    /// Run a command as a run and record what it uses and logs
    Run(run::Run),
    /// List, show or remove runs
    #[command(subcommand)]
    Runs(runs::Runs),
    /// Show the run that logged a version
    LoggedBy(lineage::Of),
    /// List the runs that used a version
    UsedBy(lineage::Of),
    /// Show which versions and runs a version came from and led to
    Lineage(lineage::Lineage),
    /// Create and show sweeps, and get what their best runs logged
    #[command(subcommand)]
    Sweep(sweep::Sweep),
    /// Serve repositories to users on the network
    Serve(serve::Serve),
    /// Sign in to a server with a key from standard input
    Login(login::Login),
    /// Forget the key to a server
    Logout(login::Logout),
    /// Show whose key it is, and what it opens
    Whoami(login::WhoamiVerb),
    /// Make, list and disable the users of a served repository
    #[command(subcommand)]
    User(user::UserVerb),
    /// Make, list and revoke keys
    #[command(subcommand)]
    Key(user::KeyVerb),
    /// List projects, and set their visibility and members
    #[command(subcommand)]
    Project(project::ProjectVerb),
    /// Execute a command in the view of a run
    #[command(hide = true)]
    Enter(run::Enter),
    /// End mounts that do not respond
    #[command(hide = true)]
    Watchdog(watchdog::Watchdog),
    /// Show mounts, drafts, open groups and free space
    Status(status::Status),
    /// Show the settings and where they come from
    #[command(subcommand)]
    Config(config::ConfigVerb),
}

/// Runs the command line and returns its exit code; every error is printed here.
pub fn run() -> ExitCode {
    process::set_up_signals();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(found) => return ExitCode::from(usage::report(found, &Cli::command())),
    };
    artifactfs::telemetry::start(cli.verbose, audience(&cli));
    let json = cli.json;
    match run_verb(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::print_error(&error, json);
            ExitCode::from(exit::code(error.kind()))
        }
    }
}

/// Returns the audience of the log. A command prints its own error; a daemon has only the log.
fn audience(cli: &Cli) -> Audience {
    match &cli.verb {
        Verb::Mount(verb) if verb.is_daemon() => Audience::Log,
        Verb::Watchdog(_) => Audience::Log,
        Verb::Serve(verb) if verb.serves() => Audience::Server,
        _ if cli.json || cli.quiet => Audience::Nobody,
        _ => Audience::Person,
    }
}

fn run_verb(cli: Cli) -> Result<u8> {
    // These verbs write files of the user outside the repository, with the modes of the user's
    // umask.
    let own = matches!(
        cli.verb,
        Verb::Get(_) | Verb::Run(_) | Verb::Enter(_) | Verb::Table(_) | Verb::Sweep(_)
    );
    if !own {
        process::protect();
    }
    let repos = cli.repo;
    if repos.len() > 1 && !matches!(cli.verb, Verb::Serve(_)) {
        return Err(Error::new(Kind::Usage, "--repo is given more than once")
            .hint("only `artifactfs serve` takes several"));
    }
    let flags = Flags {
        repo: repos.first().cloned(),
        cache_dir: cli.cache_dir,
        cache_size: cli.cache_size,
    };
    let config = Config::load(flags, &Environment::of_process())?;
    let access = access::access(&config);
    let output = Output { json: cli.json, quiet: cli.quiet };
    let context = Context { config, access, output, verbose: cli.verbose };
    match cli.verb {
        Verb::Init(verb) => init::init(&context, verb),
        Verb::Put(verb) => put::put(&context, verb),
        Verb::Finish(verb) => groups::finish(&context, verb),
        Verb::Group(verb) => groups::group(&context, verb),
        Verb::Get(verb) => get::get(&context, verb),
        Verb::Ls(verb) => ls::ls(&context, verb),
        Verb::Show(verb) => show::show(&context, verb),
        Verb::Update(verb) => update::update(&context, verb),
        Verb::Alias(verb) => alias::alias(&context, verb),
        Verb::Delete(verb) => delete::delete(&context, verb),
        Verb::Prune(verb) => prune::prune(&context, verb),
        Verb::Diff(verb) => diff::diff(&context, verb),
        Verb::Verify(verb) => verify::verify(&context, verb),
        Verb::Fsck(verb) => fsck::fsck(&context, verb),
        Verb::Mount(verb) => mount::mount(&context, verb),
        Verb::Umount(verb) => umount::umount(&context, verb),
        Verb::Commit(verb) => draft::commit(&context, verb),
        Verb::Draft(verb) => draft::draft(&context, verb),
        Verb::Restore(verb) => draft::restore(&context, verb),
        Verb::Prefetch(verb) => cache::prefetch(&context, verb),
        Verb::Cache(verb) => cache::cache(&context, verb),
        Verb::Gc(verb) => gc::gc(&context, verb),
        Verb::CopyStore(verb) => copy_store::copy_store(&context, verb),
        Verb::Table(verb) => table::table(&context, verb),
        Verb::Stats(verb) => stats::stats(&context, &verb),
        Verb::Run(verb) => run::run(&context, verb),
        Verb::Runs(verb) => runs::runs(&context, verb),
        Verb::LoggedBy(verb) => lineage::logged_by(&context, &verb),
        Verb::UsedBy(verb) => lineage::used_by(&context, &verb),
        Verb::Lineage(verb) => lineage::lineage(&context, &verb),
        Verb::Sweep(verb) => sweep::sweep(&context, verb),
        Verb::Serve(verb) => serve::serve(&context, &repos, verb),
        Verb::Login(verb) => login::login(&context, &verb),
        Verb::Logout(verb) => login::logout(&context, &verb),
        Verb::Whoami(verb) => login::whoami(&context, &verb),
        Verb::User(verb) => user::user(&context, verb),
        Verb::Key(verb) => user::key(&context, verb),
        Verb::Project(verb) => project::project(&context, verb),
        Verb::Enter(verb) => run::enter(verb),
        Verb::Watchdog(verb) => watchdog::watchdog(&verb),
        Verb::Status(verb) => status::status(&context, verb),
        Verb::Config(verb) => config::config(&context, &verb),
    }
}
