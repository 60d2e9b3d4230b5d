//! Patterns as ssh_config(5) has them: `*` and `?`, and lists of them with negation.

/// Case counts.
pub fn matches(pattern: &str, text: &str) -> bool {
    bytes_match(pattern.as_bytes(), text.as_bytes())
}

/// Walks without recursion, so that many stars cost time in proportion and no stack.
pub fn bytes_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit here.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(b'?') => (p, t) = (p + 1, t + 1),
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((after_star, from)) = retry else { return false };
                retry = Some((after_star, from + 1));
                (p, t) = (after_star, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// A list with commas: some pattern fits, and none that begins with `!` does.
pub fn list_matches(list: &str, text: &str) -> bool {
    let mut fits = false;
    for pattern in list.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern, text) => return false,
            None if matches(pattern, text) => fits = true,
            _ => {}
        }
    }
    fits
}

/// The same whatever the case is.
pub fn host_list_matches(list: &str, host: &str) -> bool {
    list_matches(&list.to_ascii_lowercase(), &host.to_ascii_lowercase())
}

/// One name of a path as glob(3) has it: brackets and backslashes too.
pub fn glob(pattern: &str, name: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = chars.as_str();
            // Recursion is as deep as there are stars: a name has no more than 255 bytes.
            name.char_indices().any(|(at, _)| glob(rest, &name[at..])) || glob(rest, "")
        }
        Some(first) => {
            let mut rest = name.chars();
            let Some(c) = rest.next() else { return false };
            let (fits, after) = match first {
                '?' => (true, chars.as_str()),
                '[' => match bracket(chars.as_str(), c) {
                    Some(parts) => parts,
                    None => (c == '[', chars.as_str()),
                },
                '\\' => match chars.next() {
                    Some(guarded) => (c == guarded, chars.as_str()),
                    None => (c == '\\', ""),
                },
                first => (c == first, chars.as_str()),
            };
            fits && glob(after, rest.as_str())
        }
    }
}

/// What follows a `[`: whether `c` is one of them, and the rest of the pattern. `None`
/// where no `]` follows.
fn bracket(text: &str, c: char) -> Option<(bool, &str)> {
    let (text, negated) = match text.strip_prefix(['!', '^']) {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut fits = false;
    let mut rest = text;
    loop {
        let mut chars = rest.chars();
        let low = match chars.next()? {
            ']' if rest.len() < text.len() => return Some((fits != negated, chars.as_str())),
            '\\' => chars.next()?,
            other => other,
        };
        let after = chars.as_str();
        let range = after.strip_prefix('-').filter(|after| !after.starts_with(']'));
        (fits, rest) = match range {
            Some(range) => {
                let mut chars = range.chars();
                let high = chars.next()?;
                (fits || (low..=high).contains(&c), chars.as_str())
            }
            None => (fits || low == c, after),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("web*", "web1", true),
            ("web?", "web", false),
            ("*.example.*", "a.example.org", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("Web", "web", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        let many = "*a".repeat(50);
        assert!(!matches(&many, &"a".repeat(200).replace('a', "ab")), "and that takes no time");
    }

    #[test]
    fn lists() {
        assert!(list_matches("a,b*", "bc"));
        assert!(!list_matches("*,!b*", "bc"));
        assert!(!list_matches("!b", "a"));
        assert!(host_list_matches("*.EXAMPLE.org", "a.example.ORG"));
    }
}
