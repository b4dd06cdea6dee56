//! Listings in parts that are bounded in number and in bytes.

use super::engine::{Pair, View};
use serde::{Deserialize, Serialize};

use super::keys::{self, Key};
use crate::error::Result;

/// A part of a listing: as many as were asked for, or fewer when they are large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// What is in it.
    pub items: Vec<T>,
    /// Whether there may be more behind it.
    pub more: bool,
}

/// Bytes of values in one part of a listing: enough for thousands of usual records, and little enough
/// for many who ask at once. The last value may go beyond it, and there is always one.
pub(super) const PAGE_BYTES: usize = 4 << 20;
/// Pairs asked for before it is known how long they are: values may have megabytes.
const FIRST: usize = 8;

/// The pairs of a range, at most `limit` and about [`PAGE_BYTES`]; at least one if there is one.
pub(super) fn page(view: &dyn View, from: &[u8], to: &[u8], limit: usize) -> Result<Page<Pair>> {
    let mut items: Vec<Pair> = Vec::new();
    let (mut bytes, mut step) = (0, FIRST.min(limit));
    while step > 0 {
        let start = items.last().map_or_else(|| from.to_vec(), |(key, _)| keys::next(key));
        let found = view.scan(&start, to, step)?;
        let full = found.len() == step;
        bytes += found.iter().map(|(_, value)| value.len()).sum::<usize>();
        items.extend(found);
        if !full {
            return Ok(Page { items, more: false });
        }
        let average = bytes / items.len().max(1) + 1;
        let room = PAGE_BYTES.saturating_sub(bytes) / average;
        step = room.min(items.len() * FIRST).min(limit - items.len());
    }
    Ok(Page { items, more: true })
}

/// What is done with a key and its value.
type EachPair<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// All pairs below a key, in pages, so that memory does not depend on how many and how long they are.
pub(super) fn each_below(view: &dyn View, prefix: Key, each: &mut EachPair<'_>) -> Result<()> {
    const PAGE: usize = 1_000;
    let (mut from, to) = prefix.range();
    loop {
        let page = page(view, &from, &to, PAGE)?;
        for (key, value) in &page.items {
            each(key, value)?;
        }
        match page.items.last() {
            Some((key, _)) if page.more => from = keys::next(key),
            _ => return Ok(()),
        }
    }
}

/// A part of a listing that grows value by value until it is full.
pub(super) struct Filling<T> {
    items: Vec<T>,
    bytes: usize,
    limit: usize,
}

impl<T> Filling<T> {
    pub(super) fn new(limit: u32) -> Self {
        Self { items: Vec::new(), bytes: 0, limit: limit as usize }
    }

    /// Whether the next value belongs to the next part.
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= self.limit || self.bytes >= PAGE_BYTES
    }

    pub(super) fn push(&mut self, item: T, bytes: usize) {
        self.bytes += bytes;
        self.items.push(item);
    }

    pub(super) fn page(self, more: bool) -> Page<T> {
        Page { items: self.items, more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::engine::memory::MemoryEngine;
    use crate::registry::engine::{Durability, Engine, read};

    fn pages_of(lengths: &[usize], limit: usize) -> Vec<(usize, usize)> {
        let engine = MemoryEngine::default();
        let fill = &mut |transaction: &mut dyn crate::registry::engine::Transaction| {
            lengths.iter().enumerate().try_for_each(|(index, length)| {
                transaction.put(&(index as u64).to_be_bytes(), &vec![0; *length])
            })
        };
        engine.write(Durability::Immediate, fill).unwrap();
        let (mut from, to) = (vec![0], vec![255]);
        let mut pages = Vec::new();
        loop {
            let found = read(&engine, |view| page(view, &from, &to, limit)).unwrap();
            let bytes = found.items.iter().map(|(_, value)| value.len()).sum();
            pages.push((found.items.len(), bytes));
            match found.items.last() {
                Some((key, _)) if found.more => from = keys::next(key),
                _ => return pages,
            }
        }
    }

    #[test]
    fn many_small_values_come_by_number_and_few_large_ones_by_bytes() {
        assert_eq!(pages_of(&[1; 25], 10), [(10, 10), (10, 10), (5, 5)]);
        assert_eq!(pages_of(&[], 10), [(0, 0)]);
        let pages = pages_of(&[1 << 20; 40], 1_000);
        assert_eq!(pages.iter().map(|(count, _)| count).sum::<usize>(), 40);
        assert!(pages.iter().all(|(_, bytes)| *bytes <= 2 * PAGE_BYTES), "{pages:?}");
    }

    #[test]
    fn large_values_behind_small_ones_are_not_all_taken_at_once() {
        let lengths: Vec<usize> = [10; 200].into_iter().chain([1 << 20; 60]).collect();
        let pages = pages_of(&lengths, 1_000);
        assert_eq!(pages.iter().map(|(count, _)| count).sum::<usize>(), 260);
        assert!(pages.iter().all(|(_, bytes)| *bytes <= 80 << 20), "{pages:?}");
    }
}
