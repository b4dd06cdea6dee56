//! The statements. All values are parameters; the schema's name has no character to be quoted.

use tokio_postgres::types::{ToSql, Type};

use crate::registry::engine::table::{Change, Revision};
use crate::registry::engine::{Log, Want};

/// The format of the tables that this release writes and reads.
pub(super) const FORMAT: i32 = 1;

/// A statement's parameters with their types.
pub(super) type Parameters<'a> = Vec<(&'a (dyn ToSql + Sync), Type)>;

/// The column `span` of rows of single keys.
pub(super) const SINGLE: i32 = -1;
/// The column `span` of the row that holds the time.
pub(super) const TIME: i32 = -2;

/// Makes the tables. The server runs all statements of one request as one transaction.
pub(super) fn create(schema: &str) -> String {
    format!(
        "create schema if not exists {schema};
         create table {schema}.kv (k bytea primary key, v bytea not null, ver bigint not null);
         create table {schema}.applied (token bigint primary key, at timestamptz not null default now());
         create table {schema}.meta (format int not null);
         insert into {schema}.meta values ({FORMAT})"
    )
}

pub(super) fn remove(schema: &str) -> String {
    format!("drop table {schema}.kv, {schema}.applied, {schema}.meta")
}

pub(super) fn format(schema: &str) -> String {
    format!("select format from {schema}.meta")
}

/// Begins a transaction whose statements have deadlines, so that a lost client holds no lock.
pub(super) fn begin(snapshot: bool) -> &'static str {
    match snapshot {
        true => {
            "begin isolation level repeatable read read only;
             set local statement_timeout = '25s';
             set local idle_in_transaction_session_timeout = '60s'"
        }
        false => {
            "begin isolation level read committed read write;
             set local statement_timeout = '25s'; set local lock_timeout = '20s';
             set local idle_in_transaction_session_timeout = '30s'"
        }
    }
}

/// Sets when the current transaction is durable. A server whose changes are not durable by default
/// is overruled; one that waits for replicas goes on to.
pub(super) fn durability(immediate: bool) -> &'static str {
    match immediate {
        true => {
            "select set_config('synchronous_commit', 'on', true)
             where current_setting('synchronous_commit') = 'off'"
        }
        false => "set local synchronous_commit = off",
    }
}

pub(super) const LOCK: &str = "select pg_advisory_xact_lock($1)";

pub(super) fn look(schema: &str) -> String {
    format!(
        "select {SINGLE}::int4, k, v, ver from {schema}.kv where k = any($1)
         union all
         select (span.n - 1)::int4, row.k, row.v, row.ver
         from unnest($2::bytea[], $3::bytea[], $4::bigint[]) with ordinality span(first, past, most, n),
           lateral (select k, v, ver from {schema}.kv
                    where k >= span.first and k < span.past order by k limit span.most) row
         union all
         select {TIME}::int4, null, null, (extract(epoch from clock_timestamp()) * 1000)::bigint"
    )
}

/// The parameters of a look.
pub(super) struct Look<'a> {
    keys: Vec<&'a [u8]>,
    from: Vec<&'a [u8]>,
    to: Vec<&'a [u8]>,
    limits: Vec<i64>,
}

impl<'a> Look<'a> {
    pub(super) fn new(want: &'a Want) -> Self {
        let spans = || want.spans.iter();
        Self {
            keys: want.keys.iter().map(Vec::as_slice).collect(),
            from: spans().map(|span| span.from.as_slice()).collect(),
            to: spans().map(|span| span.to.as_slice()).collect(),
            limits: spans().map(|span| i64::try_from(span.limit).unwrap_or(i64::MAX)).collect(),
        }
    }

    pub(super) fn parameters(&self) -> Parameters<'_> {
        vec![
            (&self.keys, Type::BYTEA_ARRAY),
            (&self.from, Type::BYTEA_ARRAY),
            (&self.to, Type::BYTEA_ARRAY),
            (&self.limits, Type::INT8_ARRAY),
        ]
    }
}

/// Makes a change if its guards hold, and returns whether they do.
pub(super) fn apply(schema: &str) -> String {
    format!(
        "with fine as (select
           not exists (
             select from unnest($1::bytea[], $2::bigint[]) wanted(k, ver)
             left join {schema}.kv on kv.k = wanted.k
             where coalesce(kv.ver, 0) <> wanted.ver)
           and not exists (
             select from unnest($3::bytea[], $4::bytea[], $5::bigint[], $6::text[]) wanted(first, past, n, sum),
               lateral (select count(*) n, coalesce(sum(ver), 0) sum from {schema}.kv
                        where k >= wanted.first and k < wanted.past) found
             where found.n <> wanted.n or found.sum <> wanted.sum::numeric) ok),
         gone as (delete from {schema}.kv using fine where ok and k = any($7)),
         put as (insert into {schema}.kv (k, v, ver)
           select k, v, $10 from unnest($8::bytea[], $9::bytea[]) new(k, v), fine where ok
           on conflict (k) do update set v = excluded.v, ver = excluded.ver),
         done as (insert into {schema}.applied (token) select $10 from fine where ok)
         select ok from fine"
    )
}

/// The parameters of a change.
pub(super) struct Apply<'a> {
    keys: Vec<&'a [u8]>,
    revisions: Vec<Revision>,
    from: Vec<&'a [u8]>,
    to: Vec<&'a [u8]>,
    rows: Vec<i64>,
    sums: Vec<String>,
    deletes: Vec<&'a [u8]>,
    put_keys: Vec<&'a [u8]>,
    put_values: Vec<&'a [u8]>,
    token: Revision,
}

impl<'a> Apply<'a> {
    pub(super) fn new(change: &'a Change, token: Revision) -> Self {
        Self {
            keys: change.keys.iter().map(|(key, _)| key.as_slice()).collect(),
            revisions: change.keys.iter().map(|(_, revision)| *revision).collect(),
            from: change.ranges.iter().map(|guard| guard.from.as_slice()).collect(),
            to: change.ranges.iter().map(|guard| guard.to.as_slice()).collect(),
            rows: change.ranges.iter().map(|guard| guard.rows as i64).collect(),
            sums: change.ranges.iter().map(|guard| guard.sum.to_string()).collect(),
            deletes: change.deletes.iter().map(Vec::as_slice).collect(),
            put_keys: change.puts.iter().map(|(key, _)| key.as_slice()).collect(),
            put_values: change.puts.iter().map(|(_, value)| value.as_slice()).collect(),
            token,
        }
    }

    pub(super) fn parameters(&self) -> Parameters<'_> {
        vec![
            (&self.keys, Type::BYTEA_ARRAY),
            (&self.revisions, Type::INT8_ARRAY),
            (&self.from, Type::BYTEA_ARRAY),
            (&self.to, Type::BYTEA_ARRAY),
            (&self.rows, Type::INT8_ARRAY),
            (&self.sums, Type::TEXT_ARRAY),
            (&self.deletes, Type::BYTEA_ARRAY),
            (&self.put_keys, Type::BYTEA_ARRAY),
            (&self.put_values, Type::BYTEA_ARRAY),
            (&self.token, Type::INT8),
        ]
    }
}

/// Adds an entry to a log, if the change with this token was made in the same transaction.
pub(super) fn append(schema: &str) -> String {
    format!(
        "with last as (insert into {schema}.kv (k, v, ver)
           select $2::bytea, int8send(1), $1 from {schema}.applied where token = $1
           on conflict (k) do update
           set v = int8send(('x' || encode(kv.v, 'hex'))::bit(64)::bigint + 1), ver = excluded.ver
           returning v, ('x' || encode(v, 'hex'))::bit(64)::bigint n),
         old as (delete from {schema}.kv using last where k = $3::bytea || int8send(n - $5))
         insert into {schema}.kv (k, v, ver) select $3::bytea || last.v, $4::bytea, $1 from last"
    )
}

/// The parameters of a log's entry.
pub(super) struct Append<'a> {
    token: Revision,
    counter: &'a [u8],
    prefix: &'a [u8],
    value: &'a [u8],
    kept: i64,
}

impl<'a> Append<'a> {
    pub(super) fn new(log: &'a Log, value: &'a [u8], token: Revision) -> Self {
        let kept = i64::try_from(log.kept).unwrap_or(i64::MAX);
        Self { token, counter: log.counter, prefix: log.prefix, value, kept }
    }

    pub(super) fn parameters(&self) -> Parameters<'_> {
        vec![
            (&self.token, Type::INT8),
            (&self.counter, Type::BYTEA),
            (&self.prefix, Type::BYTEA),
            (&self.value, Type::BYTEA),
            (&self.kept, Type::INT8),
        ]
    }
}

/// Returns whether the change with a token was made.
pub(super) fn was_applied(schema: &str) -> String {
    format!("select exists (select from {schema}.applied where token = $1)")
}

/// Removes the tokens of changes whose writers have long had their reply or given up.
pub(super) fn forget_applied(schema: &str) -> String {
    format!("delete from {schema}.applied where at < now() - interval '1 hour'")
}
