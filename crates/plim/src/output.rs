//! How results are printed: a table for people, JSON and YAML for programs.

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;

/// A form of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// For people, with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names only.
    Name,
}

/// The flag `-o` of a command.
#[derive(Args, Clone, Copy, Debug)]
pub struct Output {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Form,
}

impl Output {
    /// Prints `value` as asked for; `names` and `text` (told whether it is to be wide) make what people read.
    pub fn print<T: Serialize>(
        self,
        value: &T,
        names: impl FnOnce(&T) -> Vec<String>,
        text: impl FnOnce(&T, bool) -> String,
    ) -> Result<()> {
        match self.output {
            Form::Json => println!("{}", serde_json::to_string_pretty(value)?),
            Form::Yaml => print!("{}", serde_yaml_ng::to_string(value)?),
            Form::Name => names(value).iter().for_each(|name| println!("{name}")),
            Form::Text => print!("{}", text(value, false)),
            Form::Wide => print!("{}", text(value, true)),
        }
        Ok(())
    }
}

/// Columns that line up, as kubectl prints them.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no row but its headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}   "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Bytes as people read them: `512Ki`, `3.4Mi`, `1.2Gi`.
pub fn bytes(amount: f64) -> String {
    let units = ["B", "Ki", "Mi", "Gi", "Ti"];
    let mut amount = amount;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 || amount >= 100.0 {
        format!("{amount:.0}{}", units[unit])
    } else {
        format!("{amount:.1}{}", units[unit])
    }
}

/// A stretch of time as kubectl prints ages: `42s`, `5m`, `3h`, `12d`.
pub fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7_200 => format!("{}m", s / 60),
        s @ 7_200..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let mut table = Table::new(&["NAME", "READY"]);
        table.row(["web".to_owned(), "1/1".to_owned()]);
        table.row(["catalogue".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME        READY\nweb         1/1\ncatalogue\n");
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(bytes(512.0), "512B");
        assert_eq!(bytes(1.5 * 1024.0 * 1024.0), "1.5Mi");
        assert_eq!(bytes(200.0 * 1024.0), "200Ki");
        assert_eq!(age(119), "119s");
        assert_eq!(age(7_199), "119m");
        assert_eq!(age(200_000), "2d");
    }
}
