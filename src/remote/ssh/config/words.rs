//! How a line of ssh_config falls apart: the keyword, then words with quotes.
//!
//! ssh has two ways of doing it, which differ in what a quote, a backslash and a `=` do;
//! both are followed here to the letter, since a `Match` line is read by the older one.

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The older way: takes the next word off `rest`, which is `None` once all is taken. A
/// word ends at a space, at one `=`, or at a quote that is not its first character. `None`
/// is also a quote that is not closed.
pub fn next_word(rest: &mut Option<&str>) -> Option<String> {
    let text = rest.take()?;
    let Some(end) = text.find(|c: char| SPACE.contains(&c) || c == '"' || c == '=') else {
        return Some(text.to_owned());
    };
    let after = &text[end + 1..];
    if text[end..].starts_with('"') {
        let close = after.find('"')?;
        *rest = Some(after[close + 1..].trim_start_matches(SPACE));
        return Some(format!("{}{}", &text[..end], &after[..close]));
    }
    let skipped = after.trim_start_matches(SPACE);
    let had_equals = text[end..].starts_with('=');
    *rest = Some(match skipped.strip_prefix('=') {
        Some(after) if !had_equals => after.trim_start_matches(SPACE),
        _ => skipped,
    });
    Some(text[..end].to_owned())
}

/// The newer way: words at spaces and tabs outside of quotes of either kind; a backslash
/// guards a quote, a backslash, and outside of quotes a space; `#` where a word would
/// begin ends the line. `None` is a quote that is not closed.
pub fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        if matches!(chars.peek(), None | Some('#')) {
            return Some(words);
        }
        let mut word = String::new();
        let mut quote: Option<char> = None;
        while let Some(c) = chars.next_if(|c| quote.is_some() || !matches!(c, ' ' | '\t')) {
            match (c, quote) {
                ('\\', _) => {
                    let guarded = chars.next_if(|next| {
                        matches!(next, '\'' | '"' | '\\') || (quote.is_none() && *next == ' ')
                    });
                    word.push(guarded.unwrap_or(c));
                }
                ('"' | '\'', None) => quote = Some(c),
                (c, Some(open)) if c == open => quote = None,
                (c, _) => word.push(c),
            }
        }
        if quote.is_some() {
            return None;
        }
        words.push(word);
    }
}

/// A line without what ssh takes off its end.
pub fn trim_end(line: &str) -> &str {
    line.trim_end_matches([' ', '\t', '\r', '\n', '\u{c}'])
}

pub fn trim_start(text: &str) -> &str {
    text.trim_start_matches(SPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_end_at_a_space_or_one_equals_sign() {
        for (line, word, rest) in [
            ("Port 22", "Port", Some("22")),
            ("Port=22", "Port", Some("22")),
            ("Port = 22", "Port", Some("22")),
            ("Port == 22", "Port", Some("= 22")),
            ("Port\t\t22", "Port", Some("22")),
            ("Port", "Port", None),
            ("\"Port\" 22", "Port", Some("22")),
            (" Port", "", Some("Port")),
            ("a\"b c\"d", "ab c", Some("d")),
        ] {
            let mut left = Some(line);
            assert_eq!(next_word(&mut left).as_deref(), Some(word), "{line}");
            assert_eq!(left, rest, "{line}");
        }
        let mut open = Some("\"Port 22");
        assert_eq!(next_word(&mut open), None);
    }

    #[test]
    fn words_keep_what_is_quoted() {
        for (text, expected) in [
            ("a b", Some(&["a", "b"][..])),
            ("  a\tb # c", Some(&["a", "b"])),
            ("a#b", Some(&["a#b"])),
            ("'a b' \"c d\"", Some(&["a b", "c d"])),
            ("a\\ b \\\"c \\d", Some(&["a b", "\"c", "\\d"])),
            ("'a\\ b'", Some(&["a\\ b"])),
            ("\"\"", Some(&[""])),
            ("a'b", None),
            ("", Some(&[])),
        ] {
            let expected = expected.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
