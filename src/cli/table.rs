//! Tables for people: as wide as what is in them, at most 80 columns; what is longer is cut with an ellipsis.
//!
//! Invariant: nothing that came from a database or from another node reaches the terminal as a control character.

/// Text of several lines for a terminal: each as `escaped` does it.
#[must_use]
pub fn printable(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(escaped).collect();
    lines.join("\n")
}

/// The width that every terminal has.
pub(super) const WIDTH: usize = 80;
/// Between two columns.
const GAP: usize = 2;
/// A column is not cut below this.
const LEAST: usize = 6;

/// Text for a terminal: control characters and those that turn the direction of writing are spelled out.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A time of the journals, to the second.
pub(super) fn moment(rfc3339: &str) -> String {
    rfc3339
        .chars()
        .take(19)
        .map(|c| if c == 'T' { ' ' } else { c })
        .collect()
}

/// A number of things.
pub(super) fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Text of at most so many characters.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}\u{2026}")
}

/// Lines with a head. Where they are too long, the widest columns are cut, but for the first `whole` ones: numbers and times are of no use in part.
pub(super) fn render(head: &[&str], rows: &[Vec<String>], whole: usize) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| escaped(cell)).collect())
        .collect();
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > WIDTH {
        let Some(widest) = widths.iter_mut().skip(whole).filter(|w| **w > LEAST).max() else {
            break;
        };
        *widest -= 1;
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            let cell = cut(cell, *width);
            line.push_str(&format!("{cell:<width$}{:GAP$}", "", width = *width));
        }
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit_and_escape() {
        let rows = vec![
            vec!["1".into(), "a\u{1b}[2Jb".into(), "x".repeat(200)],
            vec!["23".into(), "gr\u{fc}n".into(), "short".into()],
        ];
        let text = render(&["ID", "NAME", "VALUE"], &rows, 1);
        assert!(text.lines().all(|l| l.chars().count() <= WIDTH), "{text}");
        assert!(
            text.contains("a\\u{1b}[2Jb") && text.contains("x\u{2026}"),
            "{text}"
        );
        assert!(text.contains("23  gr\u{fc}n"), "{text}");
        assert_eq!(render(&["A"], &[], 0), "A\n");
        let wide = vec![vec!["1".repeat(30), "x".repeat(70)]];
        assert!(render(&["N", "V"], &wide, 1).contains(&format!("{}  x", "1".repeat(30))));
        assert_eq!(escaped("a\nb\u{202e}c"), "a\\nb\\u{202e}c");
        assert_eq!(printable("a\u{9b}\nb\r\n"), "a\\u{9b}\nb\\r\n");
    }
}
