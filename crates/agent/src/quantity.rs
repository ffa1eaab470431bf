//! Numbers behind [`Quantity`] strings, as a node counts them.
//!
//! CPU is counted in thousandths of a core, everything else in whole units; both round away from zero, as the API does.
//! A quantity that cannot be read counts as absent: the API server has already refused such strings.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// Billionths of a unit, or `None` for what is not a quantity or lies outside ±2^63 units.
fn nanos(text: &str) -> Option<i128> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (negative, digits) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let decimal = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !decimal(whole) || !decimal(fraction) || digits.len() > 36
    {
        return None;
    }
    // multiplier = 10^exponent or 2^shift, applied to the digits without their point
    let (exponent, shift) = match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => (suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok().filter(|e| e.abs() <= 30)?, 0),
    };
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let power = 9 + exponent - i32::try_from(fraction.len()).ok()?;
    let scaled = mantissa.checked_mul(1i128 << shift)?;
    let value = if power >= 0 {
        scaled.checked_mul(10i128.checked_pow(power.unsigned_abs())?)?
    } else {
        let by = 10i128.checked_pow(power.unsigned_abs())?;
        scaled / by + i128::from(scaled % by != 0)
    };
    Some(if negative { -value } else { value })
}

fn scaled(quantity: &Quantity, unit: i128) -> Option<i64> {
    let nanos = nanos(&quantity.0)?;
    let up = nanos / unit + i128::from(nanos > 0 && nanos % unit != 0)
        - i128::from(nanos < 0 && nanos % unit != 0);
    i64::try_from(up).ok()
}

/// Whole units, rounded away from zero: bytes, pods, devices.
pub fn units(quantity: &Quantity) -> Option<i64> {
    scaled(quantity, NANO)
}

/// Thousandths, rounded away from zero: milli-CPU.
pub fn milli(quantity: &Quantity) -> Option<i64> {
    scaled(quantity, NANO / 1000)
}

/// The number a node reckons with for the resource `name`: milli-CPU for `cpu`, units for the rest.
pub fn amount(name: &str, quantity: &Quantity) -> Option<i64> {
    if name == "cpu" { milli(quantity) } else { units(quantity) }
}

/// The amount of `name` in a resource list, `None` when it is not there.
pub fn of(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<i64> {
    amount(name, list?.get(name)?)
}

/// `amount` of resource `name` written as a quantity.
pub fn to_quantity(name: &str, amount: i64) -> Quantity {
    if name == "cpu" && amount % 1000 != 0 {
        return Quantity(format!("{amount}m"));
    }
    if name == "cpu" {
        return Quantity((amount / 1000).to_string());
    }
    if matches!(name, "memory" | "ephemeral-storage") && amount % 1024 == 0 && amount != 0 {
        return Quantity(format!("{}Ki", amount / 1024));
    }
    Quantity(amount.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_every_notation() {
        let q = |s: &str| Quantity(s.to_owned());
        for (text, units_, milli_) in [
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1.5", 2, 1500),
            ("2Gi", 2 << 30, (2 << 30) * 1000),
            ("1e3", 1000, 1_000_000),
            ("0.1Ki", 103, 102_400),
            ("1u", 1, 1),
            ("-1500m", -2, -1500),
        ] {
            assert_eq!(units(&q(text)), Some(units_), "{text}");
            assert_eq!(milli(&q(text)), Some(milli_), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_absent_and_never_a_panic() {
        for text in [
            "",
            "-",
            ".",
            "x",
            "1Xi",
            "1e999",
            "99999999999999999999999999999999999999999E",
            "1.2.3",
            "1-2",
            "é",
        ] {
            assert_eq!(units(&Quantity(text.to_owned())), None, "{text}");
        }
    }
}
