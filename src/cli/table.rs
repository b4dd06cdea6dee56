//! `table`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, parse};
use super::place::{Place, path_within};
use super::properties::Properties;
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::model::name::EntryName;
use artifactfs::model::reference::Reference;
use artifactfs::ops::table::{self, Format, Shown, Table};

/// The default number of rows in text.
const TEXT_ROWS: u64 = 50;

#[derive(Subcommand)]
pub enum TableVerb {
    /// Print a table as text, JSON, CSV or Parquet
    Show(Show),
    /// Join a folder of tables to one table, in the next version of the artifact
    Partition(Partition),
}

#[derive(Args)]
pub struct Show {
    /// The table: project/artifact:alias/path of a *.table.json or *.partitioned-table.json
    path: OsString,
    /// Print at most this many rows [default: 50 for text, otherwise all]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// The format: text, json, csv or parquet [default: text]
    #[arg(long)]
    format: Option<String>,
}

#[derive(Args)]
pub struct Partition {
    /// The version that has the tables: project/artifact:alias
    reference: String,
    /// The folder of the tables in the version
    parts_path: OsString,
    /// The name of the joined table, without .partitioned-table.json
    name: String,
    #[command(flatten)]
    properties: Properties,
}

pub fn table(context: &Context, verb: TableVerb) -> Result<u8> {
    match verb {
        TableVerb::Show(verb) => show(context, &verb),
        TableVerb::Partition(verb) => partition(context, &verb),
    }
}

/// Parses `project/artifact:alias/path`.
fn parse_path(text: &OsStr) -> Result<(Reference, Vec<EntryName>)> {
    let Place { project, artifact, path } = Place::of(text)?;
    let reference = parse(&format!("{project}/{}", artifact.unwrap_or_default()))?;
    let path = path_within(path.unwrap_or_default())?;
    if path.is_empty() {
        return Err(Error::new(Kind::Usage, format!("{text:?} names no table in a version"))
            .hint("write it as project/artifact:alias/path; `artifactfs ls` lists paths"));
    }
    Ok((reference, path))
}

fn format(context: &Context, verb: &Show) -> Result<Format> {
    let said: Option<Format> = verb.format.as_deref().map(parse).transpose()?;
    match said {
        Some(format) if context.output.json && format != Format::Json => {
            Err(Error::new(Kind::Usage, "--json and another --format exclude each other")
                .hint("leave one out"))
        }
        None if context.output.json => Ok(Format::Json),
        said => Ok(said.unwrap_or(Format::Text)),
    }
}

fn show(context: &Context, verb: &Show) -> Result<u8> {
    let format = format(context, verb)?;
    let (reference, path) = parse_path(&verb.path)?;
    if format == Format::Parquet && io::stdout().is_terminal() {
        return Err(Error::new(
            Kind::Usage,
            "Parquet is binary, and standard output is a terminal",
        )
        .hint("write it to a file: … > table.parquet"));
    }
    let limit = verb.limit.or((format == Format::Text).then_some(TEXT_ROWS));
    let repository = connect::open_repository(context)?;
    let info = super::used::used(context, &*repository.registry, reference)?;
    let table = Table::open(&repository.reader, &info, &path)?;
    if table.parts == 0 {
        context.output.note("artifactfs: the folder of parts has no tables");
    }
    let to = BufWriter::new(standard_output()?);
    let shown = table::show(&table, format, limit, to)?;
    if format == Format::Text {
        context.output.note(&describe(&shown));
    }
    Ok(exit::DONE)
}

/// Returns an unbuffered standard output, without the line buffer of the standard library.
fn standard_output() -> Result<impl Write + Send> {
    let copy = io::stdout().as_fd().try_clone_to_owned();
    copy.map(|copy| Stream(copy.into())).map_err(|e| Error::io("cannot write to stdout", e))
}

struct Stream(File);

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn describe(shown: &Shown) -> String {
    let rows = shown.rows;
    match shown.all {
        Some(all) if shown.more => {
            format!("{rows} of {}; --limit shows more", counted(all, "row"))
        }
        _ if shown.more => format!("the first {}; --limit shows more", counted(rows, "row")),
        _ => counted(rows, "row"),
    }
}

fn partition(context: &Context, verb: &Partition) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let folder = path_within(verb.parts_path.as_bytes())?;
    let name = path_within(verb.name.as_bytes())?;
    let repository = connect::open_repository(context)?;
    let base = super::used::used(context, &*repository.registry, reference)?;
    let version = verb.properties.new_version(base.path.clone(), context)?;
    let pointer = table::partition(&repository, &base, &folder, &name, version)?;
    let committed = pointer.report.committed.as_ref();
    let reference = committed.map(|c| format!("{}:{}", c.path, c.number)).unwrap_or_default();
    let new = committed.is_some_and(|c| c.new);
    let document = json!({
        "reference": reference,
        "new_version": new,
        "path": pointer.path,
        "parts": pointer.parts,
        "stored_bytes": pointer.report.stored_bytes,
    });
    context.output.print(document, || {
        let what = if new { "" } else { "  is there already: no new version" };
        let parts = counted(pointer.parts, "part");
        vec![format!("{reference}/{}  {parts}{what}", pointer.path)]
    });
    Ok(exit::DONE)
}
