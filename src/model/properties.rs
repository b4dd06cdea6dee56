//! The properties of versions and artifacts beside descriptions: tags, time to live, protection.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::Tag;
use super::time::Timestamp;
use crate::error::{Error, Kind, Result};

/// The maximum number of tags of a version or an artifact: they are part of every listing.
pub(crate) const TAGS_MAX: usize = 100;
/// The maximum number of protected aliases of an artifact, for the same reason.
pub(crate) const PROTECTED_MAX: usize = 100;
/// The longest time to live in milliseconds: a hundred years. A version that stays longer has none.
pub(crate) const TTL_MAX_MILLISECONDS: u64 = 100 * 365 * DAY_MILLISECONDS;

const DAY_MILLISECONDS: u64 = 24 * 3600 * 1000;
/// The length of a month in a duration, in days.
const MONTH_DAYS: i64 = 30;
/// The length of a year in a duration, in days.
const YEAR_DAYS: i64 = 365;
/// The units in which durations are written, the longest first, in milliseconds.
const UNITS: &[(&str, u64)] =
    &[("d", DAY_MILLISECONDS), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration as people write it (`30d`, `12h`, `2 weeks`) in milliseconds. A day has 24
/// hours, a month 30 days, a year 365.
///
/// # Errors
/// [`Kind::Usage`] if it is not a duration, is shorter than a millisecond, or is longer than
/// [`TTL_MAX_MILLISECONDS`].
pub(crate) fn parse_duration(text: &str) -> Result<u64> {
    let bad = |what: &str| {
        Error::new(Kind::Usage, format!("{text:?} is not a duration{what}"))
            .hint("write 30d, 12h or 2 weeks")
    };
    let span: jiff::Span = text.parse().map_err(|_| bad(""))?;
    let days = i64::from(span.get_years()) * YEAR_DAYS + i64::from(span.get_months()) * MONTH_DAYS;
    let rest = span.try_years(0).and_then(|span| span.try_months(0));
    let rest = rest.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()));
    let rest = rest.map_err(|_| bad(""))?.as_millis();
    let total = rest + i128::from(days) * i128::from(DAY_MILLISECONDS);
    match u64::try_from(total) {
        Ok(total) if total > TTL_MAX_MILLISECONDS => Err(bad(" of at most a hundred years")),
        Ok(total) if total > 0 => Ok(total),
        _ => Err(bad(" longer than a millisecond")),
    }
}

/// Writes a duration as [`parse_duration`] reads it, in the longest unit that divides it.
pub(crate) fn write_duration(milliseconds: u64) -> String {
    let fits = |unit: &&(&str, u64)| milliseconds.is_multiple_of(unit.1);
    let (name, length) = UNITS.iter().find(fits).unwrap_or(&("ms", 1));
    format!("{}{name}", milliseconds / length)
}

/// The time to live of a version, counted from its creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ttl {
    /// The time to live of its artifact.
    #[default]
    Inherit,
    /// No end, whatever the artifact's time to live is.
    Never,
    /// A time in milliseconds.
    After(u64),
}

impl FromStr for Ttl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "inherit" => Ok(Self::Inherit),
            "never" => Ok(Self::Never),
            duration => parse_duration(duration).map(Self::After).map_err(|e| {
                e.hint("a time to live is written 30d, 12h or 2 weeks; or never, or inherit")
            }),
        }
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit => f.write_str("inherit"),
            Self::Never => f.write_str("never"),
            Self::After(milliseconds) => f.write_str(&write_duration(*milliseconds)),
        }
    }
}

impl Ttl {
    /// Returns the time at which a version expires; `of_artifact` is what it inherits, in
    /// milliseconds.
    pub(crate) fn expires(self, created: Timestamp, of_artifact: Option<u64>) -> Option<Timestamp> {
        let milliseconds = match self {
            Self::Inherit => of_artifact?,
            Self::Never => return None,
            Self::After(milliseconds) => milliseconds,
        };
        Some(Timestamp(created.0.saturating_add(milliseconds)))
    }
}

/// Removes `remove` from a sorted list of names, then adds `add`. The result is sorted and has each
/// name once.
///
/// # Errors
/// [`Kind::Usage`] if there would be more than `max` of these `what`.
pub(crate) fn change_names<T: Ord + Clone>(
    names: &mut Vec<T>,
    (add, remove): (&[T], &[T]),
    (what, max): (&str, usize),
) -> Result<()> {
    names.retain(|name| !remove.contains(name));
    names.extend_from_slice(add);
    names.sort_unstable();
    names.dedup();
    if names.len() > max {
        let found = format!("{} {what}; the most is {max}", names.len());
        return Err(Error::new(Kind::Usage, found).hint("remove some, or use metadata"));
    }
    Ok(())
}

/// Changes a list of tags as [`change_names`] does.
///
/// # Errors
/// [`Kind::Usage`] for more than [`TAGS_MAX`].
pub(crate) fn change_tags(tags: &mut Vec<Tag>, add: &[Tag], remove: &[Tag]) -> Result<()> {
    change_names(tags, (add, remove), ("tags", TAGS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_as_people_write_them() {
        let day = DAY_MILLISECONDS;
        let all = [("30d", 30 * day), ("2 weeks", 14 * day), ("1mo", 30 * day), ("1y", 365 * day)];
        for (text, milliseconds) in all.into_iter().chain([("1h 30m", 5_400_000), ("1ms", 1)]) {
            assert_eq!(parse_duration(text).unwrap(), milliseconds, "{text}");
        }
        for bad in ["", "0d", "-30d", "30d ago", "101y", "1us", "soon", "30", "v3", "99999999999d"]
        {
            assert_eq!(parse_duration(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn a_version_lives_as_long_as_it_or_its_artifact_says() {
        let at = Timestamp(1_000);
        assert_eq!(Ttl::Inherit.expires(at, None), None);
        assert_eq!(Ttl::Inherit.expires(at, Some(5)), Some(Timestamp(1_005)));
        assert_eq!(Ttl::Never.expires(at, Some(5)), None);
        assert_eq!(Ttl::After(7).expires(at, Some(5)), Some(Timestamp(1_007)));
    }

    #[test]
    fn tags_are_sorted_unique_and_few() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let mut tags = vec![tag("b")];
        change_tags(&mut tags, &[tag("c"), tag("a"), tag("c")], &[tag("b"), tag("x")]).unwrap();
        assert_eq!(tags, [tag("a"), tag("c")]);
        let many: Vec<_> = (0..=TAGS_MAX).map(|n| tag(&n.to_string())).collect();
        assert_eq!(change_tags(&mut tags, &many, &[]).unwrap_err().kind(), Kind::Usage);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(milliseconds in 1..=TTL_MAX_MILLISECONDS) {
            for ttl in [Ttl::Inherit, Ttl::Never, Ttl::After(milliseconds)] {
                prop_assert_eq!(ttl.to_string().parse::<Ttl>().unwrap(), ttl);
            }
        }
    }
}
