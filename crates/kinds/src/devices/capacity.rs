//! How a device's capacity may be cut up among its users.

use apimachinery::{FieldPath, quantity::Quantity};
use serde_json::Value;

use super::parts::unique;
use crate::{
    checks::{Checks, quantity},
    object::{at, has, list},
};

/// How many sizes a policy may list.
const MOST_VALUES: usize = 10;

/// One entry of `capacity`. `shared`: the device may have several users at once.
pub fn check(checks: &mut Checks, capacity: &Value, shared: bool, path: &FieldPath) {
    let (policy, path) = (at(capacity, "requestPolicy"), path.child("requestPolicy"));
    if policy.is_null() {
        return;
    }
    if !shared {
        return checks.forbidden(&path, "allowMultipleAllocations must be true");
    }
    let all = quantity(at(capacity, "value")).unwrap_or(Quantity::ZERO);
    let (values, range) = (list(policy, "validValues"), at(policy, "validRange"));
    let default = quantity(at(policy, "default"));
    match (values.is_empty(), range.is_null(), default) {
        (true, true, _) => {}
        (false, false, _) => {
            let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at \
                          the same time";
            checks.forbidden(&path, detail);
        }
        (false, true, None) => {
            checks.required(&path.child("default"), "required when validValues is defined");
        }
        (true, false, None) => {
            checks.required(&path.child("default"), "required when validRange is defined");
        }
        (false, true, Some(default)) => {
            check_values(checks, values, default, all, &path.child("validValues"));
        }
        (true, false, Some(default)) => {
            check_range(checks, range, default, all, &path.child("validRange"));
        }
    }
}

/// Sizes in ascending order, the default among them.
fn check_values(checks: &mut Checks, values: &[Value], default: Quantity, all: Quantity, path: &FieldPath) {
    let sizes: Vec<Quantity> = values.iter().filter_map(quantity).collect();
    for (index, pair) in sizes.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        let detail = "values must be sorted in ascending order";
        checks.invalid(&path.index(index + 1), pair[1].to_string(), detail);
    }
    if checks.too_many(path, values.len(), MOST_VALUES) {
        // Upstream has not looked for the default then.
        return checks.invalid(
            path,
            default.to_string(),
            "default value is not valid according to the requestPolicy",
        );
    }
    for (index, size) in sizes.iter().enumerate().filter(|(_, size)| **size > all) {
        let detail = format!("option is larger than capacity value: {all}");
        checks.invalid(&path.index(index), size.to_string(), &detail);
    }
    unique(checks, values, path, |value| quantity(value).map(|size| size.units()));
    if !sizes.contains(&default) {
        checks.invalid(
            path,
            default.to_string(),
            "default value is not valid according to the requestPolicy",
        );
    }
}

/// Sizes from a least one in steps.
fn check_range(checks: &mut Checks, range: &Value, default: Quantity, all: Quantity, path: &FieldPath) {
    let Some(least) = quantity(at(range, "min")) else {
        return checks.required(&path.child("min"), "required when validRange is defined");
    };
    let most = quantity(at(range, "max"));
    let mut wrong = |is: bool, field: &str, value: Quantity, detail: String| {
        if is {
            checks.invalid(&path.child(field), value.to_string(), &detail);
        }
    };
    wrong(least > all, "min", least, format!("min is larger than capacity value: {all}"));
    wrong(default < least, "default", default, format!("default is less than min: {least}"));
    if let Some(most) = most {
        wrong(least > most, "max", least, format!("min is larger than max: {most}"));
        wrong(most > all, "max", most, format!("max is larger than capacity value: {all}"));
        wrong(default > most, "default", default, format!("default is more than max: {most}"));
    }
    let Some(step) = quantity(at(range, "step")).filter(|_| has(range, "step")) else { return };
    if step.sign() <= 0 {
        return wrong(true, "step", step, "must be greater than zero".to_owned());
    }
    let once = least.plus(&step);
    wrong(once > all, "step", step, format!("one step {once} is larger than capacity value: {all}"));
    let largest = Quantity::from_units(i64::MAX, step.style());
    let mut counted = true;
    for (field, value) in
        [("default", Some(default)), ("min", Some(least)), ("max", most), ("step", Some(step))]
    {
        let Some(value) = value else { continue };
        counted &= value.sign() >= 0 && value <= largest;
        wrong(value.sign() < 0, field, value, "must be greater than or equal to 0".to_owned());
        let detail = "must not be larger than 9223372036854775807".to_owned();
        wrong(value > largest, field, value, detail);
    }
    let whole = step.units();
    if !counted || whole <= 0 {
        return;
    }
    for value in [Some(default), most].into_iter().flatten() {
        let detail = format!("value is not a multiple of a given step ({step}) from ({least})");
        wrong((value.units() - least.units()) % whole != 0, "step", value, detail);
    }
}
