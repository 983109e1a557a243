//! Numbers of several rounds.

/// Measured values, in the order in which they came.
#[derive(Debug, Default, Clone)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// Adds one.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The value below which this share (0 to 1) of them lies.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted
            .get((share * last as f64).round() as usize)
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// The middle one, or what lies between the two in the middle.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match (sorted.len() % 2, sorted.get(middle)) {
            (1, Some(one)) => *one,
            (0, Some(upper)) => {
                let lower = middle.checked_sub(1).and_then(|at| sorted.get(at));
                f64::midpoint(*lower.unwrap_or(upper), *upper)
            }
            _ => f64::NAN,
        }
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.quantile(1.0)
    }
}

impl Series {
    /// Whether nothing was measured.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As JSON: median, spread and every round.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "median": rounded(self.median()),
            "min": rounded(self.min()),
            "max": rounded(self.max()),
            "rounds": self.0.iter().map(|v| rounded(*v)).collect::<Vec<_>>(),
        })
    }
}

/// Four significant figures: what is behind them is noise.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// Three significant figures, thousands as k.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2}M", value / 1e6),
        v if v >= 1e4 => format!("{:.0}k", value / 1e3),
        v if v >= 1e3 => format!("{:.1}k", value / 1e3),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        let series = Series(vec![3.0, 1.0, 2.0]);
        assert_eq!(
            (series.median(), series.min(), series.max()),
            (2.0, 1.0, 3.0)
        );
        assert_eq!(Series(vec![4.0, 1.0, 2.0, 8.0]).median(), 3.0);
        assert!(Series::default().median().is_nan());
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(rounded(1234.567), 1235.0);
        assert_eq!(rounded(0.012_345_6), 0.012_35);
        assert_eq!(rounded(0.0), 0.0);
        assert_eq!(number(12_345.0), "12k");
        assert_eq!(number(0.123), "0.12");
        assert_eq!(number(2_500_000.0), "2.50M");
    }
}
