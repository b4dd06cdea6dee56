//! The feed of a walk: it collects steps in units, and reads and cuts big files.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::event::{Event, FileMeta, Found, Unit, Work};
use crate::content::chunk::Cutter;
use crate::error::{IoContext, Result};
use crate::model::recipe::Piece;
use crate::ops::put::file::{CHANGED_RETRIES, OpenFile, keeps_changing};

/// The maximum number of steps in a unit.
const UNIT_FILES: usize = 256;
/// The number of bytes to be read with which a unit is full.
const UNIT_BYTES: u64 = 4 << 20;
/// The maximum number of bytes of a big file in one unit.
pub(crate) const SEGMENT_BYTES: usize = 8 << 20;

/// The consumer of units, in order. It returns an error if the put has stopped.
pub(crate) type Emit<'a> = dyn FnMut(Unit<Found>) -> Result<()> + 'a;

/// The sink for the steps of a walk.
pub(crate) struct Feed<'a> {
    /// The cutter of files.
    pub(crate) cutter: &'a Cutter,
    unit: Unit<Found>,
    unit_bytes: u64,
    emit: &'a mut Emit<'a>,
}

impl<'a> Feed<'a> {
    /// Returns a feed that sends units to `emit`.
    pub(crate) fn new(cutter: &'a Cutter, emit: &'a mut Emit<'a>) -> Self {
        Self { cutter, unit: Unit::default(), unit_bytes: 0, emit }
    }

    /// Emits the current unit, then a unit of one step and its bytes.
    pub(crate) fn whole(&mut self, found: impl Into<Found>, buffer: Vec<u8>) -> Result<()> {
        self.flush()?;
        self.unit.buffer = buffer;
        self.unit.steps.push(found.into());
        self.flush()
    }

    /// Emits the current unit, unless it is empty.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.unit_bytes = 0;
        let unit = std::mem::take(&mut self.unit);
        if unit.steps.is_empty() { Ok(()) } else { (self.emit)(unit) }
    }

    /// Adds a step, for which a hashing thread reads that many `bytes`. Emits the unit if it is
    /// full.
    pub(crate) fn push(&mut self, found: impl Into<Found>, bytes: u64) -> Result<()> {
        self.unit.steps.push(found.into());
        self.unit_bytes += bytes;
        if self.unit.steps.len() >= UNIT_FILES || self.unit_bytes >= UNIT_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Reads and cuts a big file.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::error::Kind::Conflict) if it changes during each attempt.
    pub(crate) fn big_file(&mut self, mut file: FileMeta) -> Result<()> {
        for _ in 0..=CHANGED_RETRIES {
            let open = OpenFile::open(&file.path)?;
            (file.stamp, file.size_bytes) = (open.stamp, open.size_bytes);
            file.settles_in = open.settles_in;
            self.push(Event::Begin(file.clone()), 0)?;
            self.segments(&file.path, &open, 0)?;
            // A file that may become a pack is frozen, and becoming one changes its stamp.
            if file.share || open.is_unchanged().at("read", &file.path)? {
                return self.push(Event::End, 0);
            }
            self.push(Event::Abort, 0)?;
        }
        Err(keeps_changing(&file.path))
    }

    /// Cuts a big file of a frozen draft. `guessed` are chunks at its head, to be confirmed.
    pub(crate) fn big_draft_file(&mut self, mut file: FileMeta, guessed: &[Piece]) -> Result<()> {
        let open = Arc::new(OpenFile::open(&file.path)?);
        (file.stamp, file.size_bytes) = (open.stamp, open.size_bytes);
        let path = file.path.clone();
        self.push(Event::Begin(file), 0)?;
        let (mut offset, mut rest) = (0, guessed);
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            while let Some(piece) = rest.get(count)
                && (count == 0 || bytes + piece.size_bytes <= SEGMENT_BYTES as u64)
            {
                (count, bytes) = (count + 1, bytes + piece.size_bytes);
            }
            let (now, later) = rest.split_at(count);
            if offset + bytes > open.size_bytes {
                break;
            }
            let file = Arc::clone(&open);
            self.whole(Work::Guess { file, offset, pieces: now.to_vec() }, Vec::new())?;
            (offset, rest) = (offset + bytes, later);
        }
        self.segments(&path, &open, offset)?;
        self.push(Event::End, 0)
    }

    /// Reads and cuts a file from `offset` on, where a chunk begins. Stops early if the file became
    /// shorter since it was opened.
    fn segments(&mut self, path: &Path, open: &OpenFile, mut offset: u64) -> Result<()> {
        let zero_chunk = self.cutter.cut(&vec![0; self.cutter.max_bytes()]) as u64;
        let mut carry: Vec<u8> = Vec::new();
        while offset < open.size_bytes {
            if carry.is_empty() {
                let hole = open.hole_end(offset).saturating_sub(offset);
                let whole = hole.checked_sub(self.cutter.max_bytes() as u64);
                if let Some(room) = whole {
                    let chunks = room / zero_chunk + 1;
                    self.push(Event::Zeros(chunks), 0)?;
                    offset += chunks * zero_chunk;
                    continue;
                }
            }
            self.flush()?;
            let mut buffer = std::mem::take(&mut carry);
            let have = buffer.len();
            let left = (open.size_bytes - offset).min((SEGMENT_BYTES - have) as u64) as usize;
            buffer.resize(have + left, 0);
            let count = open.read(offset, &mut buffer[have..]).at("read", path)?;
            buffer.truncate(have + count);
            offset += count as u64;
            let at_end = count < left || offset == open.size_bytes;
            let cuts = self.cut(&buffer, at_end);
            let used = cuts.last().map_or(0, |cut| cut.end);
            carry.extend_from_slice(&buffer[used..]);
            self.whole(Work::Segment(cuts), buffer)?;
            if count < left {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns the chunks of `buffer`. Unless the file ends with it, a rest is left uncut if its
    /// end depends on bytes that follow.
    pub(crate) fn cut(&self, buffer: &[u8], at_end: bool) -> Vec<Range<usize>> {
        let mut cuts = Vec::new();
        let mut start = 0;
        while start < buffer.len() && (at_end || buffer.len() - start >= self.cutter.max_bytes()) {
            let window = &buffer[start..buffer.len().min(start + self.cutter.max_bytes())];
            let end = start + self.cutter.cut(window);
            cuts.push(start..end);
            start = end;
        }
        cuts
    }
}
