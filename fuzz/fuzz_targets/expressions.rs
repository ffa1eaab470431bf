//! CEL: compiled, checked and run within its budget. Input: expression NUL the object it sees.
#![no_main]

use std::{sync::Arc, time::Instant};

use apimachinery::cel::{self, Program, Scope, Ty, admission};

/// A run within the budget of one call may take so long, whatever the machine: far more than it ever needs.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(10);

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [source, object] = fuzz::parts(input);
    let Ok(source) = std::str::from_utf8(source) else { return };
    let object = fuzz::json(object).unwrap_or_default();
    let ty = match fuzz::kind_of(&object) {
        Some(kind) => Ty::of_kind(&Arc::clone(&kind.schema), &kind.kind),
        None => Ty::map(Ty::Plain("string")),
    };
    let names = admission::Names { params: true, authorizer: true, patches: true };
    let declared = admission::declared(names, ty, Ty::map(Ty::Plain("string"))).with("self", Ty::Plain("string"));
    let _ = admission::compile(source, &declared, admission::Wanted::Anything);
    let Ok(program) = Program::compile(source) else { return };
    let mut scope = Scope::new();
    scope.json("object", Some(&object));
    scope.json("oldObject", None);
    scope.json("self", Some(&object));
    scope.json("params", Some(&object));
    let (begun, mut budget) = (Instant::now(), 1_000_000);
    if let Ok(value) = program.run(&scope, &mut budget) {
        let _ = cel::to_json(&value);
        let _ = (cel::configuration(&value), cel::operations(&value));
    }
    assert!(budget <= 1_000_000 && begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
});
