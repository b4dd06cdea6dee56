mod delete;
mod get;
mod publish;
mod put;
mod read;
mod remote;
mod stage;
mod version_drafts;
