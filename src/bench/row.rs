//! One row: what was measured, what it is held against, and how it is judged.

use serde_json::{Value, json};

use super::series::{Series, number};

/// How a row is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Baseline over ours, both rates, is to be at most this.
    Slowdown(f64),
    /// Ours is to be at least this share of the baseline.
    Share(f64),
    /// Ours is to be at most this many times the baseline, where that is given, and at most this value, where that is.
    Times(Option<f64>, Option<f64>),
    /// Ours is to be at most this value; there is no baseline.
    AtMost(f64),
}

/// What a row is held against.
#[derive(Debug)]
pub struct Baseline {
    /// What it did.
    pub is: &'static str,
    /// Its values, one a round.
    pub values: Series,
}

impl Baseline {
    /// Without values yet.
    #[must_use]
    pub const fn new(is: &'static str) -> Self {
        let values = Series(Vec::new());
        Self { is, values }
    }
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// Which.
    pub name: &'static str,
    /// With which numbers.
    pub detail: String,
    /// Of all its values.
    pub unit: &'static str,
    /// Ours, one a round.
    pub ours: Series,
    /// What it is judged by.
    pub baseline: Option<Baseline>,
    /// What stands against the target: less than the row's work, which costs that much already. Only shown.
    pub floors: Vec<Baseline>,
    /// How it is judged.
    pub target: Target,
    /// More that was seen.
    pub notes: Vec<String>,
}

impl Row {
    /// An empty row.
    #[must_use]
    pub fn new(
        name: &'static str,
        unit: &'static str,
        baseline: Option<&'static str>,
        target: Target,
    ) -> Self {
        Self {
            name,
            detail: String::new(),
            unit,
            ours: Series::default(),
            baseline: baseline.map(Baseline::new),
            floors: Vec::new(),
            target,
            notes: Vec::new(),
        }
    }

    /// The same row, with the numbers that it was measured with.
    #[must_use]
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds a round.
    pub fn round(&mut self, baseline: f64, ours: f64) {
        if let Some(held) = &mut self.baseline {
            held.values.push(baseline);
        }
        self.ours.push(ours);
    }

    /// Name and numbers.
    #[must_use]
    pub fn title(&self) -> String {
        match self.detail.as_str() {
            "" => self.name.to_owned(),
            detail => format!("{} ({detail})", self.name),
        }
    }

    /// One ratio a round: neighbours in time are compared.
    #[must_use]
    pub fn ratios(&self, to: Option<&Baseline>) -> Series {
        to.map_or_else(Series::default, |to| self.against(to, &self.ours))
    }

    /// What a floor costs against the baseline, as the row's own ratio is taken.
    #[must_use]
    pub fn cost_of(&self, floor: &Baseline) -> Series {
        let baseline = self.baseline.as_ref();
        baseline.map_or_else(Series::default, |b| self.against(b, &floor.values))
    }

    fn against(&self, to: &Baseline, values: &Series) -> Series {
        let pairs = to.values.0.iter().zip(&values.0);
        Series(
            pairs
                .map(|(base, value)| match self.target {
                    Target::Slowdown(_) => base / value,
                    _ => value / base,
                })
                .collect(),
        )
    }

    /// A ratio as people write it.
    #[must_use]
    pub fn ratio_text(&self, ratio: f64) -> String {
        match self.target {
            Target::Share(_) => format!("{:.0}%", ratio * 100.0),
            _ => format!("x{ratio:.2}"),
        }
    }

    /// How much of the target is used up by a ratio and a value: 1 is just met, below is better.
    fn used_by(&self, ratio: f64, ours: f64) -> f64 {
        match self.target {
            Target::Slowdown(most) => ratio / most,
            Target::Share(least) => least / ratio,
            Target::AtMost(most) => ours / most,
            Target::Times(times, value) => {
                let times = times.map_or(0.0, |t| ratio / t);
                times.max(value.map_or(0.0, |v| ours / v))
            }
        }
    }

    /// How much of the target is used up, by the medians.
    #[must_use]
    pub fn used(&self) -> f64 {
        let ratio = self.ratios(self.baseline.as_ref()).median();
        self.used_by(ratio, self.ours.median())
    }

    /// The same of each round.
    #[must_use]
    pub fn used_each(&self) -> Series {
        let ratios = self.ratios(self.baseline.as_ref());
        let rounds = self.ours.0.iter().enumerate();
        let of = |at: usize| ratios.0.get(at).copied().unwrap_or(f64::NAN);
        Series(
            rounds
                .map(|(at, ours)| self.used_by(of(at), *ours))
                .collect(),
        )
    }

    /// Whether the target is met, by the medians.
    #[must_use]
    pub fn met(&self) -> bool {
        self.used() <= 1.0
    }

    /// The target as people write it.
    #[must_use]
    pub fn target_text(&self) -> String {
        match self.target {
            Target::Slowdown(most) | Target::Times(Some(most), None) => format!("\u{2264} x{most}"),
            Target::Share(least) => format!("\u{2265} {:.0}%", least * 100.0),
            Target::Times(Some(most), Some(value)) => {
                format!("\u{2264} x{most}, \u{2264} {value} {}", self.unit)
            }
            Target::Times(None, Some(value)) | Target::AtMost(value) => {
                format!("\u{2264} {value} {}", self.unit)
            }
            Target::Times(None, None) => String::new(),
        }
    }

    /// Median and spread, with the ratio where there is one, else the value.
    #[must_use]
    pub fn short(&self) -> String {
        let ratios = self.ratios(self.baseline.as_ref());
        let value = format!("{} {}", number(self.ours.median()), self.unit);
        match (self.target, ratios.is_empty()) {
            (Target::Times(None, _) | Target::AtMost(_), _) | (_, true) => value,
            (Target::Times(_, Some(_)), false) => {
                format!("{}, {value}", self.ratio_text(ratios.median()))
            }
            _ => self.ratio_text(ratios.median()),
        }
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut row = json!({
            "name": self.name,
            "detail": self.detail,
            "unit": self.unit,
            "ours": self.ours.json(),
            "target": self.target_text(),
            "met": self.met(),
            "notes": self.notes,
        });
        let Some(fields) = row.as_object_mut() else {
            return row;
        };
        if let Some(baseline) = &self.baseline {
            fields.insert("baseline_is".to_owned(), json!(baseline.is));
            fields.insert("baseline".to_owned(), baseline.values.json());
            fields.insert("ratio".to_owned(), self.ratios(Some(baseline)).json());
        }
        if !self.floors.is_empty() {
            let floors = self.floors.iter().map(|floor| {
                json!({
                    "is": floor.is,
                    "values": floor.values.json(),
                    "cost": self.cost_of(floor).json(),
                    "ratio": self.ratios(Some(floor)).json(),
                })
            });
            fields.insert("floors".to_owned(), floors.collect());
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: Target, baseline: f64, ours: f64) -> Row {
        let mut row = Row::new("a row", "ms", Some("something else"), target);
        row.round(baseline, ours);
        row
    }

    #[test]
    fn each_target_is_met_up_to_its_bound_and_no_further() {
        for (target, baseline, good, bad) in [
            (Target::Slowdown(2.0), 100.0, 51.0, 49.0),
            (Target::Share(0.25), 100.0, 26.0, 24.0),
            (Target::Times(Some(4.0), None), 1.0, 3.9, 4.1),
            (Target::Times(Some(4.0), Some(1.0)), 0.5, 0.9, 1.1),
            (Target::Times(Some(4.0), Some(1.0)), 0.2, 0.7, 0.9),
            (Target::Times(None, Some(10.0)), 0.1, 9.0, 11.0),
            (Target::AtMost(0.5), 0.0, 0.4, 0.6),
        ] {
            let (good, bad) = (row(target, baseline, good), row(target, baseline, bad));
            assert!(good.met() && good.used() < 1.0, "{good:?}");
            assert!(!bad.met() && bad.used() > 1.0, "{bad:?}");
        }
    }

    #[test]
    fn json_has_all_that_was_measured() {
        let mut row = row(Target::Slowdown(2.0), 100.0, 80.0).with("five of them");
        let mut floor = Baseline::new("nothing at all");
        floor.values.push(90.0);
        row.floors.push(floor);
        let json = row.json();
        assert_eq!(json["ratio"]["median"], 1.25);
        assert_eq!(json["floors"][0]["ratio"]["median"], 1.125);
        assert_eq!(json["floors"][0]["cost"]["median"], 1.111);
        assert_eq!(
            (&json["met"], &json["target"]),
            (&true.into(), &"\u{2264} x2".into())
        );
        assert_eq!(row.title(), "a row (five of them)");
    }
}
