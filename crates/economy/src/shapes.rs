//! The catalogue of machine shapes.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::{Error, HOURS};

const TABLE: &str = include_str!("../data/shapes.csv");

/// A machine that can be rented.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Shape {
    /// `aws`, `gcp`, …
    pub provider: String,
    /// Where the price holds.
    pub region: String,
    /// The provider's name of it.
    pub name: String,
    /// `amd64`, `arm64`
    pub arch: String,
    /// Virtual CPUs.
    pub vcpu: f64,
    /// GiB of memory.
    pub memory_gib: f64,
    /// US dollars an hour, on demand.
    pub usd_hour: f64,
    /// The day the price was read.
    pub read: String,
    /// Where it was read.
    pub source: String,
}

impl Shape {
    /// US dollars a month.
    #[must_use]
    pub fn month(&self) -> f64 {
        self.usd_hour * HOURS
    }
}

/// What comes with the program.
#[must_use]
pub fn built_in() -> &'static [Shape] {
    static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| read(TABLE, "shapes.csv").unwrap_or_default());
    &SHAPES
}

/// Reads a catalogue of the same columns: the user's own machines and prices.
pub fn read(text: &str, file: &str) -> Result<Vec<Shape>, Error> {
    let mut reader =
        csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut shapes = Vec::new();
    for row in reader.deserialize::<Shape>() {
        let shape = row.map_err(|e| {
            let line = e.position().map_or(0, csv::Position::line);
            Error::Line { file: file.to_owned(), line, why: e.to_string() }
        })?;
        let sane = |x: f64| x.is_finite() && x > 0.0;
        if !(sane(shape.vcpu) && sane(shape.memory_gib) && sane(shape.usd_hour)) {
            let why = format!("{}: vcpu, memory_gib and usd_hour have to be above 0", shape.name);
            return Err(Error::Line { file: file.to_owned(), line: 0, why });
        }
        shapes.push(shape);
    }
    Ok(shapes)
}

/// The price of one vCPU-hour and one GiB-hour, from a machine's price, in the proportion in which clouds price the two
/// (OpenCost: a vCPU costs 7.46 times a GiB).
#[must_use]
pub fn split(usd_hour: f64, vcpu: f64, memory_gib: f64) -> (f64, f64) {
    const CPU_TO_GIB: f64 = 7.46;
    let gib = usd_hour / (vcpu * CPU_TO_GIB + memory_gib);
    (gib * CPU_TO_GIB, gib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_can_be_read_whole() {
        let rows = TABLE.lines().filter(|l| !l.starts_with('#')).count() - 1;
        assert_eq!(built_in().len(), rows);
    }

    #[test]
    fn a_machines_price_is_split_as_opencost_splits_it() {
        let (cpu, gib) = split(0.192, 4.0, 16.0);
        assert!((cpu - 0.0312).abs() < 0.0001 && (gib - 0.00419).abs() < 0.0001);
    }

    #[test]
    fn prices_within_a_family_grow_with_the_size() {
        let of = |name: &str| built_in().iter().find(|s| s.name == name).unwrap();
        let per_cpu = |name: &str| of(name).usd_hour / of(name).vcpu;
        assert!((per_cpu("e2-standard-2") - per_cpu("e2-standard-16")).abs() < 1e-6);
    }

    #[test]
    fn a_price_of_nothing_is_refused() {
        let text = "provider,region,name,arch,vcpu,memory_gib,usd_hour,read,source\nx,y,z,amd64,2,4,0,2026-01-01,me\n";
        assert!(read(text, "mine.csv").unwrap_err().to_string().contains("above 0"));
    }
}
