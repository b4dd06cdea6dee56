mod directory;
mod engine;
mod runs;
mod store;
