//! Tokens, variables and tildes in values.

use super::World;

/// What the tokens of a value stand for.
pub type Tokens<'a> = &'a [(char, &'a str)];

/// Replaces `%h` and its like. `%%` is a percent sign; any other token is an error.
pub fn percent(text: &str, tokens: Tokens<'_>) -> Result<String, String> {
    expand(text, Some(tokens), None)
}

/// Replaces tokens and `${NAME}`.
pub fn percent_and_dollar(text: &str, tokens: Tokens<'_>, world: &dyn World) -> Result<String, String> {
    expand(text, Some(tokens), Some(world))
}

/// Replaces `${NAME}` alone.
pub fn dollar(text: &str, world: &dyn World) -> Result<String, String> {
    expand(text, None, Some(world))
}

fn variable_name(after: &str) -> Result<(&str, &str), String> {
    match after.split_once('}') {
        None => Err(format!("'${{{after}' has no closing '}}'")),
        Some(("", _)) => Err("'${}' names no variable".to_owned()),
        Some(parts) => Ok(parts),
    }
}

fn expand(text: &str, tokens: Option<Tokens<'_>>, world: Option<&dyn World>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['%', '$']) {
        expanded.push_str(&rest[..at]);
        let (sign, after) = rest[at..].split_at(1);
        match (sign, tokens, world) {
            ("$", _, Some(world)) if after.starts_with('{') => {
                let (name, after) = variable_name(&after[1..])?;
                let value = world.variable(name).ok_or_else(|| format!("the variable {name} is not set"))?;
                expanded.push_str(&value);
                rest = after;
            }
            ("%", Some(tokens), _) => {
                let mut chars = after.chars();
                match chars.next() {
                    Some('%') => expanded.push('%'),
                    Some(key) => match tokens.iter().find(|(name, _)| *name == key) {
                        Some((_, value)) => expanded.push_str(value),
                        None => return Err(format!("%{key} is no token that can stand here")),
                    },
                    None => return Err("ends in a lone '%'; a percent sign is '%%'".to_owned()),
                }
                rest = chars.as_str();
            }
            _ => {
                expanded.push_str(sign);
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// `~`, `~/x`, `~alice` and `~alice/x`.
pub fn tilde(path: &str, home: &str, world: &dyn World) -> Result<String, String> {
    let Some(rest) = path.strip_prefix('~') else { return Ok(path.to_owned()) };
    let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let home = match user {
        "" => home.to_owned(),
        user => world.home_of(user).ok_or_else(|| format!("there is no user '{user}'"))?,
    };
    Ok(format!("{}/{}", home.trim_end_matches('/'), rest.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;

    #[test]
    fn tokens_and_variables() {
        let world = Fake::default().variable("X", "x y");
        let tokens: Tokens<'_> = &[('h', "host"), ('p', "22")];
        for (text, expected) in [
            ("%h:%p", Ok("host:22")),
            ("100%%", Ok("100%")),
            ("${X}/%h", Ok("x y/host")),
            ("$X ${X}", Ok("$X x y")),
            ("%z", Err("%z is no token")),
            ("a%", Err("lone '%'")),
            ("${Y}", Err("Y is not set")),
            ("${X", Err("no closing")),
            ("${}", Err("names no variable")),
        ] {
            match (percent_and_dollar(text, tokens, &world), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text}"),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{text}: {got}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        assert_eq!(percent("${X}%h", tokens), Ok("${X}host".to_owned()));
    }

    #[test]
    fn tildes() {
        let world = Fake::default();
        for (path, expected) in [
            ("~/x", "/home/alice/x"),
            ("~", "/home/alice/"),
            ("~//x", "/home/alice/x"),
            ("~bob/x", "/home/bob/x"),
            ("/a/~", "/a/~"),
        ] {
            assert_eq!(tilde(path, "/home/alice", &world).as_deref(), Ok(expected), "{path}");
        }
        assert!(tilde("~nobody-at-all/x", "/home/alice", &world).is_err());
    }
}
