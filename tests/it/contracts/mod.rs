mod directory;
mod engine;
mod store;
