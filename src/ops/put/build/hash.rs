//! The hashing of units, by one thread each.

use std::time::Duration;

use crate::content::chunk::Cutter;
use crate::content::external;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::external::External;
use crate::model::host::file_time;
use crate::model::recipe::Piece;
use crate::model::tree::Content;
use crate::ops::put::file::{CHANGED_RETRIES, OpenFile, keeps_changing};
use crate::ops::put::walk::event::{
    Cut, Event, FileMeta, Found, SMALL_MAX_BYTES, Unit, Work, cut, cut_all,
};

/// The age of the last change at which a file is hashed. A change within one tick of the host's
/// clock (at most 10 ms) does not show in a file's times.
const TICKS: Duration = Duration::from_millis(25);

/// Reads the small files of a unit, cuts and hashes them, and hashes segments.
///
/// # Errors
/// [`Kind::Conflict`] for a file that keeps changing, [`Kind::Stale`] for a wrong guess.
pub(crate) fn hash(unit: Unit<Found>, cutter: &Cutter) -> Result<Unit<Event>> {
    let Unit { steps, mut buffer } = unit;
    let total: u64 = steps.iter().map(small_bytes).sum();
    buffer.reserve(total as usize);
    let events = steps.into_iter().map(|found| match found {
        Found::Ready(event) => Ok(event),
        Found::Work(work) => done(work, &mut buffer, cutter),
    });
    let steps = events.collect::<Result<_>>()?;
    Ok(Unit { steps, buffer })
}

fn done(work: Work, buffer: &mut Vec<u8>, cutter: &Cutter) -> Result<Event> {
    match work {
        Work::Refer(file, external) => describe(file, external),
        Work::Small(file) => read_small(file, buffer, cutter),
        Work::Segment(ranges) => {
            Ok(Event::Pieces(ranges.into_iter().map(|range| cut(buffer, range)).collect()))
        }
        Work::Guess { file, offset, pieces } => {
            confirm(&file, offset, &pieces, buffer).map(Event::Pieces)
        }
    }
}

/// Reads the guessed chunks and compares their digests. If these are right, so are the cuts: the
/// end of a chunk depends only on its bytes.
fn confirm(file: &OpenFile, at: u64, pieces: &[Piece], buffer: &mut Vec<u8>) -> Result<Vec<Cut>> {
    let wrong = || Error::new(Kind::Stale, "a file changed after it was prehashed");
    let length: u64 = pieces.iter().map(|piece| piece.size_bytes).sum();
    buffer.resize(length as usize, 0);
    let count = file.read(at, buffer).map_err(|e| Error::io("cannot read a file again", e))?;
    if (count as u64) < length {
        return Err(wrong());
    }
    let mut start = 0;
    let cuts = pieces.iter().map(|piece| {
        let range = start..start + piece.size_bytes as usize;
        start = range.end;
        let cut = cut(buffer, range);
        if cut.digest == piece.digest { Ok(cut) } else { Err(wrong()) }
    });
    cuts.collect()
}

/// Makes the descriptor of an external file. If it has a path, it is read and hashed first.
fn describe(mut file: FileMeta, mut external: External) -> Result<Event> {
    if !file.path.as_os_str().is_empty() {
        prove(&mut file, &mut external)?;
    }
    let (body, size_bytes) = (external.encode(), external.size_bytes);
    let content = Content::External { digest: External::digest_of(&body), size_bytes };
    Ok(Event::Referred(file, content, body))
}

fn prove(file: &mut FileMeta, external: &mut External) -> Result<()> {
    for _ in 0..=CHANGED_RETRIES {
        let open = OpenFile::open_below(&file.path, external.depth)?;
        // After this wait every later change shows.
        if let Some(left) =
            open.stamp.since_change(file_time()).and_then(|since| TICKS.checked_sub(since))
        {
            std::thread::sleep(left);
        }
        let checksum = open.hash().at("read", &file.path)?;
        if open.is_unchanged().at("read", &file.path)? {
            (file.stamp, file.size_bytes) = (open.stamp, open.size_bytes);
            (file.executable, file.settles_in) = (open.executable, open.settles_in);
            external.size_bytes = open.size_bytes;
            external.modified = external::modified_text(open.stamp.modified());
            external.checksum = Some(checksum);
            return Ok(());
        }
    }
    Err(keeps_changing(&file.path))
}

fn small_bytes(found: &Found) -> u64 {
    match found {
        Found::Work(Work::Small(file)) => file.size_bytes,
        _ => 0,
    }
}

/// Appends the file's bytes to `buffer`, and cuts and hashes them.
///
/// # Errors
/// [`Kind::Conflict`] if the file keeps changing or became too long.
fn read_small(mut file: FileMeta, buffer: &mut Vec<u8>, cutter: &Cutter) -> Result<Event> {
    let start = buffer.len();
    for _ in 0..=CHANGED_RETRIES {
        buffer.truncate(start);
        let open = OpenFile::open(&file.path)?;
        if open.size_bytes > SMALL_MAX_BYTES {
            // It grew beyond the limit since the walk saw it, so a process is writing to it.
            return Err(keeps_changing(&file.path));
        }
        buffer.resize(start + open.size_bytes as usize, 0);
        let count = open.read(0, &mut buffer[start..]).at("read", &file.path)?;
        if count as u64 == open.size_bytes && open.is_unchanged().at("read", &file.path)? {
            (file.stamp, file.size_bytes) = (open.stamp, open.size_bytes);
            (file.executable, file.settles_in) = (open.executable, open.settles_in);
            let cuts = cut_all(buffer, start, cutter);
            return Ok(Event::File(file, cuts));
        }
    }
    Err(keeps_changing(&file.path))
}
