//! The place of `postgres` in a build without that feature.
//!
//! The types have no values, so what would use one is compiled and never runs.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use super::table::{Mode, Session, Table};
use crate::error::{Error, Result};
use crate::model::host::Clock;

/// The address of a registry in PostgreSQL: there is none.
#[derive(Debug, Clone)]
pub struct Address(Infallible);

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Err(Error::left_out(&format!("the registry {text} cannot be reached"), "postgres"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

/// A table in PostgreSQL: there is none.
pub struct PostgresTable(Infallible);

impl PostgresTable {
    /// Makes the tables.
    ///
    /// # Errors
    /// It is never called.
    pub fn init(address: &Address) -> Result<Self> {
        match address.0 {}
    }

    /// Opens the tables.
    ///
    /// # Errors
    /// It is never called.
    pub fn open(address: &Address) -> Result<Self> {
        match address.0 {}
    }

    /// Removes the tables.
    ///
    /// # Errors
    /// It is never called.
    pub fn remove(self) -> Result<()> {
        match self.0 {}
    }

    /// Returns the clock of the server.
    pub fn clock(&self) -> Clock {
        match self.0 {}
    }
}

impl Table for PostgresTable {
    fn session(&self, _: Mode) -> Result<Box<dyn Session + '_>> {
        match self.0 {}
    }
}
