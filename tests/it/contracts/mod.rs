mod directory;
mod durable;
mod engine;
mod optimistic;
mod runs;
mod store;
