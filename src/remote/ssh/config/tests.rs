//! A world of text, and what whole configurations come to in it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::resolve::{Request, Resolved, add_option, resolve};
use super::settings::Settings;
use super::{Files, Local, World, pattern};
use crate::remote::ssh::options::AddressFamily;

#[derive(Default)]
pub struct Fake {
    files: BTreeMap<PathBuf, String>,
    variables: BTreeMap<String, String>,
    pub commands: RefCell<Vec<String>>,
}

impl Fake {
    pub fn file(mut self, path: &str, text: &str) -> Fake {
        self.files.insert(path.into(), text.to_owned());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Fake {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }
}

impl World for Fake {
    fn read(&self, path: &Path, _: bool) -> Result<Option<Vec<u8>>, String> {
        Ok(self.files.get(path).map(|text| text.clone().into_bytes()))
    }

    fn glob(&self, pattern: &Path) -> Result<Vec<PathBuf>, String> {
        let pattern = pattern.to_str().expect("UTF-8");
        let fits = |path: &&PathBuf| pattern::matches(pattern, path.to_str().expect("UTF-8"));
        Ok(self.files.keys().filter(fits).cloned().collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn home_of(&self, user: &str) -> Option<String> {
        (user == "bob").then(|| "/home/bob".to_owned())
    }

    fn has_address(&self, name: &str, _: AddressFamily) -> bool {
        ["web1.b.example.", "whole.example."].contains(&name)
    }

    fn succeeds(&self, command: &str) -> Result<bool, String> {
        self.commands.borrow_mut().push(command.to_owned());
        Ok(command.starts_with("true"))
    }
}

pub fn local() -> Local {
    Local {
        login: "alice".to_owned(),
        uid: 1000,
        home: "/home/alice".to_owned(),
        machine: "desk.example.org".to_owned(),
    }
}

fn resolved(host: &str, options: &[&str], world: &Fake) -> Result<Resolved, String> {
    let mut given = Settings::default();
    for option in options {
        add_option(option, &mut given, &local(), world).map_err(|error| error.to_string())?;
    }
    let request = Request { host: host.to_owned(), given, files: Files::Usual };
    resolve(request, &local(), world).map_err(|error| error.to_string())
}

fn of(text: &str) -> Fake {
    Fake::default().file("/home/alice/.ssh/config", text)
}

#[test]
fn the_first_value_wins_and_keys_add_up() {
    let world = of("Host web*\n Port 2201\n IdentityFile ~/.ssh/a\nHost *\n Port 2202\n User all\n IdentityFile ~/.ssh/b\n")
        .file("/etc/ssh/ssh_config", "Port 2203\nIdentityFile /etc/key\nCompression yes\n");
    let web = resolved("web1", &[], &world).expect("web1");
    assert_eq!((web.port, web.user.as_str(), web.compression), (2201, "all", true));
    assert_eq!(web.identity_files, ["~/.ssh/a", "~/.ssh/b", "/etc/key"]);
    assert_eq!(resolved("db", &["Port=2204"], &world).expect("db").port, 2204);
}

#[test]
fn errors_name_file_line_and_keyword() {
    for (text, expected) in [
        ("\nProt 22\n", "/home/alice/.ssh/config:2: 'prot' is no keyword of ssh_config"),
        ("Port x\n", "/home/alice/.ssh/config:1: Port: has to be a number from 1 to 65535"),
        ("Host b\n  Port 22 23\n", "/home/alice/.ssh/config:2: Port: '23' is one word too many"),
        ("User\n", "/home/alice/.ssh/config:1: User: a value is missing"),
        ("User \"al\n", "/home/alice/.ssh/config:1: User: a quote is not closed"),
        ("Match user\n", "/home/alice/.ssh/config:1: Match: nothing stands behind 'user'"),
        ("Include /inc\n", "/inc:1: Port: has to be a number"),
        ("Include /loop\n", "/loop: files include each other more than 16 deep"),
        ("IdentityAgent $a-b\n", "/home/alice/.ssh/config:1: IdentityAgent: names no environment"),
        ("UserKnownHostsFile ${NO}\n", "web1: UserKnownHostsFile: the variable NO is not set"),
    ] {
        let world = of(text).file("/inc", "Port x").file("/loop", "Include /loop");
        let error = resolved("web1", &[], &world).expect_err(text);
        assert!(
            error.starts_with(expected) || error.to_lowercase().starts_with(&expected.to_lowercase()),
            "{text}: {error}"
        );
        assert!(!error.contains('\n'));
    }
    let error = resolved("web1", &["Host=x"], &of("")).expect_err("a block");
    assert!(error.contains("stands in files only"), "{error}");
    let error = resolved("web1", &["Prot=22"], &of("")).expect_err("no keyword");
    assert!(error.starts_with("-o Prot=22: 'Prot' is no keyword"), "{error}");
}

#[test]
fn a_command_runs_only_where_it_decides() {
    let world =
        of("Match host other exec \"true a\"\n Port 1\nMatch exec \"true %n %h %p %r\"\n Port 2201\n");
    assert_eq!(resolved("web1", &["User=bob"], &world).expect("web1").port, 2201);
    assert_eq!(*world.commands.borrow(), ["true web1 web1 22 bob"]);
}

#[test]
fn comments_need_not_be_utf_8() {
    let mut world = of("");
    let text = String::from_utf8(b"# caf\xc3\xa9\nPort 2201\n".to_vec()).expect("UTF-8");
    world.files.insert("/home/alice/.ssh/config".into(), text);
    assert_eq!(resolved("web1", &[], &world).expect("web1").port, 2201);
}

#[test]
fn what_haul_does_not_have_is_noted_once_and_only_if_it_is_asked_for() {
    let text = "Host web1\n GSSAPIAuthentication yes\nHost *\n GSSAPIAuthentication no\n ForwardAgent no\n ControlPath ~/x\n";
    let notes = resolved("web1", &[], &of(text)).expect("web1").notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("/home/alice/.ssh/config:2: GSSAPIAuthentication yes"), "{notes:?}");
    assert!(resolved("db", &[], &of(text)).expect("db").notes.is_empty());
}

#[test]
fn short_names_become_whole_ones_where_that_is_asked_for() {
    let canonical = "CanonicalDomains a.example b.example\nMatch canonical host *.b.example\n Port 2201\n";
    let name = |host: &str, text: &str| {
        let resolved = resolved(host, &[], &of(&format!("{text}{canonical}")))?;
        Ok::<_, String>((resolved.hostname, resolved.port))
    };
    let whole = Ok(("web1.b.example".to_owned(), 2201));
    assert_eq!(name("web1", "CanonicalizeHostname yes\n"), whole);
    assert_eq!(name("Web1", "CanonicalizeHostname yes\n"), whole);
    assert_eq!(name("web1", ""), Ok(("web1".to_owned(), 22)));
    assert_eq!(name("whole.example.", "CanonicalizeHostname yes\n"), Ok(("whole.example".to_owned(), 22)));
    assert_eq!(name("web1", "CanonicalizeHostname yes\nProxyJump j\n"), Ok(("web1".to_owned(), 22)));
    assert_eq!(name("web1", "CanonicalizeHostname always\nProxyJump j\n"), whole);
    assert_eq!(name("db", "CanonicalizeHostname yes\n"), Ok(("db".to_owned(), 22)));
    assert_eq!(name("a.b.c", "CanonicalizeHostname yes\n"), Ok(("a.b.c".to_owned(), 22)));
    let error = name("db", "CanonicalizeHostname yes\nCanonicalizeFallbackLocal no\n").expect_err("nowhere");
    assert!(error.starts_with("db: CanonicalizeHostname: the name is in none"), "{error}");
}

#[test]
fn what_a_shell_could_read_is_no_name() {
    for name in ["a$b", "a;b", "-x", "a b", "a`b`", "a,b", ""] {
        let error = resolved(name, &[], &of("")).expect_err(name);
        assert!(error.contains("cannot be a host's name"), "{error}");
    }
    for user in ["a;b", "-x", "a -x", "a`b"] {
        let error = resolved("web1", &[&format!("User=\"{user}\"")], &of("")).expect_err(user);
        assert!(error.contains("cannot be a user's name"), "{error}");
    }
    assert!(resolved("fe80::1%eth0", &["User=DOM\\alice"], &of("")).is_ok());
}
