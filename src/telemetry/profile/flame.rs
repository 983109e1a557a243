//! A flame graph as an SVG: who calls whom from the bottom up, as wide as the time that it took. A browser shows the full name and the share where the pointer is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::stacks::Stacks;

/// Pixels.
const WIDTH: f64 = 1200.0;
const ROW: f64 = 17.0;
/// Narrower than this is not drawn.
const LEAST: f64 = 0.3;
/// Of a letter, in the font of the labels.
const LETTER: f64 = 6.6;

/// A function called from where it stands, with all that it calls.
#[derive(Default)]
struct Node<'a> {
    count: u64,
    calls: BTreeMap<&'a str, Node<'a>>,
}

impl Node<'_> {
    fn depth(&self) -> usize {
        1 + self.calls.values().map(Node::depth).max().unwrap_or(0)
    }
}

impl Stacks {
    /// The picture.
    #[must_use]
    pub fn flame_graph(&self) -> String {
        let mut root = Node::default();
        for (stack, count) in &self.counts {
            let mut node = &mut root;
            node.count += count;
            let names = stack.frames.iter().rev().map(|frame| frame.name.as_str());
            for name in std::iter::once(stack.thread.as_str()).chain(names) {
                node = node.calls.entry(name).or_default();
                node.count += count;
            }
        }
        let height = (root.depth() as f64 + 1.0) * ROW;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let name = format!(
            "harmonylite, {} samples in {} s",
            root.count,
            self.lasted.as_secs()
        );
        let total = root.count.max(1) as f64;
        draw(&mut svg, &name, &root, (0.0, height - ROW), total);
        svg.push_str("</svg>\n");
        svg
    }
}

fn draw(svg: &mut String, name: &str, node: &Node<'_>, (x, y): (f64, f64), total: f64) {
    let width = node.count as f64 / total * WIDTH;
    if width < LEAST {
        return;
    }
    let share = node.count as f64 / total * 100.0;
    // A colour of its own for each function, the same in every picture.
    let hue = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) % 50;
    let letters = ((width - 4.0) / LETTER) as usize;
    let label: String = match letters {
        0..=2 => String::new(),
        _ if name.chars().count() > letters => {
            name.chars().take(letters - 1).chain(['\u{2026}']).collect()
        }
        _ => name.to_owned(),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<g><title>{} ({share:.1} %)</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"hsl({hue},80%,65%)\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
        escaped(name),
        ROW - 1.0,
        x + 2.0,
        y + ROW - 5.0,
        escaped(&label)
    );
    let mut at = x;
    for (name, call) in &node.calls {
        draw(svg, name, call, (at, y - ROW), total);
        at += call.count as f64 / total * WIDTH;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
