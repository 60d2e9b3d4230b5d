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
use super::ssh_option::{Methods, SshKeywords};
use crate::remote::Connector;
use crate::remote::ssh::{
    AddressFamily, DEFAULT_PORT, NoPrompter, Prompter, SshConnector, SshOptions, StrictHostKeyChecking,
};

const HOSTS_FILE_NAME: &str = "hosts.toml";

/// ssh's own default keys, in its order, less the obsolete ones.
const DEFAULT_IDENTITIES: [&str; 5] = ["id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa"];

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
}

impl Target {
    pub fn whole_host(host: Host) -> Target {
        Target { host, user: None, port: None, path: Vec::new() }
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
    let target = |host| Target {
        host,
        user: destination.user.clone(),
        port: destination.port,
        path: destination.path.clone(),
    };
    Ok(hosts.into_iter().map(target).collect())
}

/// Who may be asked while connecting.
#[derive(Clone)]
pub enum Asking {
    /// The person at the terminal, where there is one.
    Person(Arc<Screen>),
    Nobody,
}

/// Everything that is wrong with the way to a host is said here, before anything connects.
pub fn connector_for(
    target: &Target,
    args: &ConnectionArgs,
    account: &Account,
    asking: &Asking,
    stall_timeout: Duration,
) -> Result<Arc<dyn Connector>, CliError> {
    let keywords = SshKeywords::parse(&args.option, account)?;
    let allowed = allowed_prompts(&keywords);
    let options = ssh_options(target, args, keywords, account, asking, stall_timeout)?;
    let prompter: Arc<dyn Prompter> = match asking {
        Asking::Person(screen) if !options.batch_mode => {
            Arc::new(TerminalPrompter::new(screen.clone(), allowed))
        }
        _ => Arc::new(NoPrompter),
    };
    Ok(Arc::new(SshConnector::new(options, prompter)))
}

fn allowed_prompts(keywords: &SshKeywords) -> AllowedPrompts {
    let methods = keywords.methods.unwrap_or(Methods::ALL);
    AllowedPrompts {
        password: methods.password && keywords.password_authentication.unwrap_or(true),
        keyboard_interactive: methods.keyboard_interactive,
    }
}

fn ssh_options(
    target: &Target,
    args: &ConnectionArgs,
    keywords: SshKeywords,
    account: &Account,
    asking: &Asking,
    stall_timeout: Duration,
) -> Result<SshOptions, CliError> {
    refuse_unsupported(target, args)?;
    let keys = &target.host.keys;
    let defaults = SshOptions::default();
    let public_key = keywords.methods.unwrap_or(Methods::ALL).public_key;
    let named_identities = named_identities(target, args, &keywords, account)?;
    let has_named_identities = !named_identities.is_empty();
    let agent_socket = keywords.identity_agent.unwrap_or_else(|| account.agent_socket.clone());
    let person = matches!(asking, Asking::Person(_)) && person_is_there();
    let unless_asked = if person { StrictHostKeyChecking::Ask } else { StrictHostKeyChecking::Yes };
    let keepalive_count = keywords.keepalive_count.unwrap_or(defaults.keepalive_count);
    // A silent link is dead after one interval more than the count.
    let intervals = u32::try_from(keepalive_count).unwrap_or(u32::MAX).saturating_add(1);
    let keepalive_interval = (stall_timeout / intervals).max(Duration::from_secs(1));
    let in_home = |name: &str| account.home.as_ref().map(|home| home.join(".ssh").join(name));
    Ok(SshOptions {
        host: target.host.name.clone(),
        address: target.host.address().to_owned(),
        port: target.port.or(args.port).or(keywords.port).or(keys.port).unwrap_or(DEFAULT_PORT),
        sudo: args.sudo.clone(),
        password: args.password_fd.map(password::from_descriptor).transpose()?,
        user: target
            .user
            .clone()
            .or(keywords.user)
            .or_else(|| keys.user.clone())
            .unwrap_or_else(|| account.login.clone()),
        address_family: match (args.ipv4, args.ipv6) {
            (true, _) => AddressFamily::V4,
            (_, true) => AddressFamily::V6,
            _ => keywords.address_family.unwrap_or_default(),
        },
        identity_files: match (public_key, has_named_identities) {
            (false, _) => Vec::new(),
            (true, true) => named_identities,
            (true, false) => DEFAULT_IDENTITIES.iter().filter_map(|name| in_home(name)).collect(),
        },
        identities_only: keywords.identities_only.unwrap_or(false),
        agent_socket: agent_socket.filter(|_| public_key),
        batch_mode: keywords.batch_mode.unwrap_or(false),
        user_known_hosts: keywords
            .user_known_hosts
            .or_else(|| {
                keys.known_hosts.as_ref().map(|paths| paths.iter().map(|p| account.expand(p)).collect())
            })
            .unwrap_or_else(|| {
                ["known_hosts", "known_hosts2"].iter().filter_map(|name| in_home(name)).collect()
            }),
        global_known_hosts: keywords.global_known_hosts.unwrap_or_else(|| {
            vec![PathBuf::from("/etc/ssh/ssh_known_hosts"), PathBuf::from("/etc/ssh/ssh_known_hosts2")]
        }),
        host_key_alias: keywords.host_key_alias,
        hash_known_hosts: keywords.hash_known_hosts.unwrap_or(false),
        strict_host_key_checking: keywords.strict_host_key_checking.unwrap_or(unless_asked),
        connect_timeout: keywords.connect_timeout.unwrap_or(defaults.connect_timeout),
        keepalive_interval: keywords.keepalive_interval.unwrap_or(keepalive_interval),
        keepalive_count,
        stall_timeout,
        compression: args.compress || keywords.compression.unwrap_or(false),
        ciphers: keywords.ciphers,
        kex_algorithms: keywords.kex_algorithms,
        macs: keywords.macs,
        host_key_algorithms: keywords.host_key_algorithms,
        ..defaults
    })
}

fn refuse_unsupported(target: &Target, args: &ConnectionArgs) -> Result<(), CliError> {
    if args.jump.is_some() {
        return Err(CliError::usage(
            "-J: jump hosts are not supported yet; forward a port by 'ssh -L 2222:host:22 bastion' and use -P 2222",
        ));
    }
    if args.ssh_config.is_some() {
        return Err(CliError::usage(
            "-F: ssh's configuration files are not read yet; say it by -P, -i, -o or in hosts.toml",
        ));
    }
    if target.host.keys.jump.is_some() {
        return Err(CliError::usage(format!(
            "host '{}' has a 'jump' in the hosts file: jump hosts are not supported yet",
            target.host.name
        )));
    }
    Ok(())
}

/// Keys that someone named have to be there; the default ones need not.
fn named_identities(
    target: &Target,
    args: &ConnectionArgs,
    keywords: &SshKeywords,
    account: &Account,
) -> Result<Vec<PathBuf>, CliError> {
    let mut files: Vec<PathBuf> = args.identity.iter().map(|path| account.expand(path)).collect();
    files.extend(keywords.identity_files.iter().cloned());
    if files.is_empty() {
        let configured = target.host.keys.identity_file.iter().flatten();
        files.extend(configured.map(|path| account.expand(path)));
    }
    for file in &files {
        readable(file)?;
    }
    Ok(files)
}

fn readable(file: &Path) -> Result<(), CliError> {
    use std::os::unix::ffi::OsStrExt;
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(CliError::usage(format!(
            "identity file {} is no regular file",
            crate::model::escape::printable(file.as_os_str().as_bytes())
        ))),
        Err(error) => Err(CliError::usage(format!(
            "identity file {}: {error}",
            crate::model::escape::printable(file.as_os_str().as_bytes())
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let keywords = SshKeywords::parse(&args.option, &account).map_err(|error| error.message)?;
        ssh_options(&target, args, keywords, &account, &Asking::Nobody, DEFAULT_STALL_TIMEOUT)
            .map_err(|error| error.message)
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
        assert_eq!(options.identity_files[0], Path::new("/home/alice/.ssh/id_ed25519"));
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
        let keywords = SshKeywords::parse(&args.option, &account()).expect("keywords");
        assert_eq!(
            allowed_prompts(&keywords),
            AllowedPrompts { password: true, keyboard_interactive: false }
        );
    }
}
