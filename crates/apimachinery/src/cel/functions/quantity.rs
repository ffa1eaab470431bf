//! Quantities of resources: `quantity`, `isQuantity` and what a quantity can do.

use std::sync::LazyLock;

use ::cel::{
    common::types::{INT_TYPE, STRING_TYPE, Type},
    objects::Opaque,
};

use super::{Library, failed, give, held, hold, int, text};
use crate::quantity::{Quantity, Style};

const NAME: &str = "kubernetes.Quantity";
static QUANTITY: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type(NAME));

#[derive(Clone, Debug, PartialEq, Eq)]
struct Amount(Quantity);

impl Opaque for Amount {
    fn runtime_type_name(&self) -> &str {
        NAME
    }
}

pub(super) fn add(library: &mut Library) {
    library.global("quantity", &[&STRING_TYPE], |given| match Quantity::parse(text(&given, 0)?) {
        Ok(quantity) => hold(Amount(quantity)),
        Err(error) => failed("quantity", error),
    });
    library.global("isQuantity", &[&STRING_TYPE], |given| give(Quantity::parse(text(&given, 0)?).is_ok()));
    // Upstream declares it as a global function and documents it as a member.
    library.global("sign", &[&QUANTITY], |given| give(i64::from(held::<Amount>(&given, 0)?.0.sign())));
    library.member("sign", &QUANTITY, &[], |given| give(i64::from(held::<Amount>(&given, 0)?.0.sign())));
    library.member("isInteger", &QUANTITY, &[], |given| {
        give(held::<Amount>(&given, 0)?.0.exact_units().is_some())
    });
    library.member("asInteger", &QUANTITY, &[], |given| match held::<Amount>(&given, 0)?.0.exact_units() {
        Some(units) => give(units),
        None => failed("asInteger", "cannot convert value to integer"),
    });
    library.member("asApproximateFloat", &QUANTITY, &[], |given| give(held::<Amount>(&given, 0)?.0.to_f64()));
    library.member("add", &QUANTITY, &[&QUANTITY], |given| {
        hold(Amount(held::<Amount>(&given, 0)?.0.plus(&held::<Amount>(&given, 1)?.0)))
    });
    library.member("add", &QUANTITY, &[&INT_TYPE], |given| {
        let other = Quantity::from_units(int(&given, 1)?, Style::Decimal);
        hold(Amount(held::<Amount>(&given, 0)?.0.plus(&other)))
    });
    library.member("sub", &QUANTITY, &[&QUANTITY], |given| {
        hold(Amount(held::<Amount>(&given, 0)?.0.minus(&held::<Amount>(&given, 1)?.0)))
    });
    library.member("sub", &QUANTITY, &[&INT_TYPE], |given| {
        let other = Quantity::from_units(int(&given, 1)?, Style::Decimal);
        hold(Amount(held::<Amount>(&given, 0)?.0.minus(&other)))
    });
    library.member("isLessThan", &QUANTITY, &[&QUANTITY], |given| {
        give(held::<Amount>(&given, 0)?.0 < held::<Amount>(&given, 1)?.0)
    });
    library.member("isGreaterThan", &QUANTITY, &[&QUANTITY], |given| {
        give(held::<Amount>(&given, 0)?.0 > held::<Amount>(&given, 1)?.0)
    });
    library.member("compareTo", &QUANTITY, &[&QUANTITY], |given| {
        give(held::<Amount>(&given, 0)?.0.cmp(&held::<Amount>(&given, 1)?.0) as i64)
    });
}
