//! One series: rates at points, and what they say in a sentence.

use serde_json::{Value, json};

use super::points::Rates;
use crate::bench::series::number;

/// One point.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// What grows.
    pub(super) at: u64,
    /// Rows a second.
    pub(super) rates: Rates,
}

impl Point {
    /// What is left of plain SQLite's rate, where that was measured.
    pub(super) fn share(&self) -> Option<f64> {
        let Rates { ours, plain } = &self.rates;
        (!plain.is_empty()).then(|| ours.median() / plain.median())
    }
}

/// One series.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) file: &'static str,
    pub(super) x: &'static str,
    pub(super) how: &'static str,
    pub(super) points: Vec<Point>,
}

impl Curve {
    pub(super) const fn new(
        name: &'static str,
        file: &'static str,
        x: &'static str,
        how: &'static str,
    ) -> Self {
        Self {
            name,
            file,
            x,
            how,
            points: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, at: u64, rates: Rates) {
        self.points.push(Point { at, rates });
    }

    /// What the figures say.
    pub(super) fn sentence(&self) -> String {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return format!("{}: nothing was measured.", self.name);
        };
        let (from, to) = (first.rates.ours.median(), last.rates.ours.median());
        let mut sentence = format!(
            "From {} to {} {}: x{:.2} ({} to {} rows/s)",
            count(first.at),
            count(last.at),
            self.x,
            to / from,
            number(from),
            number(to)
        );
        if let (Some(from), Some(to)) = (first.share(), last.share()) {
            let plain = last.rates.plain.median() / first.rates.plain.median();
            sentence.push_str(&format!(
                "; plain SQLite x{plain:.2}, of which it is {:.0}% and {:.0}%",
                from * 100.0,
                to * 100.0
            ));
        }
        sentence.push('.');
        sentence
    }

    pub(super) fn json(&self) -> Value {
        let points = self.points.iter();
        let points: Vec<Value> = points
            .map(|p| {
                let mut point = json!({"at": p.at, "rows_per_second": p.rates.ours.json()});
                if let (Some(fields), Some(_)) = (point.as_object_mut(), p.share()) {
                    fields.insert("plain_rows_per_second".to_owned(), p.rates.plain.json());
                }
                point
            })
            .collect();
        json!({
            "name": self.name, "x": self.x, "how": self.how, "points": points, "says": self.sentence(),
        })
    }
}

/// With a comma at each thousand.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::series::Series;

    fn rates(ours: &[f64], plain: &[f64]) -> Rates {
        Rates {
            ours: Series(ours.to_vec()),
            plain: Series(plain.to_vec()),
        }
    }

    #[test]
    fn the_sentence_is_computed_from_the_ends() {
        let mut curve = Curve::new("tables", "tables.svg", "tables", "");
        curve.add(1, rates(&[1000.0, 900.0, 1100.0], &[]));
        curve.add(10, rates(&[5.0], &[]));
        curve.add(1000, rates(&[900.0], &[]));
        let said = curve.sentence();
        assert_eq!(
            said,
            "From 1 to 1,000 tables: x0.90 (1.0k to 900.0 rows/s)."
        );
        assert_eq!(count(1_234_567), "1,234,567");
        let mut curve = Curve::new("width", "width.svg", "bytes a row", "");
        curve.add(10, rates(&[500.0], &[1000.0]));
        curve.add(100, rates(&[100.0], &[250.0]));
        assert_eq!(
            curve.sentence(),
            "From 10 to 100 bytes a row: x0.20 (500.0 to 100.0 rows/s); plain SQLite x0.25, of which it is 50% and 40%."
        );
    }
}
