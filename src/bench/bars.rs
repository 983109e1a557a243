//! The chart of a run: how much of its target each row has used up.
//!
//! All targets are drawn alike, whatever they are of: the bar ends at the target's line where it is just met, and is shorter where it is better.

use super::row::Row;
use super::svg::{Anchor, BAD, DIM, GOOD, GRID, INK, Svg};

const WIDTH: f64 = 1040.0;
/// Where bars begin.
const LEFT: f64 = 400.0;
/// Where the bar of a target that is just met ends.
const FULL: f64 = 240.0;
/// The longest bar, in targets; what is longer has an arrow.
const MOST: f64 = 1.5;
const TOP: f64 = 70.0;
const STEP: f64 = 42.0;

/// Draws.
#[must_use]
pub fn chart(rows: &[Row]) -> String {
    let height = TOP + STEP * rows.len() as f64 + 20.0;
    let mut svg = Svg::new(
        WIDTH,
        height,
        "Each row of the benchmark against its target",
    );
    svg.text((20.0, 28.0), Anchor::Start, 17.0, INK, "harmonylite bench");
    let rule = "A bar that ends left of the line has met its target; the thin line is the spread of the rounds.";
    svg.text((20.0, 48.0), Anchor::Start, 12.0, DIM, rule);
    let bottom = height - 14.0;
    for part in 0..=3u8 {
        let x = LEFT + FULL * f64::from(part) * 0.5;
        svg.line((x, TOP - 8.0), (x, bottom), GRID, 1.0);
    }
    for (at, row) in rows.iter().enumerate() {
        bar(&mut svg, row, TOP + STEP * at as f64);
    }
    let x = LEFT + FULL;
    svg.line((x, TOP - 8.0), (x, bottom), INK, 2.0);
    svg.text((x, TOP - 12.0), Anchor::Middle, 12.0, INK, "target");
    svg.end()
}

fn bar(svg: &mut Svg, row: &Row, y: f64) {
    let used = row.used_each();
    let (share, met) = (row.used(), row.met());
    let colour = if met { GOOD } else { BAD };
    let length = |share: f64| FULL * share.clamp(0.0, MOST);
    // The numbers that it was measured with stand below its name.
    let name = if row.detail.is_empty() { 15.0 } else { 9.0 };
    svg.text((LEFT - 10.0, y + name), Anchor::End, 12.5, INK, row.name);
    svg.text((LEFT - 10.0, y + 23.0), Anchor::End, 10.5, DIM, &row.detail);
    // A sliver stays to be seen where next to nothing is used.
    svg.rect(LEFT, y + 3.0, length(share).max(2.0), 16.0, colour);
    if used.0.len() > 1 {
        let (low, high) = (LEFT + length(used.min()), LEFT + length(used.max()));
        let middle = y + 11.0;
        svg.line((low, middle), (high, middle), INK, 1.0);
        for x in [low, high] {
            svg.line((x, middle - 4.0), (x, middle + 4.0), INK, 1.0);
        }
    }
    let x = LEFT + FULL * MOST;
    if share > MOST {
        svg.text(
            (x - 4.0, y + 16.0),
            Anchor::End,
            14.0,
            "#ffffff",
            "\u{2192}",
        );
    }
    let text = format!("{} of {}", row.short(), row.target_text());
    svg.text((x + 10.0, y + 15.0), Anchor::Start, 12.5, colour, &text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::Target;

    #[test]
    fn a_bar_ends_where_its_share_of_the_target_does() {
        let mut row = Row::new("a < b", "MB", None, Target::AtMost(100.0));
        row.ours.push(50.0);
        let svg = chart(&[row]);
        assert!(svg.contains("width=\"120.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains(GOOD), "{svg}");
        let mut missed = Row::new("far", "MB", None, Target::AtMost(1.0));
        missed.ours.push(50.0);
        let svg = chart(&[missed]);
        assert!(svg.contains(BAD) && svg.contains('\u{2192}'), "{svg}");
    }
}
