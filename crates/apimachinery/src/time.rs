//! Points in time as Kubernetes reads and writes them: RFC 3339 in, UTC out.

use chrono::{DateTime, Duration, NaiveDate, SecondsFormat, Utc};

const SECONDS_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// `2026-11-24T04:00:00Z`; fractions of a second are cut.
#[must_use]
pub fn format_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `2026-11-24T04:00:00.000000Z`: always six digits.
#[must_use]
pub fn format_micro_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Reads RFC 3339 as Go does.
///
/// # Errors
/// Go's text, `parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"`.
pub fn parse_rfc3339(text: &str) -> Result<DateTime<Utc>, String> {
    Reader { whole: text, rest: text, layout: SECONDS_LAYOUT }.time(false)
}

/// Reads a `MicroTime`, whose fraction has to have six digits.
///
/// # Errors
/// As [`parse_rfc3339`], with the layout of a `MicroTime`.
pub fn parse_micro_time(text: &str) -> Result<DateTime<Utc>, String> {
    Reader { whole: text, rest: text, layout: MICRO_LAYOUT }.time(true)
}

/// The canonical text of a time; `None` when `text` is it already.
///
/// # Errors
/// As [`parse_rfc3339`].
pub fn canonical(text: &str) -> Result<Option<String>, String> {
    let printed = format_time(parse_rfc3339(text)?);
    Ok((printed != text).then_some(printed))
}

/// The canonical text of a `MicroTime`; `None` when `text` is it already.
///
/// # Errors
/// As [`parse_micro_time`].
pub fn canonical_micro(text: &str) -> Result<Option<String>, String> {
    let printed = format_micro_time(parse_micro_time(text)?);
    Ok((printed != text).then_some(printed))
}

struct Reader<'a> {
    whole: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl Reader<'_> {
    fn wrong<T>(&self, element: &str) -> Result<T, String> {
        Err(format!(
            "parsing time {:?} as {:?}: cannot parse {:?} as {element:?}",
            self.whole, self.layout, self.rest
        ))
    }

    fn range<T>(&self, what: &str) -> Result<T, String> {
        Err(format!("parsing time {:?}: {what} out of range", self.whole))
    }

    /// `most` digits, or one if `short` is allowed and the second is none.
    fn number(&mut self, most: usize, short: bool, element: &str) -> Result<u32, String> {
        let found = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if found < most && !(short && found >= 1) {
            return self.wrong(element);
        }
        let (digits, rest) = self.rest.split_at(found);
        self.rest = rest;
        Ok(digits.parse().unwrap_or_default())
    }

    fn sign(&mut self, wanted: char) -> Result<(), String> {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => self.wrong(&wanted.to_string()),
        }
    }

    /// The digits behind a dot as nanoseconds; `None` without one.
    fn fraction(&mut self) -> Option<u32> {
        let rest = self.rest.strip_prefix(['.', ','])?;
        let found = rest.bytes().take_while(u8::is_ascii_digit).count();
        if found == 0 {
            return None;
        }
        let (digits, rest) = rest.split_at(found);
        self.rest = rest;
        Some(
            digits
                .bytes()
                .chain(std::iter::repeat(b'0'))
                .take(9)
                .fold(0, |n, d| n * 10 + u32::from(d - b'0')),
        )
    }

    fn offset(&mut self) -> Result<Duration, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(Duration::zero());
        }
        let bytes = self.rest.as_bytes();
        let shaped = bytes.len() >= 6
            && matches!(bytes[0], b'+' | b'-')
            && bytes[3] == b':'
            && [1, 2, 4, 5].iter().all(|i| bytes[*i].is_ascii_digit());
        if !shaped {
            return self.wrong("Z07:00");
        }
        let two = |at: usize| i64::from(bytes[at] - b'0') * 10 + i64::from(bytes[at + 1] - b'0');
        let (hours, minutes) = (two(1), two(4));
        if hours > 24 {
            return self.range("time zone offset hour");
        }
        if minutes > 60 {
            return self.range("time zone offset minute");
        }
        let seconds = (hours * 60 + minutes) * 60;
        let seconds = if bytes[0] == b'-' { -seconds } else { seconds };
        self.rest = &self.rest[6..];
        Ok(Duration::seconds(seconds))
    }

    fn time(mut self, micro: bool) -> Result<DateTime<Utc>, String> {
        let year = self.number(4, false, "2006")?;
        self.sign('-')?;
        let month = self.number(2, false, "01")?;
        if !(1..=12).contains(&month) {
            return self.range("month");
        }
        self.sign('-')?;
        let day = self.number(2, false, "02")?;
        self.sign('T')?;
        let hour = self.number(2, true, "15")?;
        if hour > 23 {
            return self.range("hour");
        }
        self.sign(':')?;
        let minute = self.number(2, false, "04")?;
        if minute > 59 {
            return self.range("minute");
        }
        self.sign(':')?;
        let second = self.number(2, false, "05")?;
        if second > 59 {
            return self.range("second");
        }
        let before = self.rest;
        let nanos = match self.fraction() {
            Some(nanos) if !micro || before.len() - self.rest.len() == 7 => nanos,
            None if !micro => 0,
            _ => {
                self.rest = before;
                return self.wrong(".000000");
            }
        };
        let offset = self.offset()?;
        if !self.rest.is_empty() {
            return Err(format!("parsing time {:?}: extra text: {:?}", self.whole, self.rest));
        }
        let date = NaiveDate::from_ymd_opt(i32::try_from(year).unwrap_or(0), month, day);
        let local = date.and_then(|d| d.and_hms_nano_opt(hour, minute, second, nanos));
        let Some(utc) = local.and_then(|l| l.checked_sub_signed(offset)) else {
            return self.range("day");
        };
        Ok(utc.and_utc())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_become_utc_seconds() {
        assert_eq!(canonical("2026-11-24T05:00:00.9+01:00"), Ok(Some("2026-11-24T04:00:00Z".to_owned())));
        assert_eq!(canonical("2026-11-24T04:00:00Z"), Ok(None));
        assert_eq!(canonical_micro("2026-11-24T04:00:00.123456Z"), Ok(None));
    }

    #[test]
    fn bad_times_are_told_as_go_tells_them() {
        let text = |t: &str| parse_rfc3339(t).expect_err("bad");
        assert_eq!(
            text("yesterday"),
            r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#
        );
        assert_eq!(
            text("2026-11-24"),
            r#"parsing time "2026-11-24" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#
        );
        assert_eq!(
            text("2026-13-24T00:00:00Z"),
            r#"parsing time "2026-13-24T00:00:00Z": month out of range"#
        );
        assert_eq!(text("2026-02-30T00:00:00Z"), r#"parsing time "2026-02-30T00:00:00Z": day out of range"#);
        assert_eq!(text("2026-01-01T00:00:00Zx"), r#"parsing time "2026-01-01T00:00:00Zx": extra text: "x""#);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9TZ:.+é-]{0,40}") {
            let _ = parse_rfc3339(&text);
            let _ = parse_micro_time(&text);
        }
    }
}
