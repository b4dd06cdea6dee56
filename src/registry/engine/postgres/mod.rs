//! The engine of a team: one PostgreSQL database, many processes on many hosts.
//!
//! ```text
//! kv       k bytea primary key, v bytea, ver bigint     the rows of the registry
//! applied  token bigint primary key, at timestamptz     the changes of the last hour
//! meta     format int                                   the format of these tables
//! ```
//! A change is one transaction at READ COMMITTED: it takes the lock of the registry, checks its
//! guards and writes. The lock is held only for that one round trip. A statement sees all that was
//! committed before it began, so under the lock guards over ranges hold too; no predicate locks and
//! no serialization failures are involved. Every change leaves its token in `applied`. If the reply
//! to a commit is lost, the token tells whether the change was made, once the lock can be taken.
//!
//! Only plain statements and locks that end with their transaction are used, so that pgbouncer may
//! pool transactions.

mod address;
mod failure;
mod pool;
mod session;
mod sql;

use std::sync::Arc;

pub use address::Address;
use pool::Pool;
use session::PgSession;
use sql::FORMAT;

use super::table::{Mode, Session, Table};
use crate::error::{Error, Kind, RepositoryHint, Result};
use crate::model::host::Clock;
use crate::model::time::Timestamp;

/// The table of a registry in a PostgreSQL database.
pub struct PostgresTable {
    pool: Pool,
}

impl PostgresTable {
    /// Makes the tables in an empty schema, which is made too if it does not exist.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if there are tables already, [`Kind::Denied`] without the rights to make
    /// them, [`Kind::Unavailable`] if the server cannot be reached.
    pub fn init(address: &Address) -> Result<Self> {
        let pool = Pool::new(address)?;
        let made = pool.run(async |client| client.batch_execute(&sql::create(pool.schema())).await);
        made.map_err(|e| match e.kind() {
            Kind::Conflict => {
                let what = format!("{address} has a registry already");
                Error::new(Kind::Conflict, what).hint("use another schema=")
            }
            _ => e,
        })?;
        Ok(Self { pool })
    }

    /// Opens the tables that [`init`](Self::init) made.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there are none, [`Kind::Unsupported`] if they have another format, and
    /// the errors of a connection.
    pub fn open(address: &Address) -> Result<Self> {
        let pool = Pool::new(address)?;
        let query = sql::format(pool.schema());
        let found = pool.run(async |client| client.query_typed(&query, &[]).await);
        let rows = found.map_err(|e| match e.kind() {
            Kind::NotFound => Error::new(Kind::NotFound, format!("{address} has no registry"))
                .hint(RepositoryHint::MakeShared),
            _ => e,
        })?;
        let format: Option<i32> = rows.first().map(|row| row.get(0));
        if format != Some(FORMAT) {
            let found = format.map_or_else(|| "none".to_owned(), |format| format.to_string());
            let what =
                format!("the registry {address} has format {found}; this release reads {FORMAT}");
            return Err(Error::new(Kind::Unsupported, what)
                .hint("use the release of artifactfs that made it, or a newer one"));
        }
        Ok(Self { pool })
    }

    /// Removes the tables, with all that is in them. The schema stays, with whatever else it has.
    ///
    /// # Errors
    /// The errors of a connection.
    pub fn remove(self) -> Result<()> {
        let remove = sql::remove(self.pool.schema());
        self.pool.run(async |client| client.batch_execute(&remove).await)
    }

    /// Returns the clock of the server, as of the last look, and the time since then.
    pub fn clock(&self) -> Clock {
        let time = Arc::clone(&self.pool.time);
        Arc::new(move || Timestamp(time.now_milliseconds()))
    }
}

impl Table for PostgresTable {
    fn session(&self, mode: Mode) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(PgSession::new(&self.pool, mode)))
    }
}
