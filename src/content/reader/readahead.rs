//! Sequential readers: streams within big files, several in one file at a time. Pure.

use std::ops::Range;

use crate::model::digest::Digest;

/// The number of streams remembered: more than a few loaders with as many workers have.
const STREAMS: usize = 64;
/// The distance behind a stream at which a read is still in order. The kernel's own readahead comes
/// from several threads.
const BEHIND_BYTES: u64 = 4 << 20;
/// The distance ahead of a stream at which a read is still in order.
const AHEAD_BYTES: u64 = 1 << 20;
/// The number of reads in order that make a stream.
const READS: u32 = 2;
/// The first window.
const WINDOW_MIN_BYTES: u64 = 1 << 20;
/// The largest window: what a fast network has under way in some 50 ms.
const WINDOW_MAX_BYTES: u64 = 48 << 20;

struct Stream {
    file: Digest,
    /// The expected position of the next read.
    next: u64,
    /// The position up to which bytes were requested.
    asked: u64,
    window: u64,
    reads: u32,
    used: u64,
}

/// The streams that are remembered.
#[derive(Default)]
pub(crate) struct Streams {
    streams: Vec<Stream>,
    clock: u64,
}

impl Streams {
    /// Notes that bytes `read` of `file`, which has `size_bytes`, are being read. Returns the range
    /// to fetch for the reads to come.
    pub(crate) fn note(
        &mut self,
        file: Digest,
        read: &Range<u64>,
        size_bytes: u64,
    ) -> Option<Range<u64>> {
        self.clock += 1;
        let near = |stream: &&mut Stream| {
            let next = stream.next;
            let span = next.saturating_sub(BEHIND_BYTES)..=next + AHEAD_BYTES;
            stream.file == file && span.contains(&read.start)
        };
        let Some(stream) = self.streams.iter_mut().find(near) else {
            self.begin(file, read.end);
            return None;
        };
        stream.used = self.clock;
        if read.end <= stream.next {
            return None;
        }
        stream.next = read.end;
        stream.reads += 1;
        if stream.reads < READS {
            stream.asked = stream.asked.max(read.end);
            return None;
        }
        // More is requested only when less than half a window is left.
        if stream.next + stream.window / 2 <= stream.asked {
            return None;
        }
        let from = stream.asked.max(stream.next);
        let until = (stream.next + stream.window).min(size_bytes);
        stream.window = (stream.window * 2).min(WINDOW_MAX_BYTES);
        stream.asked = stream.asked.max(until);
        (from < until).then_some(from..until)
    }

    fn begin(&mut self, file: Digest, next: u64) {
        let (window, used) = (WINDOW_MIN_BYTES, self.clock);
        let stream = Stream { file, next, asked: next, window, reads: 0, used };
        if self.streams.len() < STREAMS {
            return self.streams.push(stream);
        }
        if let Some(oldest) = self.streams.iter_mut().min_by_key(|stream| stream.used) {
            *oldest = stream;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object_kind::ObjectKind;

    fn file(n: u8) -> Digest {
        Digest::of(ObjectKind::Chunk, &[n])
    }

    #[test]
    fn a_stream_is_read_ahead_in_growing_windows_and_each_byte_once() {
        let size = 1 << 30;
        let mut streams = Streams::default();
        let mut asked = 0..0;
        let mut requests = 0;
        for at in (0..size).step_by(128 << 10) {
            if let Some(range) = streams.note(file(1), &(at..at + (128 << 10)), size) {
                assert!(range.start >= asked.end && range.end <= size, "{range:?} after {asked:?}");
                requests += 1;
                asked = range;
            }
        }
        assert_eq!(asked.end, size);
        assert!(requests < 60, "{requests}");
    }

    #[test]
    fn random_reads_are_not_read_ahead() {
        let mut streams = Streams::default();
        let mut at: u64 = 1;
        let mut asked = 0;
        for _ in 0..5_000 {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let start = (at >> 20) % (1 << 30);
            let read = start..start + 4096;
            asked += u32::from(streams.note(file(1), &read, 1 << 30).is_some());
        }
        // Now and then a read falls behind another by chance.
        assert!(asked < 100, "{asked}");
    }

    #[test]
    fn streams_in_one_file_and_in_many_do_not_disturb_each_other() {
        let mut streams = Streams::default();
        let mut asked = 0;
        for step in 0..40u64 {
            for (number, start) in [(1, 0), (1, 1 << 30), (2, 0), (3, 1 << 20)] {
                let at = start + step * (128 << 10);
                asked += u64::from(
                    streams.note(file(number), &(at..at + (128 << 10)), 2 << 30).is_some(),
                );
            }
        }
        assert!(asked >= 4 * 3, "{asked}");
    }
}
