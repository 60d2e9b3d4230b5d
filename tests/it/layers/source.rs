//! As much of Rust's grammar as it takes to see which paths and macros a file uses.

/// One piece of code. Comments and the content of literals are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    Word(String),
    /// `::`
    Colons,
    Sign(char),
}

/// The code of a file, without what is compiled for unit tests only.
pub struct Source {
    tokens: Vec<Token>,
}

impl Source {
    pub fn of(text: &str) -> Source {
        Source { tokens: without_tests(tokens(text)) }
    }

    /// Every path, with the groups of `use` taken apart: `a::{b, c::d}` is `a::b` and
    /// `a::c::d`.
    pub fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if matches!(self.tokens[at], Token::Word(_)) {
                at = self.path(at, Vec::new(), &mut paths);
            } else {
                at += 1;
            }
        }
        paths
    }

    /// Reads one path that begins at `at`, after `prefix`; gives where it ends.
    fn path(&self, mut at: usize, mut prefix: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
        while let Some(Token::Word(word)) = self.tokens.get(at) {
            prefix.push(word.clone());
            at += 1;
            if self.tokens.get(at) != Some(&Token::Colons) {
                break;
            }
            at += 1;
        }
        if at == 0 || self.tokens.get(at - 1) != Some(&Token::Colons) || !self.is_sign(at, '{') {
            paths.push(prefix);
            return at;
        }
        at += 1;
        while at < self.tokens.len() && !self.is_sign(at, '}') {
            match self.tokens[at] {
                Token::Word(_) => at = self.path(at, prefix.clone(), paths),
                _ => at += 1,
            }
        }
        at + 1
    }

    pub fn calls_macro(&self, name: &str) -> bool {
        (0..self.tokens.len()).any(|at| self.is_word(at, name) && self.is_sign(at + 1, '!'))
    }

    pub fn calls_method(&self, name: &str) -> bool {
        (0..self.tokens.len())
            .any(|at| self.is_sign(at, '.') && self.is_word(at + 1, name) && self.is_sign(at + 2, '('))
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        matches!(self.tokens.get(at), Some(Token::Word(found)) if found == word)
    }

    fn is_sign(&self, at: usize, sign: char) -> bool {
        self.tokens.get(at) == Some(&Token::Sign(sign))
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        let rest = &characters[at..];
        at += match rest {
            ['/', '/', ..] => rest.iter().take_while(|c| **c != '\n').count(),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => quoted(rest, '"'),
            ['b' | 'c', '"', ..] => 1 + quoted(&rest[1..], '"'),
            ['r', '"' | '#', ..] if raw(&rest[1..]).is_some() => 1 + raw(&rest[1..]).unwrap_or(1),
            ['b' | 'c', 'r', '"' | '#', ..] if raw(&rest[2..]).is_some() => 2 + raw(&rest[2..]).unwrap_or(1),
            ['b', '\'', ..] => 1 + quoted(&rest[1..], '\''),
            // A character, not a lifetime: it is closed after one character or an escape.
            ['\'', '\\', ..] | ['\'', _, '\'', ..] => quoted(rest, '\''),
            ['\'', ..] => 1,
            [':', ':', ..] => {
                tokens.push(Token::Colons);
                2
            }
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                let word: String = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                let length = word.chars().count();
                tokens.push(Token::Word(word));
                length
            }
            [c, ..] => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(*c));
                }
                1
            }
            [] => 1,
        };
    }
    tokens
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of a raw string after its `r`; `None` for a raw identifier.
fn raw(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return None;
    }
    let mut at = hashes + 1;
    while at < rest.len() {
        if rest[at] == '"' && rest[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(at)
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let marker = self::tokens("#[cfg(test)]");
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].starts_with(&marker) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += marker.len();
        // The item ends with its block, or with a semicolon before any block.
        let mut depth = 0;
        while at < tokens.len() {
            match tokens[at] {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(tokens[at - 1], Token::Sign('}' | ';')) {
                break;
            }
        }
    }
    kept
}

#[test]
fn code_is_seen_and_text_is_not() {
    let source = Source::of(
        r##"
        // use crate::comment; println!("x")
        /* crate::block /* nested */ crate::still */
        use crate::model::{chunk, names::{Names, self}, *};
        const A: &str = "crate::text \" println!()";
        const B: &str = r#"crate::raw " println!()"#;
        fn f<'a>(x: &'a str) -> char { if x == "{" { '{' } else { '\'' } }
        fn g() { dbg!(1); x.expect("crate::message"); y.unwrap_or(1); r#type.unwrap () }
        #[cfg(test)]
        mod tests { use crate::engine::put; fn h() { { todo!() } } }
        fn after() { crate::remote::files::x() }
        #[cfg(test)]
        mod more;
        fn last() { std::fs::read() }
        "##,
    );
    let paths: Vec<String> = source.paths().iter().map(|path| path.join("::")).collect();
    let under_crate: Vec<&str> =
        paths.iter().map(String::as_str).filter(|path| path.starts_with("crate::")).collect();
    assert_eq!(
        under_crate,
        [
            "crate::model::chunk",
            "crate::model::names::Names",
            "crate::model::names::self",
            "crate::remote::files::x"
        ]
    );
    assert!(paths.iter().any(|path| path == "std::fs::read"));
    assert!(source.calls_macro("dbg") && !source.calls_macro("println") && !source.calls_macro("todo"));
    assert!(source.calls_method("expect") && source.calls_method("unwrap"));
    assert!(!Source::of("x.unwrap_or(1); fn expect() {}").calls_method("unwrap"));
}
