//! From what the person said to a connector: the host of hosts.toml or an address, and
//! everything about the way there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::args::connection::ConnectionArgs;
use super::destination::Destination;
use super::error::CliError;
use super::hosts_file::HostsFile;
use super::inventory::{Host, Inventory, Unlisted};
use super::password;
use super::prompt::{AllowedPrompts, TerminalPrompter, person_is_there};
use super::screen::Screen;
use crate::model::escape::printable;
use crate::remote::Connector;
use crate::remote::ssh::config::chain::{Chain, Context, chain};
use crate::remote::ssh::config::machine::Machine;
use crate::remote::ssh::config::resolve::{Request, add_option};
use crate::remote::ssh::config::settings::{Checking, Settings};
use crate::remote::ssh::config::{ConfigError, Files, Local, jump};
use crate::remote::ssh::{
    AddressFamily, Authentication, NoPrompter, Prompter, SshConnector, SshOptions, Via,
};

const HOSTS_FILE_NAME: &str = "hosts.toml";

/// Of commands that have no `--stall-timeout`.
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// One host to work on.
#[derive(Debug, Clone)]
pub struct Target {
    pub host: Host,
    /// From DEST; they win over everything else.
    pub user: Option<String>,
    pub port: Option<u16>,
    pub path: Vec<u8>,
    /// What hosts.toml knows of jump hosts.
    pub inventory: Arc<Inventory>,
}

impl Target {
    pub fn whole_host(host: Host) -> Target {
        Target { host, user: None, port: None, path: Vec::new(), inventory: Arc::default() }
    }

    /// Jump hosts are looked up there.
    #[must_use]
    pub fn within(self, inventory: &Arc<Inventory>) -> Target {
        Target { inventory: inventory.clone(), ..self }
    }
}

/// `--hosts-file`, else `./hosts.toml`, else the one in the configuration directory. Only
/// the one that was named has to be there.
pub fn read_inventory(args: &ConnectionArgs, account: &Account) -> Result<Inventory, CliError> {
    let found = match &args.hosts_file {
        // As ssh's -F has it.
        Some(path) if path == Path::new("none") => None,
        Some(path) => Some(path.clone()),
        None => default_hosts_files(account).into_iter().find(|path| path.exists()),
    };
    let Some(path) = found else { return Ok(Inventory::default()) };
    let file = HostsFile::read(&path).map_err(|error| CliError::usage(error.to_string()))?;
    Ok(Inventory::new(file))
}

fn default_hosts_files(account: &Account) -> Vec<PathBuf> {
    let configured = account.config.as_ref().map(|config| config.join("haul").join(HOSTS_FILE_NAME));
    [Some(PathBuf::from(HOSTS_FILE_NAME)), configured].into_iter().flatten().collect()
}

/// The hosts that a destination stands for, each as a target of its own.
pub fn targets(destination: &Destination, inventory: &Inventory) -> Result<Vec<Target>, CliError> {
    let hosts = if destination.is_address {
        vec![inventory.host(&destination.host).cloned().unwrap_or_else(|| Host::unlisted(&destination.host))]
    } else {
        inventory.select(&destination.host, Unlisted::AreAddresses).map_err(CliError::usage)?
    };
    let inventory = Arc::new(inventory.clone());
    let target = |host| Target {
        host,
        user: destination.user.clone(),
        port: destination.port,
        path: destination.path.clone(),
        inventory: inventory.clone(),
    };
    Ok(hosts.into_iter().map(target).collect())
}

/// Who may be asked while connecting.
#[derive(Clone)]
pub enum Asking {
    /// The person at the terminal, where there is one.
    Person(Arc<Screen>),
    /// Nobody; what is only said goes there.
    Nobody(Arc<Screen>),
}

/// The way to one host, everything that is wrong with it said.
pub struct Way {
    pub connector: Arc<dyn Connector>,
    /// What ssh's configuration asks for and haul does not have; for `-v`, each once.
    pub notes: Vec<String>,
}

/// As [`way_to`]; whoever wants details reads the notes.
pub fn connector_for(
    target: &Target,
    args: &ConnectionArgs,
    account: &Account,
    asking: &Asking,
    stall_timeout: Duration,
) -> Result<Arc<dyn Connector>, CliError> {
    let way = way_to(target, args, account, asking, stall_timeout)?;
    let (Asking::Person(screen) | Asking::Nobody(screen)) = asking;
    for note in &way.notes {
        screen.detail_once(&format!("haul: {note}"));
    }
    Ok(way.connector)
}

/// Everything that is wrong with the way to a host is said here, before anything connects.
pub fn way_to(
    target: &Target,
    args: &ConnectionArgs,
    account: &Account,
    asking: &Asking,
    stall_timeout: Duration,
) -> Result<Way, CliError> {
    let Chain { mut options, notes } = ssh_options(target, args, account, asking, stall_timeout)?;
    // Of the host itself, and of none on the way to it.
    options.sudo = args.sudo.clone();
    options.password = args.password_fd.map(password::from_descriptor).transpose()?;
    let prompter: Arc<dyn Prompter> = match asking {
        Asking::Person(screen) if !options.batch_mode => {
            Arc::new(TerminalPrompter::new(screen.clone(), allowed_prompts(&options)))
        }
        _ => Arc::new(NoPrompter),
    };
    Ok(Way { connector: Arc::new(SshConnector::new(options, prompter)), notes })
}

/// What some host on the way may ask for.
fn allowed_prompts(options: &SshOptions) -> AllowedPrompts {
    let mut allowed = AllowedPrompts {
        password: options.authentications.contains(&Authentication::Password),
        keyboard_interactive: options.authentications.contains(&Authentication::KeyboardInteractive),
    };
    if let Via::Jump(hop) = &options.via {
        let before = allowed_prompts(hop);
        allowed.password |= before.password;
        allowed.keyboard_interactive |= before.keyboard_interactive;
    }
    allowed
}

/// In the order of who wins: DEST, the command line and its environment, hosts.toml; then
/// ssh's files, which `chain` reads.
fn ssh_options(
    target: &Target,
    args: &ConnectionArgs,
    account: &Account,
    asking: &Asking,
    stall_timeout: Duration,
) -> Result<Chain, CliError> {
    let local = local(account);
    // A variable that is no UTF-8 cannot be named in the configuration's text.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let world = Machine { variables: variables.collect() };
    let mut given = Settings { user: target.user.clone(), port: target.port, ..Settings::default() };
    typed(args, account, &mut given)?;
    for option in &args.option {
        add_option(option, &mut given, &local, &world).map_err(usage)?;
    }
    if given.strict_host_key_checking == Some(Checking::No) {
        return Err(CliError::usage(
            "-o StrictHostKeyChecking: host keys are always checked; accept-new takes the key of a new host",
        ));
    }
    if let Some(option) = given.unsupported_option() {
        return Err(CliError::usage(format!(
            "-o {} {}: haul does not have this",
            option.keyword,
            printable(option.value.as_bytes())
        )));
    }
    listed(&target.host, account, &mut given).map_err(usage)?;
    let inventory = |name: &str, settings: &mut Settings| match target.inventory.host(name) {
        Some(host) => listed(host, account, settings),
        None => Ok(()),
    };
    let context = Context {
        local: &local,
        world: &world,
        stall_timeout,
        person: matches!(asking, Asking::Person(_)) && person_is_there(),
        agent_socket: account.agent_socket.clone(),
        inventory: &inventory,
    };
    let files = match &args.ssh_config {
        Some(path) if path.as_os_str().eq_ignore_ascii_case("none") => Files::None,
        Some(path) => Files::Only(account.expand(path)),
        None => Files::Usual,
    };
    chain(Request { host: target.host.name.clone(), given, files }, &context).map_err(usage)
}

fn usage(error: ConfigError) -> CliError {
    CliError::usage(error.to_string())
}

fn local(account: &Account) -> Local {
    Local {
        login: account.login.clone(),
        uid: rustix::process::getuid().as_raw(),
        home: account.home.as_ref().map(|home| home.to_string_lossy().into_owned()).unwrap_or_default(),
        machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

/// The flags that scp has too. They come before `-o`.
fn typed(args: &ConnectionArgs, account: &Account, given: &mut Settings) -> Result<(), CliError> {
    given.port = given.port.or(args.port);
    for path in &args.identity {
        let path = account.expand(path);
        readable(&path)?;
        given
            .add_identity(literal(&path)?, true)
            .map_err(|problem| CliError::usage(format!("-i: {problem}")))?;
    }
    if let Some(hops) = &args.jump {
        let jump = jump::parse(hops)
            .map_err(|problem| CliError::usage(format!("-J {}: {problem}", printable(hops.as_bytes()))))?;
        let names_command = |option: &String| {
            option
                .trim_start()
                .get(.."proxycommand".len())
                .is_some_and(|key| key.eq_ignore_ascii_case("proxycommand"))
        };
        if args.option.iter().any(names_command) {
            return Err(CliError::usage("-J and -o ProxyCommand exclude each other"));
        }
        given.add_jump(jump);
    }
    given.address_family = match (args.ipv4, args.ipv6) {
        (true, _) => Some(AddressFamily::V4),
        (_, true) => Some(AddressFamily::V6),
        _ => None,
    };
    given.compression = args.compress.then_some(true);
    Ok(())
}

/// What hosts.toml says, behind what was said before.
fn listed(host: &Host, account: &Account, given: &mut Settings) -> Result<(), ConfigError> {
    let keys = &host.keys;
    let wrong = |problem: String| ConfigError(format!("{}: {problem}", printable(host.name.as_bytes())));
    let path = |path: &PathBuf| literal(&account.expand(path)).map_err(|error| wrong(error.message));
    if given.hostname.is_none() {
        given.hostname = keys.address.as_ref().map(|address| address.replace('%', "%%"));
    }
    given.port = given.port.or(keys.port);
    given.user = given.user.take().or_else(|| keys.user.clone());
    for file in keys.identity_file.iter().flatten() {
        readable(&account.expand(file)).map_err(|error| wrong(error.message))?;
        given.add_identity(path(file)?, true).map_err(wrong)?;
    }
    if given.user_known_hosts.is_empty() {
        let files = keys.known_hosts.iter().flatten().map(path);
        given.user_known_hosts = files.collect::<Result<_, _>>()?;
    }
    if let Some(hops) = &keys.jump {
        given.add_jump(jump::parse(hops).map_err(|problem| wrong(format!("jump: {problem}")))?);
    }
    Ok(())
}

/// A path in which nothing is a token.
fn literal(path: &Path) -> Result<String, CliError> {
    match path.to_str() {
        Some(text) => Ok(text.replace('%', "%%")),
        None => Err(CliError::usage(format!(
            "{}: the name is not UTF-8",
            printable(path.as_os_str().as_encoded_bytes())
        ))),
    }
}

/// Keys that someone named have to be there; those of ssh's files need not.
fn readable(file: &Path) -> Result<(), CliError> {
    let shown = printable(file.as_os_str().as_encoded_bytes());
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(CliError::usage(format!("identity file {shown} is no regular file"))),
        Err(error) => Err(CliError::usage(format!("identity file {shown}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::ssh::StrictHostKeyChecking;
    use std::ffi::OsStr;

    fn account() -> Account {
        Account {
            login: "alice".into(),
            home: Some("/home/alice".into()),
            config: None,
            agent_socket: Some("/run/agent".into()),
        }
    }

    fn options(destination: &str, hosts: &str, args: &ConnectionArgs) -> Result<SshOptions, String> {
        let account = account();
        let file = HostsFile::parse(hosts, Path::new("hosts.toml")).expect("a hosts file");
        let destination = Destination::parse(OsStr::new(destination)).expect("a destination");
        let target = targets(&destination, &Inventory::new(file)).map_err(|error| error.message)?.remove(0);
        let args = ConnectionArgs { ssh_config: Some("none".into()), ..args.clone() };
        let chain = ssh_options(
            &target,
            &args,
            &account,
            &Asking::Nobody(Arc::new(Screen::plain(true))),
            DEFAULT_STALL_TIMEOUT,
        );
        Ok(chain.map_err(|error| error.message)?.options)
    }

    #[test]
    fn what_stands_nearer_wins() {
        let hosts = "[hosts.web1]\naddress = '10.0.0.1'\nport = 2200\nuser = 'deploy'\n";
        let none = ConnectionArgs::default();
        let option =
            |text: &str| ConnectionArgs { option: vec![text.to_owned()], ..ConnectionArgs::default() };
        let port = ConnectionArgs { port: Some(2201), ..option("Port=2202") };
        for (destination, args, address, expected_port, user) in [
            ("web1:/x", &none, "10.0.0.1", 2200, "deploy"),
            ("web1:/x", &option("Port=2202"), "10.0.0.1", 2202, "deploy"),
            ("web1:/x", &port, "10.0.0.1", 2201, "deploy"),
            ("sftp://bob@web1:2203/x", &port, "10.0.0.1", 2203, "bob"),
            ("web1:/x", &option("User=carol"), "10.0.0.1", 2200, "carol"),
            ("bob@web1:/x", &option("User=carol"), "10.0.0.1", 2200, "bob"),
            ("web2:/x", &none, "web2", 22, "alice"),
            ("[::1]:/x", &none, "::1", 22, "alice"),
        ] {
            let options = options(destination, hosts, args).expect(destination);
            assert_eq!(
                (options.address.as_str(), options.port, options.user.as_str()),
                (address, expected_port, user)
            );
        }
    }

    #[test]
    fn defaults_are_ssh_s() {
        let options = options("web1:/x", "", &ConnectionArgs::default()).expect("options");
        assert_eq!(options.identity_files[0], Path::new("/home/alice/.ssh/id_rsa"));
        assert_eq!(options.user_known_hosts[0], Path::new("/home/alice/.ssh/known_hosts"));
        assert_eq!(options.agent_socket.as_deref(), Some(Path::new("/run/agent")));
        assert_eq!(options.strict_host_key_checking, StrictHostKeyChecking::Yes);
    }

    #[test]
    fn methods_that_are_left_out_are_not_tried() {
        let args = ConnectionArgs {
            option: vec!["PreferredAuthentications=password".to_owned()],
            ..ConnectionArgs::default()
        };
        let options = options("web1:/x", "", &args).expect("options");
        assert!(options.identity_files.is_empty() && options.agent_socket.is_none());
        assert_eq!(allowed_prompts(&options), AllowedPrompts { password: true, keyboard_interactive: false });
    }

    #[test]
    fn jump_hosts_come_from_the_command_line_or_from_hosts_toml() {
        let hosts = "[hosts.gate]\naddress = '10.0.0.9'\nport = 2200\nuser = 'jo'\n\
                     [hosts.web1]\njump = 'gate'\n";
        let hop = |args: &ConnectionArgs| match options("web1:/x", hosts, args).expect("options").via {
            Via::Jump(hop) => format!("{}@{}:{}", hop.user, hop.address, hop.port),
            via => format!("{via:?}"),
        };
        let jump = |text: &str| ConnectionArgs { jump: Some(text.to_owned()), ..ConnectionArgs::default() };
        assert_eq!(hop(&ConnectionArgs::default()), "jo@10.0.0.9:2200");
        assert_eq!(hop(&jump("al@gate:22")), "al@10.0.0.9:22");
        assert_eq!(hop(&jump("none")), "Tcp");
        let both = ConnectionArgs { option: vec!["ProxyCommand=nc".to_owned()], ..jump("gate") };
        assert!(options("web1:/x", hosts, &both).expect_err("both").contains("exclude each other"));
        assert!(
            options("web1:/x", hosts, &jump("a,,b")).expect_err("no hops").starts_with("-J a,,b: has to be")
        );
    }

    #[test]
    fn a_percent_sign_in_a_path_of_a_flag_is_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let key = directory.path().join("100%h");
        std::fs::write(&key, "").expect("a file");
        let args = ConnectionArgs { identity: vec![key.clone()], ..ConnectionArgs::default() };
        assert_eq!(options("web1:/x", "", &args).expect("options").identity_files, [key]);
    }
}
