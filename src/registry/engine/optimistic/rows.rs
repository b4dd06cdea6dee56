//! The rows of a table that were looked up, and what is known to be absent.

use std::collections::{BTreeMap, BTreeSet};

use crate::registry::engine::table::{Revision, Row, Seen};
use crate::registry::engine::{Span, Want};
use crate::registry::keys;

/// A value and its revision.
type Value = (Vec<u8>, Revision);

/// An interval of keys that is known whole: `from <= key < to`.
struct Known {
    from: Vec<u8>,
    to: Vec<u8>,
}

/// The rows that were looked up.
#[derive(Default)]
pub(super) struct Rows {
    rows: BTreeMap<Vec<u8>, Value>,
    absent: BTreeSet<Vec<u8>>,
    known: Vec<Known>,
    /// True if two looks saw different values of one key.
    pub(super) torn: bool,
}

/// The rows of a span: those that are known, and the span that is still to be looked up.
pub(super) struct Found<'a> {
    pub(super) rows: Vec<(&'a Vec<u8>, &'a Value)>,
    pub(super) unknown: Option<Span>,
}

impl Rows {
    /// Returns a row, or `None` if it is not known whether it exists.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<&Value>> {
        match self.rows.get(key) {
            Some(row) => Some(Some(row)),
            None if self.absent.contains(key) || self.knows(key) => Some(None),
            None => None,
        }
    }

    fn knows(&self, key: &[u8]) -> bool {
        self.known.iter().any(|known| *known.from <= *key && *key < *known.to)
    }

    /// Returns the first rows of a span.
    pub(super) fn span(&self, span: &Span) -> Found<'_> {
        let mut rows = Vec::new();
        let mut from = span.from.clone();
        loop {
            let known = self.known.iter().filter(|known| known.from <= from && from < known.to);
            let Some(end) = known.map(|known| &known.to).max() else { break };
            let to = end.min(&span.to).clone();
            let left = span.limit - rows.len();
            rows.extend(self.rows.range(from..to.clone()).take(left));
            if rows.len() == span.limit || to == span.to {
                return Found { rows, unknown: None };
            }
            from = to;
        }
        let limit = span.limit - rows.len();
        Found { rows, unknown: Some(Span { from, to: span.to.clone(), limit }) }
    }

    /// Removes what is known from a want.
    pub(super) fn unknown(&self, want: &Want) -> Want {
        let keys: BTreeSet<_> = want.keys.iter().filter(|key| self.get(key).is_none()).collect();
        let spans = want.spans.iter().filter(|span| !span.is_empty());
        let spans = spans.filter_map(|span| self.span(span).unknown).collect();
        Want { keys: keys.into_iter().cloned().collect(), spans }
    }

    /// Adds the rows of a look.
    pub(super) fn add(&mut self, want: &Want, seen: Seen) {
        for row in seen.rows {
            self.add_row(row);
        }
        for key in &want.keys {
            if !self.rows.contains_key(key) {
                self.absent.insert(key.clone());
            }
        }
        for (span, rows) in want.spans.iter().zip(seen.spans) {
            self.add_span(span, rows);
        }
    }

    fn add_span(&mut self, span: &Span, rows: Vec<Row>) {
        let to = match rows.last() {
            Some(last) if rows.len() >= span.limit => keys::next(&last.key),
            _ => span.to.clone(),
        };
        let before = self.rows.range(span.from.clone()..to.clone()).count();
        let mut again = 0;
        for row in rows {
            again += usize::from(self.rows.contains_key(&row.key));
            self.add_row(row);
        }
        // A row that was there before, and is not now.
        self.torn |= again < before;
        self.known.push(Known { from: span.from.clone(), to });
    }

    fn add_row(&mut self, row: Row) {
        let Row { key, value, revision } = row;
        self.torn |= self.absent.contains(&key);
        match self.rows.get(&key) {
            Some((_, known)) => self.torn |= *known != revision,
            None => {
                self.torn |= self.knows(&key);
                self.rows.insert(key, (value, revision));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: u8) -> Row {
        Row { key: vec![key], value: vec![key], revision: i64::from(key) + 1 }
    }

    fn span(from: u8, to: u8, limit: usize) -> Span {
        Span { from: vec![from], to: vec![to], limit }
    }

    fn looked_up(rows: &mut Rows, wanted: Span, found: &[u8]) {
        let want = Want { keys: Vec::new(), spans: vec![wanted] };
        rows.add(
            &want,
            Seen { rows: Vec::new(), spans: vec![found.iter().copied().map(row).collect()] },
        );
    }

    #[test]
    fn a_full_page_is_known_to_its_last_row_and_the_rest_is_still_unknown() {
        let mut rows = Rows::default();
        looked_up(&mut rows, span(0, 9, 2), &[1, 3]);
        assert_eq!(rows.get(&[2]), Some(None));
        assert_eq!(rows.get(&[4]), None);
        let found = rows.span(&span(0, 9, 3));
        assert_eq!(found.rows.len(), 2);
        assert_eq!(found.unknown, Some(Span { from: vec![3, 0], to: vec![9], limit: 1 }));
        assert_eq!(rows.span(&span(0, 9, 2)).unknown, None);
        looked_up(&mut rows, Span { from: vec![3, 0], to: vec![9], limit: 5 }, &[7]);
        let found = rows.span(&span(0, 9, 9));
        assert_eq!((found.rows.len(), found.unknown), (3, None));
        assert!(!rows.torn);
    }

    #[test]
    fn looks_that_contradict_each_other_are_noticed() {
        let torn = |change: &dyn Fn(&mut Rows)| {
            let mut rows = Rows::default();
            looked_up(&mut rows, span(0, 5, 9), &[1, 3]);
            rows.add(&Want::keys([vec![7]]), Seen::default());
            change(&mut rows);
            rows.torn
        };
        assert!(!torn(&|rows| looked_up(rows, span(0, 9, 9), &[1, 3, 8])));
        assert!(torn(&|rows| looked_up(rows, span(0, 9, 9), &[1, 8])));
        assert!(torn(&|rows| looked_up(rows, span(0, 9, 9), &[1, 2, 3])));
        assert!(torn(&|rows| looked_up(rows, span(4, 9, 9), &[7])));
        let changed = Row { revision: 99, ..row(1) };
        assert!(torn(&|rows| rows
            .add(&Want::keys([vec![1]]), Seen { rows: vec![changed.clone()], spans: Vec::new() })));
    }
}
