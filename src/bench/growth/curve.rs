//! One series: rates at points, and what they say in a sentence.

use serde_json::{Value, json};

use crate::bench::series::{Series, number};

/// One point.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// What grows.
    pub(super) at: u64,
    /// Rows a second, one a round.
    pub(super) values: Series,
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

    pub(super) fn add(&mut self, at: u64, values: Series) {
        self.points.push(Point { at, values });
    }

    /// What the figures say.
    pub(super) fn sentence(&self) -> String {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return format!("{}: nothing was measured.", self.name);
        };
        let (from, to) = (first.values.median(), last.values.median());
        format!(
            "From {} to {} {}: x{:.2} ({} to {} rows/s).",
            count(first.at),
            count(last.at),
            self.x,
            to / from,
            number(from),
            number(to)
        )
    }

    pub(super) fn json(&self) -> Value {
        let points = self.points.iter();
        let points: Vec<Value> = points
            .map(|p| json!({"at": p.at, "rows_per_second": p.values.json()}))
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

    #[test]
    fn the_sentence_is_computed_from_the_ends() {
        let mut curve = Curve::new("tables", "tables.svg", "tables", "");
        curve.add(1, Series(vec![1000.0, 900.0, 1100.0]));
        curve.add(10, Series(vec![5.0]));
        curve.add(1000, Series(vec![900.0]));
        let said = curve.sentence();
        assert_eq!(
            said,
            "From 1 to 1,000 tables: x0.90 (1.0k to 900.0 rows/s)."
        );
        assert_eq!(count(1_234_567), "1,234,567");
    }
}
