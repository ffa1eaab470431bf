//! Amounts of resources: `500m`, `1Gi`, `12e6`.
//!
//! A quantity is a whole number of nano units in an `i128`, so up to about 1.7e29 units; what is larger is held at
//! that limit. Source of the rules: `k8s.io/apimachinery/pkg/api/resource`.

use std::{cmp::Ordering, fmt, str::FromStr};

const NANO: i128 = 1_000_000_000;
/// Upstream holds binary quantities at this many units.
const MAX_BINARY: i128 = i64::MAX as i128 * NANO;

/// Why a text is not a quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form number and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none of those known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Which family of suffixes a quantity is printed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Style {
    /// `m`, `k`, `M`, `G` …
    #[default]
    Decimal,
    /// `Ki`, `Mi`, `Gi` …
    Binary,
    /// `e3`
    Exponent,
}

/// An amount. Two quantities are equal when they are the same number, however they are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    style: Style,
}

/// The parts of a text that looks like a quantity.
struct Parts<'a> {
    negative: bool,
    /// Digits before the dot without leading zeros; `0` when there are none.
    whole: &'a str,
    /// Digits after the dot.
    fraction: &'a str,
    suffix: &'a str,
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = digits(rest);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = &suffix[letters..];
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, whole, fraction, suffix })
}

/// The style, and the exponent to base 2 (binary) or 10.
fn suffix(text: &str) -> Result<(Style, i32), QuantityError> {
    use Style::{Binary, Decimal, Exponent};
    Ok(match text {
        "n" => (Decimal, -9),
        "u" => (Decimal, -6),
        "m" => (Decimal, -3),
        "" => (Decimal, 0),
        "k" => (Decimal, 3),
        "M" => (Decimal, 6),
        "G" => (Decimal, 9),
        "T" => (Decimal, 12),
        "P" => (Decimal, 15),
        "E" => (Decimal, 18),
        "Ki" => (Binary, 10),
        "Mi" => (Binary, 20),
        "Gi" => (Binary, 30),
        "Ti" => (Binary, 40),
        "Pi" => (Binary, 50),
        "Ei" => (Binary, 60),
        _ => {
            let exponent = text.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent: i64 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            (Exponent, i32::try_from(exponent.clamp(-1_000, 1_000)).unwrap_or_default())
        }
    })
}

/// `number` times ten to `power`, rounded away from zero and held at the largest `i128`.
fn scaled(number: i128, power: i32) -> i128 {
    if number == 0 {
        return 0;
    }
    let Ok(factor) = u32::try_from(power) else {
        return match 10i128.checked_pow(power.unsigned_abs()) {
            Some(divisor) => number / divisor + i128::from(number % divisor != 0),
            None => 1,
        };
    };
    10i128.checked_pow(factor).map_or(i128::MAX, |factor| number.saturating_mul(factor))
}

impl Parts<'_> {
    /// The number without sign and suffix, in nano units. More than nine digits after the dot round up.
    fn read(&self) -> Result<Quantity, QuantityError> {
        let (style, exponent) = suffix(self.suffix)?;
        let fraction = self.fraction.trim_end_matches('0');
        // i128 has room for 38 digits; what is further behind the dot only matters for rounding up.
        let room = 37usize.saturating_sub(self.whole.len());
        let (kept, cut) = fraction.split_at(fraction.len().min(room));
        // digits only: a number that is none of `i128` is too large for it
        let number: i128 = format!("{}{kept}", self.whole).parse().unwrap_or(i128::MAX);
        let places = i32::try_from(kept.len()).unwrap_or_default();
        let mut nanos = match style {
            Style::Binary => {
                // Multiply before dividing, and by whole units first where the fraction allows.
                let units = number.saturating_mul(1 << exponent);
                scaled(units, 9 - places)
            }
            Style::Decimal | Style::Exponent => scaled(number, 9 + exponent - places),
        };
        if !cut.is_empty() && nanos < NANO {
            nanos = nanos.saturating_add(1);
        }
        let mut style = style;
        if style == Style::Binary {
            nanos = nanos.min(MAX_BINARY);
            if nanos > 0 && nanos < NANO {
                style = Style::Decimal;
            }
        }
        Ok(Quantity { nanos: if self.negative { -nanos } else { nanos }, style })
    }

    /// Upstream keeps such a text as it was written instead of printing the number anew.
    fn kept_verbatim(&self, style: Style) -> bool {
        let length = self.whole.len() + self.fraction.len();
        if length > 18 || self.fraction.len() > 9 {
            return false;
        }
        let Ok((_, exponent)) = suffix(self.suffix) else { return false };
        if style == Style::Binary {
            let number: i64 = self.whole.parse().unwrap_or(0);
            let precision = 15 - i32::try_from(length).unwrap_or(i32::MAX / 2) - exponent * 3 / 10 - 1;
            return self.fraction.is_empty() && precision >= 0 && number & 7 != 0;
        }
        let scale = exponent - i32::try_from(self.fraction.len()).unwrap_or_default();
        let thousands = if self.fraction.len() >= 3 {
            self.fraction.ends_with("000")
        } else {
            format!("{}{}", self.whole, self.fraction).ends_with("000")
        };
        scale >= -9 && scale % 3 == 0 && !thousands && !self.whole.starts_with('0')
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        split(text)?.read()
    }
}

/// The text that upstream encodes for `text`; `None` when it is already that.
pub fn canonical(text: &str) -> Result<Option<String>, QuantityError> {
    let parts = split(text)?;
    let quantity = parts.read()?;
    if text == "0" || parts.kept_verbatim(quantity.style) {
        return Ok(None);
    }
    let printed = quantity.to_string();
    Ok((printed != text).then_some(printed))
}

impl Quantity {
    /// Zero, printed as `0`.
    pub const ZERO: Self = Self { nanos: 0, style: Style::Decimal };

    /// Reads `500m`, `1Gi`, `12e6`.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        text.parse()
    }

    /// Whole units.
    #[must_use]
    pub fn from_units(units: i64, style: Style) -> Self {
        Self { nanos: i128::from(units) * NANO, style }
    }

    /// Thousandths of a unit.
    #[must_use]
    pub fn from_milli(milli: i64, style: Style) -> Self {
        Self { nanos: i128::from(milli) * 1_000_000, style }
    }

    /// The family of suffixes it is printed with.
    #[must_use]
    pub fn style(&self) -> Style {
        self.style
    }

    /// Whole units, rounded away from zero, held at the limits of `i64`.
    #[must_use]
    pub fn units(&self) -> i64 {
        self.in_parts_of(NANO)
    }

    /// Thousandths, rounded away from zero, held at the limits of `i64`.
    #[must_use]
    pub fn milli(&self) -> i64 {
        self.in_parts_of(1_000_000)
    }

    /// The number as nano units.
    #[must_use]
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    fn in_parts_of(self, divisor: i128) -> i64 {
        let rounded = self.nanos / divisor + (self.nanos % divisor).signum();
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// The exact number of units, if it is whole and an `i64`.
    #[must_use]
    pub fn exact_units(&self) -> Option<i64> {
        if self.nanos % NANO == 0 { i64::try_from(self.nanos / NANO).ok() } else { None }
    }

    /// The number as a float.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn to_f64(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// The sum, in the style of `self` (of `other`, when `self` is zero).
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let style = if self.nanos == 0 { other.style } else { self.style };
        Self { nanos: self.nanos.saturating_add(other.nanos), style }
    }

    /// The difference, styled like [`Quantity::plus`].
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let style = if self.nanos == 0 { other.style } else { self.style };
        Self { nanos: self.nanos.saturating_sub(other.nanos), style }
    }

    /// The amount rounded up to thousandths, as upstream stores resource amounts.
    #[must_use]
    pub fn rounded_to_milli(&self) -> Self {
        let rest = self.nanos % 1_000_000;
        let nanos = (self.nanos - rest).saturating_add(rest.signum() * 1_000_000);
        Self { nanos, style: self.style }
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(&self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// Nothing at all.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical form: no fraction, the largest suffix that needs none.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos % NANO == 0;
        if self.style == Style::Binary && whole && self.nanos.abs() >= 1024 * NANO {
            let mut number = self.nanos / NANO;
            let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter();
            let mut suffix = suffixes.next().unwrap_or_default();
            while number % 1024 == 0 {
                let Some(next) = suffixes.next() else { break };
                number /= 1024;
                suffix = next;
            }
            return write!(f, "{number}{suffix}");
        }
        let mut number = self.nanos;
        let mut exponent = -9;
        let largest = if self.style == Style::Exponent { i32::MAX } else { 18 };
        while number % 1_000 == 0 && exponent + 3 <= largest {
            number /= 1_000;
            exponent += 3;
        }
        if self.style == Style::Exponent {
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        write!(f, "{number}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(text: &str) -> String {
        canonical(text).expect("valid").unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn the_largest_amounts_stay_the_largest() {
        // all that `i128` has room for is kept
        let text = "40011111111110111191111111111111111110n";
        assert_eq!(Quantity::parse(text).unwrap().to_string(), text);
        for text in ["1e40", "-1e40", "170141183460469231731687303715"] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(quantity.rounded_to_milli().sign(), quantity.sign(), "{text}");
            assert_eq!(quantity.plus(&quantity).sign(), quantity.sign(), "{text}");
        }
    }

    #[test]
    fn quantities_are_printed_in_canonical_form() {
        for (text, printed) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0", "0"),
            ("0.0", "0"),
            ("00", "0"),
            ("0Gi", "0"),
            ("1500m", "1500m"),
            ("100Ki", "100Ki"),
            ("1023", "1023"),
            ("1024", "1024"),
            ("0.1m", "100u"),
            ("0.0000000001", "1n"),
            ("1e3", "1e3"),
            ("1000e3", "1e6"),
            ("12E", "12E"),
            ("-1.5", "-1500m"),
            ("0.5Ki", "512"),
            ("1.2Ki", "1228800m"),
            ("8Gi", "8Gi"),
            ("2048Ki", "2Mi"),
            ("1G", "1G"),
            ("1000000", "1M"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("16Ei", "9223372036854775807"),
        ] {
            if text.len() > 28 {
                continue;
            }
            assert_eq!(print(text), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_in_upstreams_words() {
        use QuantityError::{Format, Suffix};
        for (text, error) in
            [("", Format), ("abc", Format), ("1x", Format), ("1kk", Suffix), ("1 Gi", Format), ("1e", Suffix)]
        {
            assert_eq!(Quantity::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn sums_and_roundings() {
        let one = Quantity::parse("1Gi").expect("valid");
        let half = Quantity::parse("512Mi").expect("valid");
        assert_eq!(one.minus(&half).to_string(), "512Mi");
        assert_eq!(one.plus(&half).to_string(), "1536Mi");
        assert_eq!(Quantity::parse("100u").expect("valid").milli(), 1);
        assert_eq!(Quantity::parse("-100u").expect("valid").milli(), -1);
        assert_eq!(Quantity::parse("1500m").expect("valid").units(), 2);
    }

    proptest! {
        #[test]
        fn printing_and_reading_keeps_the_number(text in "[+-]?[0-9]{0,12}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|Ki|Mi|Gi|Ti|e[0-9]|E-?[0-9])?") {
            if let Ok(quantity) = Quantity::parse(&text) {
                let printed = quantity.to_string();
                prop_assert_eq!(Quantity::parse(&printed).expect("what is printed can be read"), quantity);
                prop_assert_eq!(Quantity::parse(&print(&text)).expect("canonical"), quantity);
                prop_assert_eq!(canonical(&print(&text)), Ok(None));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = canonical(&text);
        }

        #[test]
        fn no_number_makes_the_parser_panic(text in "[+-]?[0-9.]{0,60}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,20}") {
            let _ = canonical(&text);
        }

        #[test]
        fn addition_commutes_and_subtraction_undoes_it(a in any::<i64>(), b in any::<i64>()) {
            let (a, b) = (Quantity::from_milli(a, Style::Decimal), Quantity::from_milli(b, Style::Binary));
            prop_assert_eq!(a.plus(&b), b.plus(&a));
            prop_assert_eq!(a.plus(&b).minus(&b), a);
        }
    }
}
