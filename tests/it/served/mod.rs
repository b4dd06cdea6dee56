//! A repository on a server: journeys, rights, outages, hostile requests.

mod access;
pub mod hostile;
mod journeys;
mod outages;
mod projects;
mod rest;
mod tls;
