//! Lists as sets.

use ::cel::common::{types::LIST_TYPE, value::Val};

use super::{Library, give, items};

fn within(all: &[&dyn Val], some: &[&dyn Val]) -> bool {
    some.iter().all(|item| all.iter().any(|other| item.equals(*other)))
}

pub(super) fn add(library: &mut Library) {
    library.global("sets.contains", &[&LIST_TYPE, &LIST_TYPE], |given| {
        give(within(&items(&given, 0)?, &items(&given, 1)?))
    });
    library.global("sets.equivalent", &[&LIST_TYPE, &LIST_TYPE], |given| {
        let (a, b) = (items(&given, 0)?, items(&given, 1)?);
        give(within(&a, &b) && within(&b, &a))
    });
    library.global("sets.intersects", &[&LIST_TYPE, &LIST_TYPE], |given| {
        let (a, b) = (items(&given, 0)?, items(&given, 1)?);
        give(a.iter().any(|item| b.iter().any(|other| item.equals(*other))))
    });
}
