//! A page in Prometheus' text form (version 0.0.4).

use std::fmt::Write as _;

/// Families of samples, one after the other.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a family. `kind` is `counter` or `gauge`.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) -> Family<'_> {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { out: &mut self.0, name: name.to_owned() }
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

/// Samples of one name.
pub(super) struct Family<'a> {
    out: &'a mut String,
    name: String,
}

impl Family<'_> {
    /// A sample, if there is a value. `at`: nanoseconds since 1970.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: Option<f64>, at: Option<i64>) {
        let Some(value) = value else { return };
        self.out.push_str(&self.name);
        for (i, (name, text)) in labels.iter().enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.out, "{before}{name}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = write!(self.out, " {value}");
        if let Some(at) = at {
            let _ = write!(self.out, " {}", at / 1_000_000);
        }
        self.out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_in_prometheus_text_form() {
        let mut page = Page::default();
        let mut family = page.family("x_total", "counter", "Xs.");
        family.sample(&[("a", "b\"\\\n"), ("c", "")], Some(1.5), Some(1_700_000_000_123_456_789));
        family.sample(&[], Some(3e10), None);
        family.sample(&[], None, None);
        let expected = "# HELP x_total Xs.\n# TYPE x_total counter\n\
                        x_total{a=\"b\\\"\\\\\\n\",c=\"\"} 1.5 1700000000123\nx_total 30000000000\n";
        assert_eq!(page.text(), expected);
    }
}
