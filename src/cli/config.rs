//! `config`: the settings and their origins.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::Context;
use super::{exit, output};
use artifactfs::config::{Origin, Setting};
use artifactfs::error::Result;

#[derive(Subcommand)]
pub enum ConfigVerb {
    /// Show every setting and where it comes from
    Show(Show),
}

#[derive(Args)]
pub struct Show {}

pub fn config(context: &Context, verb: &ConfigVerb) -> Result<u8> {
    let ConfigVerb::Show(Show {}) = verb;
    let settings = settings(context);
    let rows = settings.iter().map(|row| (row.name.to_owned(), row.to_json()));
    let mut document: serde_json::Map<_, _> = rows.collect();
    let files = context.config.files.iter().map(|path| path.display().to_string());
    document.insert("files".to_owned(), files.collect());
    context.output.print(Value::Object(document), || {
        output::table(&settings.iter().map(Row::to_cells).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

/// A setting as it is shown.
struct Row {
    name: &'static str,
    value: Value,
    origin: Origin,
}

impl Row {
    fn of<T>(name: &'static str, setting: &Setting<T>, value: impl FnOnce(&T) -> Value) -> Self {
        Self { name, value: value(&setting.value), origin: setting.origin.clone() }
    }

    fn to_json(&self) -> Value {
        let (origin, from) = match &self.origin {
            Origin::Flag => ("flag", None),
            Origin::Environment(name) => ("environment", Some((*name).to_owned())),
            Origin::File(path) => ("file", Some(path.display().to_string())),
            Origin::Default => ("default", None),
        };
        json!({ "value": self.value, "origin": origin, "from": from })
    }

    fn to_cells(&self) -> Vec<String> {
        let value = match &self.value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(texts) => {
                let texts: Vec<_> = texts.iter().filter_map(Value::as_str).collect();
                texts.join(":")
            }
            other => other.to_string(),
        };
        vec![self.name.to_owned(), value, self.origin.to_string()]
    }
}

fn settings(context: &Context) -> Vec<Row> {
    let config = &context.config;
    let bytes = context.access.cache_bytes;
    vec![
        Row::of("repo", &config.repo, |path| json!(path.display().to_string())),
        Row::of("cache-dir", &config.cache_dir, |path| {
            json!(path.as_ref().map(|path| path.display().to_string()))
        }),
        Row::of("cache-size", &config.cache_bytes, |_| match context.output.json {
            true => json!(bytes),
            false => json!(output::bytes(bytes)),
        }),
        Row::of("external-dirs", &config.external_dirs, |folders| {
            let folders = folders.as_ref().map(|folders| {
                folders.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
            });
            json!(folders)
        }),
        Row::of("project", &config.project, |name| json!(name)),
        Row::of("key-file", &config.key_file, |path| {
            json!(path.as_ref().map(|path| path.display().to_string()))
        }),
        Row::of("run", &config.run, |id| json!(id)),
    ]
}
