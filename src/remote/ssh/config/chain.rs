//! From the configuration to what the connector obeys, jump hosts included.
//!
//! A jump host is what `ssh -W` would make of it: it has its own blocks, user, port, keys
//! and host key check, and nothing of the command line but the files to read. Its way is
//! the hops before it, where some are named, else its own ProxyJump or ProxyCommand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::jump::{self, Jump, Proxy};
use super::resolve::{Request, Resolved, resolve};
use super::settings::{Checking, Settings};
use super::{ConfigError, Files, Local, World};
use crate::model::escape::printable;
use crate::remote::ssh::options::{
    Authentication, REQUIRED_RSA_BITS, RekeyLimit, SshOptions, StrictHostKeyChecking, Via,
};

/// More hosts on one way are taken for a circle.
const MAX_HOPS: usize = 16;

/// Default keys of kinds that haul has no use for.
const UNUSED_IDENTITIES: [&str; 2] = ["~/.ssh/id_xmss", "~/.ssh/id_dsa"];

/// No shorter interval, since haul asks for signs of life in whole seconds.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);

/// What holds for every host on the way.
pub struct Context<'a> {
    pub local: &'a Local,
    pub world: &'a dyn World,
    pub stall_timeout: Duration,
    /// A person can be asked.
    pub person: bool,
    /// Of the environment.
    pub agent_socket: Option<PathBuf>,
    /// What the inventory says of a jump host, added to what is given.
    pub inventory: &'a dyn Fn(&str, &mut Settings) -> Result<(), ConfigError>,
}

/// What came of it.
pub struct Chain {
    pub options: SshOptions,
    /// What haul leaves out of the configuration, in a line each.
    pub notes: Vec<String>,
}

/// Everything about the way to `request.host`.
pub fn chain(request: Request, context: &Context<'_>) -> Result<Chain, ConfigError> {
    let mut notes = Vec::new();
    let options = options(request, context, 0, false, &mut notes)?;
    Ok(Chain { options, notes })
}

fn options(
    request: Request,
    context: &Context<'_>,
    depth: usize,
    batch_mode: bool,
    notes: &mut Vec<String>,
) -> Result<SshOptions, ConfigError> {
    let files = request.files.clone();
    let resolved = resolve(request, context.local, context.world)?;
    // Whoever must not be asked on the way to the host must not be asked at a hop either.
    let batch_mode = batch_mode || resolved.batch_mode;
    let via = match &resolved.proxy {
        None => Via::Tcp,
        Some(Proxy::Jump(jump)) => {
            let request = hop(&resolved, jump, files, context)?;
            if depth + 1 >= MAX_HOPS {
                return Err(failed(
                    &resolved,
                    format!("the way has more than {MAX_HOPS} hosts; is it a circle?"),
                ));
            }
            Via::Jump(Arc::new(options(request, context, depth + 1, batch_mode, notes)?))
        }
        Some(Proxy::Command(command)) => Via::Command(proxy_command(&resolved, command)?),
    };
    for note in &resolved.notes {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    if resolved.strict_host_key_checking == Some(Checking::No) {
        notes.push(format!(
            "{}: StrictHostKeyChecking no: haul takes the key of a new host and never one that has changed",
            printable(resolved.host.as_bytes())
        ));
    }
    let mut options = plain_options(&resolved, context).map_err(|problem| failed(&resolved, problem))?;
    options.via = via;
    options.batch_mode = batch_mode;
    Ok(options)
}

fn failed(resolved: &Resolved, problem: String) -> ConfigError {
    ConfigError(format!("{}: {}", printable(resolved.host.as_bytes()), printable(problem.as_bytes())))
}

/// The jump host, as `ssh -l user -p port -J before -W target host` would see it.
fn hop(
    resolved: &Resolved,
    jump: &Jump,
    files: Files,
    context: &Context<'_>,
) -> Result<Request, ConfigError> {
    let text = |text: &str| {
        resolved.proxy_text(text).map_err(|problem| failed(resolved, format!("ProxyJump: {problem}")))
    };
    let user = jump.user.as_deref().map(text).transpose()?;
    let host = text(&jump.host)?;
    let before = jump.before.as_deref().map(text).transpose()?;
    let mut given = Settings { user, port: jump.port, ..Settings::default() };
    if let Some(before) = before {
        let jump = jump::parse(&before);
        given.add_jump(jump.map_err(|problem| failed(resolved, format!("ProxyJump {before}: {problem}")))?);
    }
    (context.inventory)(&host, &mut given)?;
    Ok(Request { host, given, files })
}

fn proxy_command(resolved: &Resolved, command: &str) -> Result<String, ConfigError> {
    let refused = |problem: &str| Err(failed(resolved, format!("ProxyCommand: {problem}")));
    if resolved.proxy_use_fdpass {
        return refused("haul does not have ProxyUseFdpass; use a command that carries the bytes itself");
    }
    if command == "-" {
        return refused("haul cannot talk to a server on its own standard input");
    }
    match resolved.proxy_text(command) {
        Ok(command) => Ok(command),
        Err(problem) => refused(&problem),
    }
}

/// All but the way and the batch mode.
fn plain_options(resolved: &Resolved, context: &Context<'_>) -> Result<SshOptions, String> {
    let defaults = SshOptions::default();
    let path = |text: &String| resolved.path(text, context.local, context.world).map(PathBuf::from);
    let named = |files: &[String], keyword: &str| -> Result<Vec<PathBuf>, String> {
        let wanted = files
            .iter()
            .filter(|file| !file.eq_ignore_ascii_case("none") && !UNUSED_IDENTITIES.contains(&file.as_str()));
        wanted.map(path).collect::<Result<_, _>>().map_err(|problem| format!("{keyword}: {problem}"))
    };
    let global = resolved
        .global_known_hosts
        .iter()
        .map(|file| super::expand::tilde(file, &context.local.home, context.world).map(PathBuf::from))
        .collect::<Result<_, _>>()
        .map_err(|problem| format!("GlobalKnownHostsFile: {problem}"))?;
    let authentications = authentications(resolved);
    let public_key = authentications.contains(&Authentication::PublicKey);
    let keepalive_count = usize::try_from(resolved.server_alive_count_max.max(1)).unwrap_or(usize::MAX);
    // A silent link is dead after one interval more than the count.
    let intervals = resolved.server_alive_count_max.max(1).saturating_add(1);
    let keepalive_interval = match resolved.server_alive_interval {
        // ssh waits without end; haul never does.
        None | Some(0) => (context.stall_timeout / intervals).max(MIN_KEEPALIVE),
        Some(seconds) => Duration::from_secs(seconds.into()),
    };
    let revoked = resolved.revoked_host_keys.as_ref().map(path).transpose();
    let revoked_host_keys = revoked.map_err(|problem| format!("RevokedHostKeys: {problem}"))?;
    let files = |files: &[String]| files.iter().map(PathBuf::from).collect::<Vec<_>>();
    Ok(SshOptions {
        host: resolved.host.clone(),
        address: resolved.hostname.clone(),
        port: resolved.port,
        user: resolved.user.clone(),
        address_family: resolved.address_family,
        bind_address: resolved.bind_address.clone(),
        identity_files: if public_key {
            named(&resolved.identity_files, "IdentityFile")?
        } else {
            Vec::new()
        },
        identity_files_named: resolved.identity_files_named,
        identities_only: resolved.identities_only,
        agent_socket: agent(resolved, context).filter(|_| public_key),
        certificate_files: named(&resolved.certificate_files, "CertificateFile")?,
        authentications,
        password_prompts: resolved.number_of_password_prompts,
        user_known_hosts: files(&resolved.user_known_hosts),
        global_known_hosts: global,
        host_key_alias: resolved.host_key_alias.clone(),
        hash_known_hosts: resolved.hash_known_hosts,
        strict_host_key_checking: match resolved.strict_host_key_checking {
            Some(Checking::Yes) => StrictHostKeyChecking::Yes,
            Some(Checking::AcceptNew | Checking::No) => StrictHostKeyChecking::AcceptNew,
            Some(Checking::Ask) => StrictHostKeyChecking::Ask,
            None if context.person => StrictHostKeyChecking::Ask,
            None => StrictHostKeyChecking::Yes,
        },
        revoked_host_keys,
        // ssh too has a limit below which it does not go.
        required_rsa_bits: resolved.required_rsa_size.max(REQUIRED_RSA_BITS),
        ca_signature_algorithms: resolved.ca_signature_algorithms.as_deref().map(list),
        connect_timeout: match resolved.connect_timeout {
            None | Some(0) => defaults.connect_timeout,
            Some(seconds) => Duration::from_secs(seconds.into()),
        },
        keepalive_interval,
        keepalive_count,
        stall_timeout: context.stall_timeout,
        compression: resolved.compression,
        rekey_limit: rekey_limit(resolved),
        ciphers: resolved.ciphers.as_deref().map(list),
        kex_algorithms: resolved.kex_algorithms.as_deref().map(list),
        macs: resolved.macs.as_deref().map(list),
        host_key_algorithms: resolved.host_key_algorithms.as_deref().map(list),
        ..defaults
    })
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn rekey_limit(resolved: &Resolved) -> Option<RekeyLimit> {
    let bytes = Some(resolved.rekey_bytes).filter(|bytes| *bytes > 0);
    let time = Some(resolved.rekey_seconds).filter(|seconds| *seconds > 0);
    let limit = RekeyLimit { bytes, time: time.map(|seconds| Duration::from_secs(seconds.into())) };
    (limit != RekeyLimit::default()).then_some(limit)
}

fn agent(resolved: &Resolved, context: &Context<'_>) -> Option<PathBuf> {
    let of_environment = || context.agent_socket.clone();
    match resolved.identity_agent.as_deref() {
        None | Some("SSH_AUTH_SOCK") => of_environment(),
        Some("none") => None,
        Some(path) => match path.strip_prefix('$') {
            Some(name) => context.world.variable(name).map(PathBuf::from),
            None => Some(PathBuf::from(path)),
        },
    }
}

/// PreferredAuthentications in its order, without what is turned off, what would have to
/// ask somebody who must not be asked, and methods that haul does not have.
fn authentications(resolved: &Resolved) -> Vec<Authentication> {
    let may_ask = !resolved.batch_mode;
    let is_on = |method: &Authentication| match method {
        Authentication::PublicKey => resolved.pubkey_authentication,
        Authentication::KeyboardInteractive => resolved.kbd_interactive_authentication && may_ask,
        Authentication::Password => resolved.password_authentication && may_ask,
    };
    let mut methods: Vec<Authentication> = match &resolved.preferred_authentications {
        None => Authentication::ALL.to_vec(),
        Some(names) => names.split(',').filter_map(method).collect(),
    };
    methods.retain(is_on);
    methods
}

fn method(name: &str) -> Option<Authentication> {
    match name {
        "publickey" => Some(Authentication::PublicKey),
        "keyboard-interactive" => Some(Authentication::KeyboardInteractive),
        "password" => Some(Authentication::Password),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fake, local};
    use super::*;

    fn chain_of(host: &str, text: &str) -> Result<Chain, String> {
        let world = Fake::default().file("/home/alice/.ssh/config", text).variable("AGENT", "/run/agent2");
        let context = Context {
            local: &local(),
            world: &world,
            stall_timeout: Duration::from_secs(40),
            person: false,
            agent_socket: Some("/run/agent".into()),
            inventory: &|host, settings| {
                if host == "listed" {
                    settings.hostname.get_or_insert("10.0.0.7".to_owned());
                }
                Ok(())
            },
        };
        let request = Request { host: host.to_owned(), ..Request::default() };
        chain(request, &context).map_err(|error| error.to_string())
    }

    /// `user@address:port`, the nearest host first.
    fn hops(host: &str, text: &str) -> Result<Vec<String>, String> {
        let options = chain_of(host, text)?.options;
        let mut hops = Vec::new();
        let mut next = Some(&options);
        while let Some(options) = next {
            hops.push(format!("{}@{}:{}", options.user, options.address, options.port));
            next = match &options.via {
                Via::Jump(hop) => Some(hop),
                _ => None,
            };
        }
        hops.reverse();
        Ok(hops)
    }

    #[test]
    fn every_hop_has_its_own_blocks() {
        let text = "Host web\n ProxyJump gate,jo@inner:2201\n User www\nHost gate\n HostName 10.0.0.1\n Port 2200\n\
                    Host inner\n HostName 10.0.0.2\n User nobody\n ProxyJump elsewhere\n";
        assert_eq!(
            hops("web", text).expect("a way"),
            ["alice@10.0.0.1:2200", "jo@10.0.0.2:2201", "www@web:22"],
            "hops that are named win over the hop's own ProxyJump"
        );
        let text = "Host web\n ProxyJump inner\nHost inner\n ProxyJump gate\n";
        assert_eq!(hops("web", text).expect("a way"), ["alice@gate:22", "alice@inner:22", "alice@web:22"]);
        assert_eq!(
            hops("web", "Host web\n ProxyJump listed\n").expect("a way"),
            ["alice@10.0.0.7:22", "alice@web:22"]
        );
        assert_eq!(
            hops("web", "Host web\n ProxyJump gate-%r.%n\n").expect("a way"),
            ["alice@gate-alice.web:22", "alice@web:22"]
        );
    }

    #[test]
    fn circles_end() {
        let circle = "Host a\n ProxyJump b\nHost b\n ProxyJump a\n";
        assert!(hops("a", circle).expect_err("a circle").contains("is it a circle?"));
        let to_itself = hops("a", "Host *\n ProxyJump a\n").expect_err("itself");
        assert!(to_itself.contains("through itself"), "{to_itself}");
        let all = hops("b", "Host *\n ProxyJump a\n").expect_err("the hop through itself");
        assert!(all.contains("through itself"), "{all}");
        assert_eq!(
            hops("b", "Host a\n ProxyJump none\nHost *\n ProxyJump a\n").expect("a way"),
            ["alice@a:22", "alice@b:22"]
        );
    }

    #[test]
    fn commands_have_their_tokens_replaced() {
        let via = |text: &str| chain_of("web", text).map(|chain| chain.options.via);
        let command = via("HostName 10.0.0.1\nProxyCommand nc -X 5 %h %p # %n %r\n").expect("a command");
        assert!(
            matches!(&command, Via::Command(text) if text == "nc -X 5 10.0.0.1 22 # web alice"),
            "{command:?}"
        );
        assert!(matches!(via("ProxyCommand none\nProxyCommand nc\n"), Ok(Via::Tcp)));
        assert!(matches!(via("ProxyJump none\nProxyCommand nc\n"), Ok(Via::Command(_))));
        assert!(matches!(via("ProxyCommand nc\nProxyJump gate\n"), Ok(Via::Command(_))));
        for (text, reason) in [
            ("ProxyCommand nc %z\n", "%z is no token"),
            ("ProxyCommand nc\nProxyUseFdpass yes\n", "ProxyUseFdpass"),
        ] {
            let error = via(text).expect_err(text);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn who_must_not_be_asked_is_not_asked_at_a_hop() {
        let options = chain_of("web", "Host web\n BatchMode yes\n ProxyJump gate\n").expect("a way").options;
        assert_eq!(options.authentications, [Authentication::PublicKey]);
        let Via::Jump(hop) = &options.via else { panic!("a jump") };
        assert!(hop.batch_mode);
    }

    #[test]
    fn methods_agents_and_times() {
        let options = |text: &str| chain_of("web", text).expect(text).options;
        assert_eq!(
            options("PreferredAuthentications password,gssapi-with-mic,publickey\n").authentications,
            [Authentication::Password, Authentication::PublicKey]
        );
        let no_keys = options("PubkeyAuthentication no\n");
        assert!(no_keys.identity_files.is_empty() && no_keys.agent_socket.is_none());
        let socket = |text: &str| options(text).agent_socket;
        assert_eq!(socket(""), Some("/run/agent".into()));
        assert_eq!(socket("IdentityAgent none\n"), None);
        assert_eq!(socket("IdentityAgent SSH_AUTH_SOCK\n"), Some("/run/agent".into()));
        assert_eq!(socket("IdentityAgent $AGENT\n"), Some("/run/agent2".into()));
        assert_eq!(socket("IdentityAgent ~/a-%h\n"), Some("/home/alice/a-web".into()));
        assert_eq!(options("").keepalive_interval, Duration::from_secs(10));
        assert_eq!(options("ServerAliveInterval 5\n").keepalive_interval, Duration::from_secs(5));
        assert_eq!(options("ConnectTimeout 0\n").connect_timeout, SshOptions::default().connect_timeout);
        assert_eq!(
            options("StrictHostKeyChecking off\n").strict_host_key_checking,
            StrictHostKeyChecking::AcceptNew
        );
        assert_eq!(
            options("RekeyLimit 1G 1h\n").rekey_limit,
            Some(RekeyLimit { bytes: Some(1 << 30), time: Some(Duration::from_secs(3600)) })
        );
        assert_eq!(
            options("IdentityFile none\nIdentityFile ~/k-%r\n").identity_files,
            [PathBuf::from("/home/alice/k-alice")]
        );
    }
}
