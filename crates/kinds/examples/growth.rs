//! How the work on an object grows with the length of each of its lists and maps: for every one of every kind, the step of
//! a write whose time grows fastest from one length to four times as many.
//!
//! `cargo run --release -p kinds --example growth [KIND [LENGTH]]`
//!
//! A line `Pod spec.containers Distinct validate 16.1 (2.0 → 32.2 ms)` says that the time is 16 times as long for a list
//! four times as long: the work grows with the square. Only what grows more than sevenfold is printed.

#[path = "../tests/growth/objects.rs"]
mod objects;
#[path = "../tests/growth/steps.rs"]
mod steps;

use std::env;

fn main() {
    let kind = env::args().nth(1).filter(|kind| kind != "all");
    let length = env::args().nth(2).and_then(|number| number.parse().ok()).unwrap_or(2_000);
    for resource in kinds::all() {
        if kind.as_ref().is_some_and(|kind| **kind != *resource.kind) {
            continue;
        }
        for place in objects::places(resource) {
            for items in objects::Items::ALL {
                let time = |length| steps::times(resource, &objects::object(resource, &place, length, items));
                let (short, long) = (time(length), time(4 * length));
                for ((step, short), (_, long)) in short.into_iter().zip(long) {
                    let ratio = long / short;
                    if ratio > 7.0 && long > 3.0 {
                        println!(
                            "{} {place} {items:?} {step} {ratio:.1} ({short:.1} → {long:.1} ms)",
                            resource.kind
                        );
                    }
                }
            }
        }
        eprintln!("{resource:?}");
    }
}
