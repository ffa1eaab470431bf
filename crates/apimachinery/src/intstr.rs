//! A value that is a number or a percentage: `maxUnavailable: 25%`.

use serde_json::Value;

/// An `int-or-string`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A text: a percentage or a name.
    Text(String),
}

impl IntOrString {
    /// Reads a JSON value; `None` when it is neither a string nor an `i32`.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            other => other.as_i64().and_then(|n| i32::try_from(n).ok()).map(Self::Int),
        }
    }

    /// The value out of `total`: a number is itself, a percentage its share, rounded up or down.
    ///
    /// # Errors
    /// Upstream's text when it is a string but no percentage.
    pub fn scaled(&self, total: i32, round_up: bool) -> Result<i32, String> {
        let text = match self {
            Self::Int(value) => return Ok(*value),
            Self::Text(text) => text,
        };
        let Some(digits) = text.strip_suffix('%') else {
            return Err("invalid value for IntOrString: invalid type: string is not a percentage".to_owned());
        };
        let percent: i64 = digits.parse().map_err(|_| {
            format!("invalid value for IntOrString: invalid value {text:?}: strconv.Atoi: parsing {digits:?}: invalid syntax")
        })?;
        let product = percent.saturating_mul(i64::from(total));
        let share = if round_up {
            product.div_euclid(100) + i64::from(product.rem_euclid(100) != 0)
        } else {
            product.div_euclid(100)
        };
        Ok(i32::try_from(share).unwrap_or(if share < 0 { i32::MIN } else { i32::MAX }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_rounded_as_asked() {
        let quarter = IntOrString::Text("25%".to_owned());
        assert_eq!(quarter.scaled(10, true), Ok(3));
        assert_eq!(quarter.scaled(10, false), Ok(2));
        assert_eq!(IntOrString::Int(7).scaled(10, true), Ok(7));
        assert!(IntOrString::Text("x".to_owned()).scaled(1, true).is_err());
    }
}
