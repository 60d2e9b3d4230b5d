//! What `ssh -G` makes of a configuration, beside what haul makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use haul::remote::ssh::AddressFamily;
use haul::remote::ssh::config::jump::Proxy;
use haul::remote::ssh::config::machine::Machine;
use haul::remote::ssh::config::resolve::{Request, Resolved, add_option, resolve};
use haul::remote::ssh::config::settings::{Canonicalize, Checking, Settings};
use haul::remote::ssh::config::{Files, Local, jump};
use tempfile::TempDir;

/// A configuration and a command line.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// Name and text; the first one is the file of `-F`. `{dir}` in a text is where they are.
    pub files: Vec<(String, String)>,
    pub host: String,
    pub options: Vec<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub jump: Option<String>,
}

impl Case {
    pub fn new(text: &str, host: &str) -> Case {
        Case { files: vec![("main".to_owned(), text.to_owned())], host: host.to_owned(), ..Case::default() }
    }

    pub fn file(mut self, name: &str, text: &str) -> Case {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    pub fn option(mut self, text: &str) -> Case {
        self.options.push(text.to_owned());
        self
    }
}

/// Two of them, so that nothing hangs on one name.
const VARIABLES: [(&str, &str); 2] = [("HAUL_TEST_DIR", "/srv/keys"), ("HAUL_TEST_NAME", "n-1")];

pub type Lines = BTreeMap<String, Vec<String>>;

pub struct Judge {
    directory: TempDir,
    pub local: Local,
    /// What ssh makes of a list of algorithms, by keyword and list.
    lists: Mutex<BTreeMap<(String, String), String>>,
    defaults: Lines,
}

impl Judge {
    pub fn new() -> Judge {
        let directory = tempfile::tempdir().expect("a directory");
        let line = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().expect(program);
            String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
        };
        let uid = line("id", &["-u"]);
        let users = fs::read_to_string("/etc/passwd").expect("the users");
        let entry = users.lines().find(|line| line.split(':').nth(2) == Some(&uid)).expect("this user");
        let fields: Vec<&str> = entry.split(':').collect();
        let local = Local {
            login: fields[0].to_owned(),
            uid: uid.parse().expect("a number"),
            home: fields[5].to_owned(),
            machine: line("uname", &["-n"]),
        };
        let mut judge = Judge { directory, local, lists: Mutex::default(), defaults: BTreeMap::new() };
        judge.defaults = judge.ssh(&["-F".as_ref(), "none".as_ref(), "x".as_ref()]).expect("ssh's defaults");
        judge
    }

    pub fn machine(&self) -> Machine {
        let variables = VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Machine { variables: variables.collect() }
    }

    pub fn write(&self, case: &Case) -> PathBuf {
        let directory = self.directory.path();
        for entry in fs::read_dir(directory).expect("the directory") {
            fs::remove_file(entry.expect("an entry").path()).expect("a file of the case before");
        }
        for (name, text) in &case.files {
            let text = text.replace("{dir}", directory.to_str().expect("UTF-8"));
            fs::write(directory.join(name), text).expect("a file");
        }
        directory.join(&case.files[0].0)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.env_clear().env("PATH", "/usr/bin:/bin").envs(VARIABLES);
        command
    }

    /// What `ssh -G` prints, by keyword; or what it complains about.
    fn ssh(&self, arguments: &[&std::ffi::OsStr]) -> Result<Lines, String> {
        let output = self.command().arg("-G").args(arguments).output().expect("ssh runs");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let mut lines = Lines::new();
        for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
            let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
            lines.entry(keyword.to_owned()).or_default().push(value.to_owned());
        }
        Ok(lines)
    }

    /// What ssh resolves with these arguments.
    pub fn resolved(&self, arguments: &[String]) -> Lines {
        let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        self.ssh(&arguments).expect("ssh takes it")
    }

    fn ssh_says(&self, case: &Case, main: &Path) -> Result<Lines, String> {
        let mut arguments: Vec<String> = vec!["-F".into(), main.to_str().expect("UTF-8").into()];
        arguments.extend(case.port.map(|port| format!("-p{port}")));
        arguments.extend(case.user.as_ref().map(|user| format!("-l{user}")));
        arguments.extend(case.jump.as_ref().map(|hops| format!("-J{hops}")));
        for option in &case.options {
            arguments.extend(["-o".to_owned(), option.clone()]);
        }
        arguments.extend(["--".to_owned(), case.host.clone()]);
        let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        self.ssh(&arguments)
    }

    pub fn request(&self, case: &Case, main: &Path) -> Result<Request, String> {
        let world = self.machine();
        let mut given = Settings { port: case.port, user: case.user.clone(), ..Settings::default() };
        if let Some(hops) = &case.jump {
            given.add_jump(jump::parse(hops)?);
        }
        for option in &case.options {
            add_option(option, &mut given, &self.local, &world).map_err(|error| error.to_string())?;
        }
        Ok(Request { host: case.host.clone(), given, files: Files::Only(main.to_owned()) })
    }

    fn haul_says(&self, case: &Case, main: &Path) -> Result<Resolved, String> {
        let request = self.request(case, main)?;
        resolve(request, &self.local, &self.machine()).map_err(|error| error.to_string())
    }

    /// What is different, in a line each, and whether both took it.
    fn differences(&self, case: &Case) -> (Vec<String>, bool) {
        let main = self.write(case);
        let (ssh, haul) = (self.ssh_says(case, &main), self.haul_says(case, &main));
        match (ssh, haul) {
            (Ok(ssh), Ok(haul)) => (self.compare(&ssh, &haul), true),
            (Err(_), Err(haul)) if !haul.contains('\n') => (Vec::new(), false),
            (Err(_), Err(haul)) => (vec![format!("haul's error has several lines: {haul}")], false),
            (Ok(_), Err(haul)) => (vec![format!("only haul refuses: {haul}")], false),
            (Err(ssh), Ok(_)) => (vec![format!("only ssh refuses: {}", ssh.trim_end())], false),
        }
    }

    fn compare(&self, ssh: &Lines, haul: &Resolved) -> Vec<String> {
        let mut differences = Vec::new();
        for (keyword, values) in self.lines(haul) {
            let known = ssh.get(keyword).cloned().unwrap_or_default();
            if known != values {
                differences.push(format!("{keyword}: ssh has {known:?}, haul has {values:?}"));
            }
        }
        differences
    }

    /// The lines that `ssh -G` would print; of a keyword that it would not print, none.
    fn lines(&self, r: &Resolved) -> Vec<(&'static str, Vec<String>)> {
        let one = |value: &str| vec![value.to_owned()];
        let maybe = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        let yes = |value: bool| one(if value { "yes" } else { "no" });
        let truth = |value: bool| one(if value { "true" } else { "false" });
        let files =
            |files: &[String]| one(&if files.is_empty() { "none".to_owned() } else { files.join(" ") });
        let jump = match &r.proxy {
            Some(Proxy::Jump(jump)) => Some(jump),
            _ => None,
        };
        let silence = match r.server_alive_interval {
            Some(seconds) => seconds.to_string(),
            // Some distributions have another default where nobody is there.
            None if r.batch_mode => self.of_list("BatchMode", "yes", "serveraliveinterval"),
            None => self.defaults["serveraliveinterval"][0].clone(),
        };
        vec![
            ("host", one(&r.host)),
            ("hostname", one(&r.hostname)),
            ("user", one(&r.user)),
            ("port", one(&r.port.to_string())),
            (
                "addressfamily",
                one(match r.address_family {
                    AddressFamily::Any => "any",
                    AddressFamily::V4 => "inet",
                    AddressFamily::V6 => "inet6",
                }),
            ),
            ("bindaddress", maybe(&r.bind_address)),
            ("identityfile", r.identity_files.clone()),
            ("certificatefile", r.certificate_files.clone()),
            ("identitiesonly", yes(r.identities_only)),
            ("identityagent", maybe(&r.identity_agent)),
            ("preferredauthentications", maybe(&r.preferred_authentications)),
            ("pubkeyauthentication", truth(r.pubkey_authentication)),
            ("kbdinteractiveauthentication", yes(r.kbd_interactive_authentication)),
            ("passwordauthentication", yes(r.password_authentication)),
            ("numberofpasswordprompts", one(&r.number_of_password_prompts.to_string())),
            ("batchmode", yes(r.batch_mode)),
            ("userknownhostsfile", files(&r.user_known_hosts)),
            ("globalknownhostsfile", files(&r.global_known_hosts)),
            ("revokedhostkeys", maybe(&r.revoked_host_keys)),
            ("requiredrsasize", one(&r.required_rsa_size.to_string())),
            (
                "casignaturealgorithms",
                one(&self.algorithms("CASignatureAlgorithms", &r.ca_signature_algorithms)),
            ),
            (
                "stricthostkeychecking",
                one(match r.strict_host_key_checking {
                    Some(Checking::Yes) => "true",
                    Some(Checking::No) => "false",
                    Some(Checking::AcceptNew) => "accept-new",
                    Some(Checking::Ask) | None => "ask",
                }),
            ),
            ("hostkeyalias", maybe(&r.host_key_alias)),
            ("hashknownhosts", yes(r.hash_known_hosts)),
            ("checkhostip", yes(r.check_host_ip)),
            (
                "connecttimeout",
                one(&r.connect_timeout.map_or("none".to_owned(), |seconds| seconds.to_string())),
            ),
            ("serveraliveinterval", one(&silence)),
            ("serveralivecountmax", one(&r.server_alive_count_max.to_string())),
            ("compression", yes(r.compression)),
            ("rekeylimit", one(&format!("{} {}", r.rekey_bytes, r.rekey_seconds))),
            ("loglevel", one(&self.of_list("LogLevel", r.log_level, "loglevel"))),
            (
                "canonicalizehostname",
                one(match r.canonicalize_hostname {
                    Canonicalize::No => "false",
                    Canonicalize::Yes => "true",
                    Canonicalize::Always => "always",
                }),
            ),
            ("proxyusefdpass", yes(r.proxy_use_fdpass && jump.is_none())),
            ("ciphers", one(&self.algorithms("Ciphers", &r.ciphers))),
            ("kexalgorithms", one(&self.algorithms("KexAlgorithms", &r.kex_algorithms))),
            ("macs", one(&self.algorithms("MACs", &r.macs))),
            ("hostkeyalgorithms", one(&self.algorithms("HostKeyAlgorithms", &r.host_key_algorithms))),
            (
                "proxycommand",
                match &r.proxy {
                    Some(Proxy::Command(command)) => one(command),
                    _ => Vec::new(),
                },
            ),
            ("proxyjump", jump.iter().map(|jump| written_jump(jump)).collect()),
        ]
    }

    /// haul keeps a list as written; ssh says what it comes to.
    fn algorithms(&self, keyword: &str, list: &Option<String>) -> String {
        let lower = keyword.to_ascii_lowercase();
        match list {
            Some(list) => self.of_list(keyword, list, &lower),
            None => self.defaults[&lower][0].clone(),
        }
    }

    fn of_list(&self, keyword: &str, list: &str, asked: &str) -> String {
        let mut lists = self.lists.lock().expect("no test panicked here");
        let entry = lists.entry((keyword.to_owned(), list.to_owned())).or_insert_with(|| {
            let option = format!("{keyword}={list}");
            let arguments = ["-F", "none", "-o", &option, "x"].map(AsRef::as_ref);
            self.ssh(&arguments).expect("a list that ssh takes")[asked][0].clone()
        });
        entry.clone()
    }
}

/// As `ssh -G` writes it.
fn written_jump(jump: &jump::Jump) -> String {
    let is_number = jump.host.contains(':') || jump.host.chars().all(|c| c.is_ascii_digit() || c == '.');
    let before = jump.before.as_ref().map(|before| format!("{before},")).unwrap_or_default();
    let user = jump.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    let host = if is_number { format!("[{}]", jump.host) } else { jump.host.clone() };
    let port = jump.port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{before}{user}{host}{port}")
}

/// Fails with every case in which the two differ. Returns how many both took.
pub fn agree(cases: impl IntoIterator<Item = Case>) -> usize {
    let judge = Judge::new();
    let (mut count, mut taken) = (0, 0);
    let mut failures = Vec::new();
    for case in cases {
        count += 1;
        let (differences, is_taken) = judge.differences(&case);
        taken += usize::from(is_taken);
        if !differences.is_empty() {
            failures.push(format!("{}\n{case:#?}", differences.join("\n")));
        }
    }
    let shown: Vec<String> = failures.iter().take(5).cloned().collect();
    assert!(failures.is_empty(), "{} of {count} differ, such as\n{}", failures.len(), shown.join("\n\n"));
    taken
}
