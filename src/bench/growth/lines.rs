//! A series as a line chart. Its points stand at equal distances, with what grows written below: most series grow by factors.

use super::curve::{Curve, Point, count};
use crate::bench::series::{Series, number};
use crate::bench::svg::{Anchor, DIM, GRID, INK, LINE, Svg};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 384.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 100.0;
const BOTTOM: f64 = 60.0;

/// Draws.
pub(super) fn chart(curve: &Curve) -> String {
    let title = format!("End-to-end rate against {}", curve.x);
    let mut svg = Svg::new(WIDTH, HEIGHT, &title);
    svg.text((20.0, 26.0), Anchor::Start, 16.0, INK, &title);
    for (line, text) in curve.sentence().split("; ").enumerate() {
        let y = 45.0 + 16.0 * line as f64;
        svg.text((20.0, y), Anchor::Start, 12.0, DIM, text);
    }
    let rates = curve
        .points
        .iter()
        .flat_map(|p| [&p.rates.ours, &p.rates.plain]);
    let highest = rates.filter(|r| !r.is_empty()).map(Series::max);
    let step = step(highest.fold(0.0, f64::max));
    let most = step * f64::from(STEPS);
    let floor = HEIGHT - BOTTOM;
    let y = |value: f64| floor - (floor - TOP) * (value / most).clamp(0.0, 1.0);
    for tick in 0..=STEPS {
        let value = step * f64::from(tick);
        let at = y(value);
        svg.line((LEFT, at), (WIDTH - RIGHT, at), GRID, 1.0);
        let label = if tick == 0 {
            "0".to_owned()
        } else {
            number(value)
        };
        svg.text((LEFT - 8.0, at + 4.0), Anchor::End, 12.0, DIM, &label);
    }
    svg.line((LEFT, TOP), (LEFT, floor), INK, 1.0);
    svg.line((LEFT, floor), (WIDTH - RIGHT, floor), INK, 1.0);
    svg.text((LEFT - 8.0, TOP - 14.0), Anchor::End, 12.0, DIM, "rows/s");
    let below = (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, HEIGHT - 14.0);
    svg.text(below, Anchor::Middle, 13.0, INK, curve.x);
    let wide = (WIDTH - LEFT - RIGHT) / curve.points.len().max(1) as f64;
    let x = |at: usize| LEFT + wide * (at as f64 + 0.5);
    for (at, point) in curve.points.iter().enumerate() {
        let (x, label) = (x(at), count(point.at));
        svg.text((x, floor + 18.0), Anchor::Middle, 12.0, INK, &label);
        spread(&mut svg, point, x, y);
    }
    let of = |series: fn(&Point) -> &Series| -> Vec<(f64, f64)> {
        let points = curve.points.iter().enumerate();
        points
            .filter(|(_, p)| !series(p).is_empty())
            .map(|(at, p)| (x(at), y(series(p).median())))
            .collect()
    };
    let plain = of(|p| &p.rates.plain);
    if let Some((x, y)) = plain.first() {
        svg.points(&plain, DIM);
        let text = (x + 8.0, y - 6.0);
        svg.text(text, Anchor::Start, 12.0, DIM, "plain SQLite");
    }
    let ours = of(|p| &p.rates.ours);
    svg.points(&ours, LINE);
    for ((x, y), point) in ours.iter().zip(&curve.points) {
        let text = number(point.rates.ours.median());
        svg.text((*x, y - 10.0), Anchor::Middle, 12.0, INK, &text);
    }
    svg.end()
}

fn spread(svg: &mut Svg, point: &Point, x: f64, y: impl Fn(f64) -> f64) {
    let ours = &point.rates.ours;
    let (low, high) = (y(ours.min()), y(ours.max()));
    svg.line((x, low), (x, high), DIM, 1.0);
    for end in [low, high] {
        svg.line((x - 5.0, end), (x + 5.0, end), DIM, 1.0);
    }
}

/// How many steps the axis has.
const STEPS: u32 = 4;

/// A round number of which `STEPS` reach the highest value.
fn step(highest: f64) -> f64 {
    let least = (highest / f64::from(STEPS)).max(1e-9);
    let scale = 10f64.powf(least.log10().floor());
    let rounds = [1.0, 2.0, 2.5, 5.0, 10.0];
    let fits = rounds.into_iter().find(|r| r * scale >= least);
    fits.unwrap_or(10.0) * scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::growth::points::Rates;

    #[test]
    fn the_axis_is_round_and_reaches_the_highest() {
        for (highest, expected) in [(4.0, 1.0), (90_000.0, 25_000.0), (7.9, 2.0), (41.0, 20.0)] {
            let found = step(highest);
            assert!((found - expected).abs() < 1e-9, "{highest}: {found}");
        }
    }

    #[test]
    fn every_point_is_there() {
        let mut curve = Curve::new("tables", "tables.svg", "tables", "");
        let rates = |ours: &[f64], plain: &[f64]| Rates {
            ours: Series(ours.to_vec()),
            plain: Series(plain.to_vec()),
        };
        curve.add(1, rates(&[1000.0, 800.0], &[]));
        curve.add(1000, rates(&[500.0], &[2000.0]));
        let svg = chart(&curve);
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        assert!(svg.contains(">1,000<") && svg.contains(">rows/s<"), "{svg}");
    }
}
