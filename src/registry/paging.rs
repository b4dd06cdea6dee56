//! Listings in pages that are bounded in number and in bytes.

use super::engine::{Pair, View};
use serde::{Deserialize, Serialize};

use super::keys::{self, Key};
use crate::error::Result;

/// A page of a listing: as many items as requested, or fewer if they are large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items of the page.
    pub items: Vec<T>,
    /// True if the next page may have items.
    pub more: bool,
}

/// The size of the values in one page, in bytes: enough for thousands of usual records, and little
/// enough for many concurrent requests. The last value may exceed it, and a page has at least one
/// value.
pub(super) const PAGE_BYTES: usize = 4 << 20;
/// The number of pairs to read before their average length is known: values may have megabytes.
const FIRST: usize = 8;

/// Returns the first pairs of a range: at most `limit` and about [`PAGE_BYTES`], but at least one
/// if there is one.
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

/// A function that receives each key and its value.
type EachPair<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// Calls `each` for all pairs below a key. It reads them in pages, so that memory use has a bound.
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

/// A page that grows item by item until it is full.
pub(super) struct Filling<T> {
    items: Vec<T>,
    bytes: usize,
    limit: usize,
}

impl<T> Filling<T> {
    pub(super) fn new(limit: u32) -> Self {
        Self { items: Vec::new(), bytes: 0, limit: limit as usize }
    }

    /// Returns whether the next item belongs to the next page.
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
