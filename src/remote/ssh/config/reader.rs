//! One file of ssh_config: its lines, and which of them hold for a host.

use std::path::Path;

use super::expand::{self, Tokens};
use super::keyword::{self, Line, Meaning};
use super::settings::{Settings, Unsupported};
use super::{ConfigError, Local, World, pattern, words};
use crate::model::escape::printable;
use crate::remote::ssh::options::DEFAULT_PORT;

/// Files may include others so deep, as in ssh.
const MAX_DEPTH: usize = 16;
/// One file has no more lines than this.
const MAX_LINES: usize = 1_000_000;
const SYSTEM_DIRECTORY: &str = "/etc/ssh";

/// Where an option of the command line stands.
pub const COMMAND_LINE: &str = "-o";

/// Whom the files are read for.
pub struct Subject<'a> {
    /// What `Host` and `Match host` look at: the name as given, and once the address is
    /// known, that.
    pub host: &'a str,
    /// The name as given.
    pub original: &'a str,
    /// The second time, with the address known.
    pub is_final: bool,
}

pub struct Reader<'a> {
    pub world: &'a dyn World,
    pub local: &'a Local,
    pub subject: Subject<'a>,
    pub settings: &'a mut Settings,
    /// A `Match final` was met.
    pub wants_final: bool,
}

/// Where a line stands, and how it is to be taken.
#[derive(Clone, Copy)]
struct Scope<'p> {
    path: &'p Path,
    by_user: bool,
    /// Included in a block that does not hold: no block of this file can.
    never: bool,
    depth: usize,
}

impl<'w> Reader<'w> {
    /// `Ok(false)`: there is no such file.
    pub fn file(&mut self, path: &Path, by_user: bool, trusted_only: bool) -> Result<bool, ConfigError> {
        let mut active = true;
        self.file_at(Scope { path, by_user, never: false, depth: 0 }, trusted_only, &mut active)
    }

    /// One `KEY=VALUE` of the command line.
    pub fn option(&mut self, text: &str) -> Result<(), ConfigError> {
        let failed = |problem: String| {
            ConfigError(printable(format!("-o {}: {problem}", words::trim_end(text)).as_bytes()))
        };
        let Some((keyword, meaning, mut line, _)) = self.split(text, true, true, false).map_err(failed)?
        else {
            return Err(failed("write KEY=VALUE, as in ssh_config".to_owned()));
        };
        if let Meaning::Host | Meaning::Match | Meaning::Include = meaning {
            return Err(failed(format!("{keyword} stands in files only")));
        }
        self.plain(keyword, meaning, &mut line, COMMAND_LINE)
            .and_then(|()| nothing_left(&mut line))
            .map_err(|problem| failed(named(keyword, &problem)))
    }

    fn file_at(
        &mut self,
        scope: Scope<'_>,
        trusted_only: bool,
        active: &mut bool,
    ) -> Result<bool, ConfigError> {
        let shown = printable(scope.path.as_os_str().as_encoded_bytes());
        if scope.depth > MAX_DEPTH {
            return Err(ConfigError(format!("{shown}: files include each other more than {MAX_DEPTH} deep")));
        }
        let read = self.world.read(scope.path, trusted_only);
        let Some(bytes) = read.map_err(|problem| ConfigError(format!("{shown}: {problem}")))? else {
            return Ok(false);
        };
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let place = format!("{shown}:{}", index + 1);
            let failed = |problem: String| ConfigError(format!("{place}: {}", printable(problem.as_bytes())));
            if index >= MAX_LINES {
                return Err(failed("the file has too many lines".to_owned()));
            }
            // C's strings end at the first NUL.
            let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let text = match std::str::from_utf8(line) {
                Ok(text) => text,
                Err(_) if line.trim_ascii_start().starts_with(b"#") => continue,
                Err(_) => return Err(failed("the line is not UTF-8".to_owned())),
            };
            self.line(text, scope, &place, active).map_err(|problem| match problem {
                Problem::Here(problem) => failed(problem),
                Problem::Included(error) => error,
            })?;
        }
        Ok(true)
    }

    fn line(&mut self, text: &str, scope: Scope<'_>, place: &str, active: &mut bool) -> Result<(), Problem> {
        let Some((keyword, meaning, mut line, rest)) =
            self.split(text, scope.by_user, *active, true).map_err(Problem::Here)?
        else {
            return Ok(());
        };
        let here = |problem: String| Problem::Here(named(keyword, &problem));
        match meaning {
            Meaning::Host => *active = self.host(&mut line, scope.never).map_err(here)?,
            Meaning::Match => {
                let (fits, is_read) = self.matches(rest).map_err(here)?;
                *active = fits && !scope.never;
                if is_read {
                    line.words = Vec::new().into_iter();
                }
            }
            Meaning::Include => {
                let before = *active;
                for name in line.words.by_ref() {
                    self.include(&name, scope, place, before)?;
                }
            }
            _ => self.plain(keyword, meaning, &mut line, place).map_err(here)?,
        }
        nothing_left(&mut line).map_err(here)
    }

    /// `None` for a line that says nothing.
    #[allow(clippy::type_complexity)]
    fn split<'t>(
        &self,
        text: &'t str,
        by_user: bool,
        active: bool,
        in_file: bool,
    ) -> Result<Option<(&'static str, Meaning, Line<'t>, &'t str)>, String>
    where
        'w: 't,
    {
        let mut rest = Some(words::trim_end(text));
        let mut keyword = words::next_word(&mut rest);
        if keyword.as_deref() == Some("") {
            keyword = words::next_word(&mut rest);
        }
        let Some(keyword) = keyword.filter(|word| !word.is_empty() && !word.starts_with('#')) else {
            return Ok(None);
        };
        let rest = words::trim_start(rest.unwrap_or_default());
        if rest.is_empty() {
            let file = format!("{keyword}: a value is missing");
            return Err(if in_file { file } else { "write KEY=VALUE, as in ssh_config".to_owned() });
        }
        let Some((name, meaning)) = keyword::find(&keyword) else {
            let ignored = self.settings.ignore_unknown.as_deref();
            if ignored.is_some_and(|list| pattern::host_list_matches(list, &keyword)) {
                let line =
                    Line { world: self.world, active, by_user, words: Vec::new().into_iter(), text: rest };
                return Ok(Some(("IgnoreUnknown", Meaning::Obsolete, line, rest)));
            }
            let advice = if in_file { "; IgnoreUnknown lets ssh and haul pass over it" } else { "" };
            return Err(format!("'{keyword}' is no keyword of ssh_config{advice}"));
        };
        let words = words::split(rest).ok_or_else(|| format!("{name}: a quote is not closed"))?;
        let line = Line { world: self.world, active, by_user, words: words.into_iter(), text: rest };
        Ok(Some((name, meaning, line, rest)))
    }

    /// A keyword that is not about blocks.
    fn plain(
        &mut self,
        keyword: &'static str,
        meaning: Meaning,
        line: &mut Line<'_>,
        place: &str,
    ) -> Result<(), String> {
        match meaning {
            Meaning::Setting(set) => set(self.settings, line),
            Meaning::Unused { form, matters } => {
                let value = form.check(line)?;
                if matters && line.active {
                    let place = place.to_owned();
                    self.settings.add_unsupported(Unsupported { keyword, value, place });
                }
                Ok(())
            }
            _ => {
                line.words = Vec::new().into_iter();
                Ok(())
            }
        }
    }

    fn host(&self, line: &mut Line<'_>, never: bool) -> Result<bool, String> {
        let mut fits = false;
        for name in std::mem::take(&mut line.words) {
            if name.is_empty() {
                return Err("a pattern is empty".to_owned());
            }
            match name.strip_prefix('!') {
                Some(name) if pattern::matches(name, self.subject.host) => return Ok(false),
                None if pattern::matches(&name, self.subject.host) => fits = true,
                _ => {}
            }
        }
        Ok(fits && !never)
    }

    fn include(&mut self, name: &str, scope: Scope<'_>, place: &str, active: bool) -> Result<(), Problem> {
        let here = |problem: String| Problem::Here(named("Include", &problem));
        if name.is_empty() {
            return Err(here("a name is empty".to_owned()));
        }
        let path = match name.strip_prefix('~') {
            Some(_) if !scope.by_user => {
                return Err(here("'~' has no place in the system's file".to_owned()));
            }
            // As with any name that fits nothing.
            Some(_) => match expand::tilde(name, &self.local.home, self.world) {
                Ok(path) => path,
                Err(_) => return Ok(()),
            },
            None if name.starts_with('/') => name.to_owned(),
            None if scope.by_user => format!("{}/.ssh/{name}", self.local.home),
            None => format!("{SYSTEM_DIRECTORY}/{name}"),
        };
        let found = self.world.glob(Path::new(&path));
        let found = found.map_err(|problem| Problem::Included(ConfigError(format!("{place}: {problem}"))))?;
        for path in found {
            // A block that the file begins ends with it.
            let mut inside = active;
            let scope = Scope { path: &path, depth: scope.depth + 1, never: scope.never || !active, ..scope };
            self.file_at(scope, true, &mut inside).map_err(Problem::Included)?;
        }
        Ok(())
    }

    /// Whether the conditions hold, and whether the line is read to its end.
    fn matches(&mut self, text: &str) -> Result<(bool, bool), String> {
        let host = self.host_so_far()?;
        let mut rest = Some(text);
        let mut fits = true;
        let mut conditions = 0;
        while let Some(word) = words::next_word(&mut rest).filter(|word| !word.is_empty()) {
            if word.starts_with('#') {
                rest = None;
                break;
            }
            let (name, wanted) = match word.strip_prefix('!') {
                Some(name) => (name.to_ascii_lowercase(), false),
                None => (word.to_ascii_lowercase(), true),
            };
            let argument = |rest: &mut Option<&str>| {
                words::next_word(rest).filter(|word| !word.is_empty() && !word.starts_with('#'))
            };
            if name == "all" {
                let more = words::next_word(&mut rest).filter(|word| !word.is_empty());
                if conditions > 1 || more.as_ref().is_some_and(|word| !word.starts_with('#')) {
                    return Err("'all' stands alone, or behind 'final' or 'canonical'".to_owned());
                }
                if more.is_some() {
                    rest = None;
                }
                return Ok((fits && wanted, is_done(rest)));
            }
            conditions += 1;
            let holds = match name.as_str() {
                "canonical" => self.subject.is_final,
                "final" => {
                    self.wants_final = true;
                    self.subject.is_final
                }
                _ => {
                    let Some(value) = argument(&mut rest) else {
                        return Err(format!("nothing stands behind '{name}'"));
                    };
                    match name.as_str() {
                        "host" => pattern::host_list_matches(&value, &host),
                        "originalhost" => pattern::host_list_matches(&value, self.subject.original),
                        "user" => {
                            let user = self.settings.user.as_deref().unwrap_or(&self.local.login);
                            pattern::list_matches(&value, user)
                        }
                        "localuser" => pattern::list_matches(&value, &self.local.login),
                        "tagged" => {
                            pattern::list_matches(&value, self.settings.tag.as_deref().unwrap_or_default())
                        }
                        "exec" => {
                            let command = self.command(&value, &host)?;
                            // What cannot make a difference any more is not run.
                            if !fits {
                                continue;
                            }
                            self.world.succeeds(&command)?
                        }
                        _ => return Err(format!("'{name}' is no condition that haul knows")),
                    }
                }
            };
            fits &= holds == wanted;
        }
        if conditions == 0 {
            return Err("there is no condition".to_owned());
        }
        Ok((fits, is_done(rest)))
    }

    /// What would be connected to if nothing more were read.
    fn host_so_far(&self) -> Result<String, String> {
        match &self.settings.hostname {
            Some(name) if self.subject.is_final => Ok(name.clone()),
            Some(name) => expand::percent(name, &[('h', self.subject.host)]),
            None => Ok(self.subject.host.to_owned()),
        }
    }

    fn command(&self, text: &str, host: &str) -> Result<String, String> {
        let settings = &self.settings;
        let port = settings.port.unwrap_or(DEFAULT_PORT).to_string();
        let user = settings.user.as_deref().unwrap_or(&self.local.login);
        let known = Known {
            host,
            original: self.subject.original,
            user,
            port: &port,
            key_alias: settings.host_key_alias.as_deref().unwrap_or(host),
        };
        known.with_tokens(self.local, |tokens| expand::percent(text, tokens))
    }
}

/// What is wrong, and whether the line at hand has to be named still.
enum Problem {
    Here(String),
    Included(ConfigError),
}

fn named(keyword: &str, problem: &str) -> String {
    format!("{keyword}: {problem}")
}

fn is_done(rest: Option<&str>) -> bool {
    rest.is_none_or(str::is_empty)
}

fn nothing_left(line: &mut Line<'_>) -> Result<(), String> {
    match line.words.next() {
        Some(word) => Err(format!("'{word}' is one word too many")),
        None => Ok(()),
    }
}

/// What the tokens are made of.
pub struct Known<'a> {
    pub host: &'a str,
    pub original: &'a str,
    pub user: &'a str,
    pub port: &'a str,
    pub key_alias: &'a str,
}

impl Known<'_> {
    /// All the tokens that ssh has for most values.
    pub fn with_tokens<R>(&self, local: &Local, work: impl FnOnce(Tokens<'_>) -> R) -> R {
        use sha1::{Digest, Sha1};
        let mut hash = Sha1::new();
        for part in [&local.machine, self.host, self.port, self.user] {
            hash.update(part.as_bytes());
        }
        let hash = data_encoding::HEXLOWER.encode(&hash.finalize());
        let short = local.machine.split('.').next().unwrap_or_default();
        let uid = local.uid.to_string();
        work(&[
            ('C', &hash),
            ('L', short),
            ('d', &local.home),
            ('h', self.host),
            ('i', &uid),
            ('k', self.key_alias),
            ('l', &local.machine),
            ('n', self.original),
            ('p', self.port),
            ('r', self.user),
            ('u', &local.login),
        ])
    }
}
