//! When a schedule is due: five fields as cron has them, `@daily` and the like, `@every 5m`.
//!
//! Source of the grammar: `github.com/robfig/cron` v3, `ParseStandard`. Across changes of the clock it is croner's rules that
//! hold: what would be due at a time that the clock skips is due right after the gap.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A schedule in its time zone.
pub enum Schedule {
    /// Times of the clock.
    Fields(Box<Cron>, Tz),
    /// Always so long after the last time.
    Every(SignedDuration),
}

/// The largest value of each field.
const MOST: [u32; 5] = [59, 23, 31, 12, 6];

impl Schedule {
    /// Reads one. A `TZ=` or `CRON_TZ=` before the fields wins over `zone`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, zone: Tz) -> Result<Self, String> {
        let prefix = ["TZ=", "CRON_TZ="].iter().find_map(|prefix| text.strip_prefix(prefix));
        let (zone, text) = match prefix {
            Some(rest) => {
                let (name, fields) = rest.split_once(' ').unwrap_or((rest, ""));
                (name.parse::<Tz>().map_err(|e| e.to_string())?, fields)
            }
            None => (zone, text),
        };
        let text = text.trim();
        if let Some(wait) = text.strip_prefix("@every ") {
            let wait = duration(wait).ok_or_else(|| format!("failed to parse duration {text}"))?;
            return Ok(Self::Every(SignedDuration::from_secs(wait.as_secs().max(1))));
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            fields => fields,
        };
        let parts: Vec<&str> = fields.split_whitespace().collect();
        if parts.len() != MOST.len() {
            return Err(format!("expected exactly 5 fields, found {}: {parts:?}", parts.len()));
        }
        let plain: Vec<String> = parts.iter().zip(MOST).map(|(part, most)| field(part, most)).collect();
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&plain.join(" ")).map_err(|e| e.to_string())?;
        Ok(Self::Fields(Box::new(cron), zone))
    }

    /// The first time after `after`; `None` when there is none, as for the 31st of February.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(wait) => whole(after).checked_add(*wait).ok(),
            Self::Fields(cron, zone) => back(cron.find_next_occurrence(&local(after, *zone)?, false).ok()?),
        }
    }

    /// The last time after `after` and not after `now`.
    pub fn last(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let last = match self {
            Self::Every(wait) => {
                let passed = now.duration_since(whole(after)).as_secs();
                let whole_waits = passed - passed.rem_euclid(wait.as_secs().max(1));
                whole(after).checked_add(SignedDuration::from_secs(whole_waits)).ok()?
            }
            Self::Fields(cron, zone) => back(cron.find_previous_occurrence(&local(now, *zone)?, true).ok()?)?,
        };
        (last > after).then_some(last)
    }
}

/// Without fractions of seconds.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn local(at: Timestamp, zone: Tz) -> Option<DateTime<Tz>> {
    Some(DateTime::<Utc>::from_timestamp(at.as_second(), 0)?.with_timezone(&zone))
}

fn back(at: DateTime<Tz>) -> Option<Timestamp> {
    Timestamp::from_second(at.timestamp()).ok()
}

/// A field in the dialect of the library: what has a star among its parts is a star, `5/15` begins at 5.
fn field(text: &str, most: u32) -> String {
    let is_star = |part: &str| matches!(part, "*" | "?" | "*/1" | "?/1");
    if text.split(',').any(is_star) {
        return "*".to_owned();
    }
    let plain = |part: &str| match part.split_once('/') {
        Some(("?", step)) => format!("*/{step}"),
        Some((first, step)) if first != "*" && !first.contains('-') => format!("{first}-{most}/{step}"),
        _ => part.to_owned(),
    };
    text.split(',').map(plain).collect::<Vec<_>>().join(",")
}

/// `1h30m`, `90s`, `1.5h`, as Go writes lengths of time.
fn duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match rest.get(..letters)? {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = rest.get(letters..)?;
    }
    SignedDuration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule, zone.parse().unwrap()).unwrap();
        schedule.next(after.parse().unwrap()).map_or("never".to_owned(), |at| at.to_string())
    }

    #[test]
    fn fields_are_read_as_cron_reads_them() {
        let after = "2026-11-25T10:07:30Z";
        for (schedule, wanted) in [
            ("* * * * *", "2026-11-25T10:08:00Z"),
            ("*/1 * * * ?", "2026-11-25T10:08:00Z"),
            ("5/15 * * * *", "2026-11-25T10:20:00Z"),
            ("0 0 13 * 5", "2026-11-27T00:00:00Z"),
            ("0 0 */1 * 1", "2026-11-30T00:00:00Z"),
            ("0 9-17/4 * * MON-FRI", "2026-11-25T13:00:00Z"),
            ("0 0 29 feb *", "2028-02-29T00:00:00Z"),
            ("@weekly", "2026-11-29T00:00:00Z"),
            ("@every 90m", "2026-11-25T11:37:30Z"),
            ("0 0 31 2 *", "never"),
            ("TZ=Asia/Tokyo 0 0 * * *", "2026-11-25T15:00:00Z"),
        ] {
            assert_eq!(next(schedule, "UTC", after), wanted, "{schedule}");
        }
        for wrong in ["* * * *", "61 * * * *", "@often", "@every x", "TZ=Moon 0 0 * * *"] {
            assert!(Schedule::parse(wrong, Tz::UTC).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_zone_moves_the_times() {
        assert_eq!(next("0 12 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z"), "2026-07-01T10:00:00Z");
        assert_eq!(next("0 12 * * *", "Europe/Berlin", "2026-12-01T00:00:00Z"), "2026-12-01T11:00:00Z");
        // 2:30 does not exist on 29 March 2026: the clock goes from 2 to 3.
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
    }

    #[test]
    fn the_last_time_is_the_one_before_now() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let hourly = Schedule::parse("0 * * * *", Tz::UTC).unwrap();
        let (after, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-05T07:59:00Z"));
        assert_eq!(hourly.last(after, now), Some(at("2026-01-05T07:00:00Z")));
        assert_eq!(hourly.last(now, at("2026-01-05T07:59:59Z")), None);
        let every = Schedule::parse("@every 7m", Tz::UTC).unwrap();
        assert_eq!(every.last(after, at("2026-01-01T00:20:00Z")), Some(at("2026-01-01T00:14:00Z")));
        assert_eq!(every.last(after, at("2026-01-01T00:06:00Z")), None);
    }
}
