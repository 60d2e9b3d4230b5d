//! Host patterns' smallest parts: comma lists and ranges such as `web[02-20]`.

use crate::model::escape::printable;

/// No pattern stands for more hosts than this.
pub const MAX_EXPANSION_HOSTS: usize = 10_000;

/// Splits at commas that are not inside brackets. Empty parts stay, for the caller to
/// complain about.
pub fn split_list(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0usize);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// `web[02-04]` is web02, web03, web04; `web[1,3-5]b` has lists and goes on behind the
/// bracket; several brackets multiply. Text without a bracket stands for itself.
/// Complaints are escaped.
pub fn expand(text: &str) -> Result<Vec<String>, String> {
    let shown = printable(text.as_bytes());
    let mut expanded = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let (before, after) = rest.split_at(open);
        let Some(close) = after.find(']') else {
            return Err(format!("'[' in '{shown}' is not closed"));
        };
        let choices = choices(&after[1..close]).map_err(|problem| format!("'{shown}': {problem}"))?;
        if expanded.len().saturating_mul(choices.len()) > MAX_EXPANSION_HOSTS {
            return Err(format!("'{shown}' stands for more than {MAX_EXPANSION_HOSTS} hosts"));
        }
        expanded = expanded
            .iter()
            .flat_map(|start| choices.iter().map(move |choice| format!("{start}{before}{choice}")))
            .collect();
        rest = &after[close + 1..];
    }
    if rest.contains(']') {
        return Err(format!("']' in '{shown}' was never opened"));
    }
    for name in &mut expanded {
        name.push_str(rest);
    }
    Ok(expanded)
}

/// What stands between brackets: numbers and ranges of numbers, separated by commas.
fn choices(text: &str) -> Result<Vec<String>, String> {
    let mut choices = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (number(first)?, number(last)?);
        if from > to {
            return Err(format!("the range {part} runs backwards"));
        }
        if to - from >= MAX_EXPANSION_HOSTS as u64 || choices.len() >= MAX_EXPANSION_HOSTS {
            return Err(format!("the range {part} stands for more than {MAX_EXPANSION_HOSTS} hosts"));
        }
        // Leading zeros of the first number give the width of all.
        let width = if first.starts_with('0') { first.len() } else { 1 };
        choices.extend((from..=to).map(|n| format!("{n:0width$}")));
    }
    Ok(choices)
}

fn number(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err("between brackets stand numbers and ranges, as in web[01-20] or web[1,3]".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn complaints_are_escaped() {
        for text in ["[\x1b[31m", "x]\x07", "x[1-\x1b]", "\x1b[1-99999]"] {
            let complaint = expand(text).expect_err(text);
            assert!(!complaint.chars().any(char::is_control), "{complaint:?}");
        }
    }

    #[test]
    fn ranges_expand() {
        for (text, names) in [
            ("web1", &["web1"][..]),
            ("web[1-3]", &["web1", "web2", "web3"]),
            ("web[08-11]", &["web08", "web09", "web10", "web11"]),
            ("web[8-11]", &["web8", "web9", "web10", "web11"]),
            ("web[1,3-4].lan", &["web1.lan", "web3.lan", "web4.lan"]),
            ("r[1-2]n[1-2]", &["r1n1", "r1n2", "r2n1", "r2n2"]),
            ("[01-02]", &["01", "02"]),
        ] {
            assert_eq!(expand(text).expect(text), names);
        }
    }

    #[test]
    fn bad_ranges_say_why() {
        for (text, reason) in [
            ("web[1-3", "not closed"),
            ("web1]", "never opened"),
            ("web[]", "numbers and ranges"),
            ("web[a-c]", "numbers and ranges"),
            ("web[3-1]", "backwards"),
            ("web[1-99999]", "more than"),
            ("[1-1000][1-1000]", "more than"),
            ("web[1-99999999999]", "numbers and ranges"),
        ] {
            let error = expand(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn lists_split_outside_brackets() {
        assert_eq!(split_list("a,b[1,2],!c"), ["a", "b[1,2]", "!c"]);
        assert_eq!(split_list("a,,b,"), ["a", "", "b", ""]);
    }

    proptest! {
        #[test]
        fn no_text_panics_or_grows_without_end(text in "[a-c0-9,\\[\\]-]{0,24}") {
            for part in split_list(&text) {
                if let Ok(names) = expand(part) {
                    prop_assert!(names.len() <= MAX_EXPANSION_HOSTS);
                }
            }
        }
    }
}
