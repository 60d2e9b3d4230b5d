//! From the arguments as typed, and the host's keys of hosts.toml, to the engine's options.

use std::sync::Arc;

use super::account::Account;
use super::args::put::{FinishArgs, IfExistsArg, LockArgs, MergeArg, TransferArgs, VerifyArg};
use super::error::CliError;
use super::inventory::Host;
use super::prompt::{TerminalAsk, person_is_there};
use super::screen::Screen;
use super::tty;
use crate::engine::options::{
    Connections, IfExists, LockOptions, MergeMethod, PutOptions, RetryOptions, VerifyMethod, Wait,
};
use crate::model::chunk::ChunkSize;
use crate::model::names::UserId;

/// `--user-id`, else the host's `user_id`, else the local login name.
pub fn user_id(typed: Option<&UserId>, host: &Host, account: &Account) -> Result<UserId, CliError> {
    match typed.or(host.keys.user_id.as_ref()) {
        Some(user) => Ok(user.clone()),
        None => account.user_id(),
    }
}

/// `transfer` is `None` for `haul merge`, which sends nothing.
pub fn put_options(
    finish: &FinishArgs,
    transfer: Option<&TransferArgs>,
    lock: &LockArgs,
    host: &Host,
    account: &Account,
    screen: &Arc<Screen>,
) -> Result<PutOptions, CliError> {
    let merge = finish.merge.map(|merge| match merge {
        MergeArg::Auto => MergeMethod::Auto,
        MergeArg::Script => MergeMethod::Script,
        MergeArg::Sftp => MergeMethod::Sftp,
    });
    let connections = transfer.and_then(|transfer| transfer.connections);
    let limits = [finish.bwlimit, finish.limit_kbit];
    Ok(PutOptions {
        user: user_id(lock.user_id.as_ref(), host, account)?,
        chunk_size: transfer.map_or(ChunkSize::DEFAULT, |transfer| transfer.chunk_size),
        if_exists: if_exists(finish.if_exists, screen)?,
        lock: lock_options(lock, account)?,
        merge: merge.or(host.keys.merge).unwrap_or(MergeMethod::Auto),
        verify: match finish.verify {
            VerifyArg::Sha256 => VerifyMethod::Sha256,
            VerifyArg::Fast => VerifyMethod::Fast,
            VerifyArg::Size => VerifyMethod::Size,
        },
        quick: transfer.is_some_and(|transfer| transfer.quick),
        rehash: transfer.is_some_and(|transfer| transfer.rehash),
        preserve: transfer.is_some_and(|transfer| transfer.preserve),
        chmod: finish.chmod,
        chown: transfer.and_then(|transfer| transfer.chown.clone()).unwrap_or_default(),
        hash_existing: transfer.is_some_and(|transfer| transfer.hash_existing),
        bwlimit: limits.into_iter().flatten().min(),
        connections: connections.or(host.keys.connections).unwrap_or(Connections::Auto),
        retry: RetryOptions { retries: finish.retries, stall_timeout: finish.stall_timeout },
        dry_run: transfer.is_some_and(|transfer| transfer.dry_run),
        non_atomic_replace: finish.non_atomic_replace,
    })
}

fn if_exists(typed: Option<IfExistsArg>, screen: &Arc<Screen>) -> Result<IfExists, CliError> {
    let ask = || IfExists::Ask(Arc::new(TerminalAsk::new(screen.clone())));
    match typed {
        Some(IfExistsArg::Replace) => Ok(IfExists::Replace),
        Some(IfExistsArg::Skip) => Ok(IfExists::Skip),
        Some(IfExistsArg::Fail) => Ok(IfExists::Fail),
        Some(IfExistsArg::Ask) if tty::exists() => Ok(ask()),
        Some(IfExistsArg::Ask) => Err(CliError::usage(
            "--if-exists ask: there is no terminal to ask at; choose replace, skip or fail",
        )),
        None if person_is_there() => Ok(ask()),
        None => Ok(IfExists::Fail),
    }
}

fn lock_options(lock: &LockArgs, account: &Account) -> Result<LockOptions, CliError> {
    let wait = lock.wait.unwrap_or(Wait::No);
    if lock.no_lock && lock.break_lock {
        return Err(CliError::usage("--no-lock and --break-lock exclude each other"));
    }
    if lock.no_lock && wait != Wait::No {
        return Err(CliError::usage("--no-lock and --wait exclude each other"));
    }
    Ok(LockOptions { wait, break_lock: lock.break_lock, no_lock: lock.no_lock, holder: account.holder() })
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Command, command};
    use super::*;
    use crate::cli::hosts_file::HostKeys;
    use clap::FromArgMatches;

    fn options(arguments: &[&str], keys: HostKeys) -> Result<PutOptions, String> {
        let line = [&["haul", "put"], arguments, &["img", "web1:/x"]].concat();
        let matches = command().try_get_matches_from(line).map_err(|error| error.to_string())?;
        let cli = Cli::from_arg_matches(&matches).expect("the definition is sound");
        let Command::Put(put) = cli.command else { panic!("put was asked for") };
        let account = Account { login: "alice".into(), home: None, config: None, agent_socket: None };
        let host = Host { keys, ..Host::unlisted("web1") };
        let screen = Arc::new(Screen::plain(false));
        put_options(&put.finish, Some(&put.transfer), &put.lock, &host, &account, &screen)
            .map_err(|error| error.message)
    }

    #[test]
    fn defaults() {
        let options = options(&["--if-exists", "fail"], HostKeys::default()).expect("options");
        assert_eq!(options.user.as_str(), "alice");
        assert_eq!(options.chunk_size, ChunkSize::DEFAULT);
        assert_eq!((options.merge, options.verify), (MergeMethod::Auto, VerifyMethod::Sha256));
        assert_eq!(
            (options.lock.wait, options.lock.break_lock, options.lock.no_lock),
            (Wait::No, false, false)
        );
        assert!(options.lock.holder.starts_with("alice@"));
        assert_eq!((options.retry.retries, options.retry.stall_timeout.as_secs()), (5, 30));
        assert_eq!(options.bwlimit, None);
    }

    #[test]
    fn the_command_line_wins_over_hosts_toml() {
        let keys = HostKeys {
            merge: Some(MergeMethod::Sftp),
            connections: Some(Connections::Exactly(2)),
            user_id: UserId::new("ci").ok(),
            ..HostKeys::default()
        };
        let from_file = options(&[], keys.clone()).expect("options");
        assert_eq!((from_file.merge, from_file.connections), (MergeMethod::Sftp, Connections::Exactly(2)));
        assert_eq!(from_file.user.as_str(), "ci");
        let typed = options(&["--merge", "script", "--connections", "auto", "--user-id", "bob"], keys);
        let typed = typed.expect("options");
        assert_eq!((typed.merge, typed.connections), (MergeMethod::Script, Connections::Auto));
        assert_eq!(typed.user.as_str(), "bob");
    }

    #[test]
    fn the_lower_limit_holds() {
        let options = options(&["-l", "8", "--bwlimit", "1MB"], HostKeys::default()).expect("options");
        assert_eq!(options.bwlimit, Some(1024));
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        assert!(options(&["--no-lock", "--break-lock"], HostKeys::default()).is_err());
        assert!(options(&["--no-lock", "--wait"], HostKeys::default()).is_err());
        let waits = options(&["--wait=5m"], HostKeys::default()).expect("options");
        assert_eq!(waits.lock.wait, Wait::AtMost(std::time::Duration::from_secs(300)));
    }
}
