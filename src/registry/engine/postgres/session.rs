//! Looks and changes on connections.

use std::time::Instant;

use deadpool_postgres::Object;
use futures_util::future::try_join_all;
use rand::RngExt;

use super::pool::{DEADLINE, Failed, Pool};
use super::sql;
use crate::error::{Error, Kind, Result};
use crate::registry::engine::table::{Change, Mode, Revision, Row, Seen, Session};
use crate::registry::engine::{Durability, Want};

/// One in so many changes removes old tokens.
const FORGET_EVERY: u32 = 256;

/// A session. Looks at the latest state hold no connection; the others hold one with an open
/// transaction.
pub(super) struct PgSession<'a> {
    pool: &'a Pool,
    mode: Mode,
    held: Option<Object>,
}

impl<'a> PgSession<'a> {
    pub(super) fn new(pool: &'a Pool, mode: Mode) -> Self {
        Self { pool, mode, held: None }
    }
}

impl Drop for PgSession<'_> {
    /// Ends an open transaction. The connection goes back to the pool when that is done; if it
    /// fails, the connection is closed.
    fn drop(&mut self) {
        if let Some(connection) = self.held.take() {
            self.pool.spawn(async move {
                if connection.batch_execute("rollback").await.is_err() {
                    drop(Object::take(connection));
                }
            });
        }
    }
}

impl Session for PgSession<'_> {
    fn look(&mut self, want: &Want) -> Result<Seen> {
        let (pool, mode) = (self.pool, self.mode);
        if let Some(connection) = &self.held {
            return pool.block_on(look(pool, connection, want)).map_err(Failed::into_error);
        }
        let looked = pool.block_on(pool.persist(async |connection| {
            let guard = Unfinished::new(connection);
            let seen = match mode {
                Mode::Latest => look(pool, guard.connection(), want).await?,
                Mode::Snapshot => {
                    let begun = guard.connection().batch_execute(sql::begin(true));
                    let (begun, seen) = tokio::join!(begun, look(pool, guard.connection(), want));
                    begun?;
                    seen?
                }
                Mode::Alone => {
                    let begun = begin_locked(pool, guard.connection());
                    let (begun, seen) = tokio::join!(begun, look(pool, guard.connection(), want));
                    begun?;
                    seen?
                }
            };
            Ok((guard.finish(), seen))
        }));
        let (connection, seen) = looked.map_err(Failed::into_error)?;
        self.held = (mode != Mode::Latest).then_some(connection);
        Ok(seen)
    }

    fn apply(mut self: Box<Self>, change: &Change, durability: Durability) -> Result<bool> {
        let (pool, token) = (self.pool, rand::rng().random_range(1..i64::MAX));
        let deadline = Instant::now() + DEADLINE;
        let mut held = self.held.take();
        loop {
            let done = pool.block_on(async {
                let (connection, begun) = match held.take() {
                    Some(connection) => (connection, true),
                    None => (pool.connection().await?, false),
                };
                let guard = Unfinished::new(connection);
                let done =
                    apply(pool, guard.connection(), begun, change, token, durability).await?;
                drop(guard.finish());
                Ok(done)
            });
            let error = match done {
                Ok(done) => return Ok(done),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Passing(error)) => error,
            };
            tracing::debug!("a change is looked for after a failure: {error}");
            if settle(pool, token).map_err(|e| unsettled(e, &error))? {
                return Ok(true);
            }
            if self.mode == Mode::Alone {
                // The lock was lost, so that others may have changed what was read.
                return Ok(false);
            }
            if Instant::now() > deadline {
                return Err(error);
            }
        }
    }
}

fn unsettled(failed: Error, first: &Error) -> Error {
    let what = format!("{}; whether the change was made is not known", first.message());
    Error::new(Kind::Unavailable, what).hint("look, and try again").because(failed)
}

/// A connection that is closed unless its work was finished: it may be in the middle of a
/// transaction.
struct Unfinished(Option<Object>);

impl Unfinished {
    fn new(connection: Object) -> Self {
        Self(Some(connection))
    }

    fn connection(&self) -> &Object {
        self.0.as_ref().expect("it is there until it is finished")
    }

    fn finish(mut self) -> Object {
        self.0.take().expect("it is there until it is finished")
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

/// Begins a transaction that has the registry's lock. Both requests are sent at once.
async fn begin_locked(pool: &Pool, connection: &Object) -> Result<(), Failed> {
    let lock: sql::Parameters<'_> = vec![(&pool.lock, tokio_postgres::types::Type::INT8)];
    let begun = connection.batch_execute(sql::begin(false));
    let (begun, locked) = tokio::join!(begun, connection.query_typed(sql::LOCK, &lock));
    begun?;
    locked?;
    Ok(())
}

async fn look(pool: &Pool, connection: &Object, want: &Want) -> Result<Seen, Failed> {
    let parameters = sql::Look::new(want);
    let rows = connection.query_typed(&sql::look(pool.schema()), &parameters.parameters()).await?;
    let mut seen = Seen { rows: Vec::new(), spans: vec![Vec::new(); want.spans.len()] };
    for row in rows {
        let span: i32 = row.try_get(0)?;
        if span == sql::TIME {
            pool.time.note(row.try_get(3)?);
            continue;
        }
        let row = Row { key: row.try_get(1)?, value: row.try_get(2)?, revision: row.try_get(3)? };
        match usize::try_from(span) {
            Ok(span) => seen.spans[span].push(row),
            Err(_) => seen.rows.push(row),
        }
    }
    seen.spans.iter_mut().for_each(|rows| rows.sort_unstable_by(|a, b| a.key.cmp(&b.key)));
    Ok(seen)
}

/// Sends a whole change and the end of its transaction at once. Returns whether its guards hold. If
/// they do not, nothing was written, and the end does nothing.
async fn apply(
    pool: &Pool,
    connection: &Object,
    begun: bool,
    change: &Change,
    token: Revision,
    durability: Durability,
) -> Result<bool, Failed> {
    let schema = pool.schema();
    let parameters = sql::Apply::new(change, token);
    let (apply, parameters) = (sql::apply(schema), parameters.parameters());
    let append = sql::append(schema);
    let entries = change.entries.iter().map(|(log, value)| async {
        let parameters = sql::Append::new(log, value, token);
        connection.execute_typed(&append, &parameters.parameters()).await
    });
    let begin = async {
        match begun {
            true => Ok(()),
            false => begin_locked(pool, connection).await,
        }
    };
    let end = match rand::rng().random_ratio(1, FORGET_EVERY) {
        true => format!("{}; commit", sql::forget_applied(schema)),
        false => "commit".to_owned(),
    };
    let (begun, durable, done, entries, ended) = tokio::join!(
        begin,
        connection.batch_execute(sql::durability(durability == Durability::Immediate)),
        connection.query_typed_one(&apply, &parameters),
        try_join_all(entries),
        connection.batch_execute(&end),
    );
    begun?;
    durable?;
    let done = done?.try_get(0)?;
    entries?;
    ended?;
    Ok(done)
}

/// Finds out whether a change was made whose reply was lost. Once the lock can be taken, its
/// transaction has ended.
fn settle(pool: &Pool, token: Revision) -> Result<bool> {
    let query = sql::was_applied(pool.schema());
    let settled = pool.block_on(pool.persist_for(DEADLINE, async |connection| {
        let guard = Unfinished::new(connection);
        let connection = guard.connection();
        begin_locked(pool, connection).await?;
        let parameters: sql::Parameters<'_> = vec![(&token, tokio_postgres::types::Type::INT8)];
        let made: bool = connection.query_typed_one(&query, &parameters).await?.try_get(0)?;
        connection.batch_execute("rollback").await?;
        drop(guard.finish());
        Ok(made)
    }));
    settled.map_err(Failed::into_error)
}
