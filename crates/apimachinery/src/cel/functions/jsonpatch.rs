//! What JSON patches need: `jsonpatch.escapeKey`.

use ::cel::common::types::STRING_TYPE;

use super::{Library, give_text, text};

pub(super) fn add(library: &mut Library) {
    // RFC 6901, section 3.
    library.global("jsonpatch.escapeKey", &[&STRING_TYPE], |given| {
        give_text(text(&given, 0)?.replace('~', "~0").replace('/', "~1"))
    });
}
