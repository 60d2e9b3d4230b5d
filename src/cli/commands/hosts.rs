//! `haul hosts`: the inventory, and with `--ping` whether each host can be reached.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::cli::account::Account;
use crate::cli::args::hosts::HostsArgs;
use crate::cli::connect::{Asking, DEFAULT_STALL_TIMEOUT, Target, connector_for, read_inventory};
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::inventory::{Host, Inventory, Unlisted};
use crate::cli::screen::Screen;
use crate::cli::signals::stop_on_signals;
use crate::cli::text_table::aligned;
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::fleet::{self, Ended, Limits, Next};
use crate::model::escape::printable;
use crate::remote::Connector;
use crate::remote::ssh::DEFAULT_PORT;

pub async fn run(args: &HostsArgs) -> Result<ExitCode, CliError> {
    let account = Account::current();
    let inventory = Arc::new(read_inventory(&args.connection, &account)?);
    let hosts = match &args.pattern {
        Some(pattern) => {
            let unlisted = if args.ping { Unlisted::AreAddresses } else { Unlisted::Refused };
            inventory.select(pattern, unlisted).map_err(CliError::usage)?
        }
        None if inventory.hosts().is_empty() => {
            return Err(CliError::usage(
                "no hosts: there are none in ./hosts.toml, $XDG_CONFIG_HOME/haul/hosts.toml or --hosts-file",
            ));
        }
        None => inventory.hosts().to_vec(),
    };
    let answers = if args.ping { Some(ping_all(args, &hosts, &inventory, &account).await?) } else { None };
    let text = if args.output.json {
        json_lines(&hosts, answers.as_deref())
    } else {
        table(&hosts, &account, answers.as_deref())
    };
    crate::cli::print(&text)?;
    Ok(exit_code(answers.as_deref().unwrap_or_default()))
}

/// What the server calls itself, or why it was not reached.
type Answer = Result<String, Failure>;

fn exit_code(answers: &[Answer]) -> ExitCode {
    match answers {
        [Err(only)] => ExitCode::of(only.kind),
        _ if answers.iter().any(Result::is_err) => ExitCode::SomeHostsFailed,
        _ => ExitCode::Done,
    }
}

async fn ping_all(
    args: &HostsArgs,
    hosts: &[Host],
    inventory: &Arc<Inventory>,
    account: &Account,
) -> Result<Vec<Answer>, CliError> {
    let screen = Arc::new(Screen::plain(args.output.quiet).verbose(args.output.verbose > 0));
    // Questions of several hosts at once would be in each other's way.
    let asking =
        if hosts.len() == 1 { Asking::Person(screen.clone()) } else { Asking::Nobody(screen.clone()) };
    let connectors = hosts.iter().map(|host| {
        let target = Target::whole_host(host.clone()).within(inventory);
        connector_for(&target, &args.connection, account, &asking, DEFAULT_STALL_TIMEOUT)
    });
    let connectors: Vec<_> = connectors.collect::<Result<_, _>>()?;
    let stop = stop_on_signals(screen)?;
    let limits = Limits { forks: args.forks, stop_limit: Duration::ZERO };
    let mut answers: Vec<Option<Answer>> = vec![None; connectors.len()];
    let start = |_, connector: Arc<dyn Connector>, _| async move { ping(connector.as_ref()).await };
    fleet::run(connectors, limits, &stop, start, |index, end| {
        answers[index] = Some(match end {
            Ended::Done(answer) => answer,
            Ended::Crashed(text) => {
                let cause = format!("a defect of haul: {}", printable(text.as_bytes()));
                Err(Failure::new(FailureKind::Failed, Phase::Connect, "", cause))
            }
            Ended::LeftBehind | Ended::NotStarted => return Next::StopAll,
        });
        Next::GoOn
    })
    .await;
    if stop.is_stopped() {
        return Err(CliError::new(ExitCode::Interrupted, "interrupted"));
    }
    Ok(answers.into_iter().flatten().collect())
}

async fn ping(connector: &dyn Connector) -> Answer {
    let connected = connector.connect().await;
    let connection = connected.map_err(|error| Failure::remote(Phase::Connect, "", &error))?;
    let name = connection.server_name();
    connection.disconnect().await;
    Ok(printable(name.as_bytes()))
}

fn table(hosts: &[Host], account: &Account, answers: Option<&[Answer]>) -> String {
    let mut rows = vec![["NAME", "ID", "ADDRESS", "PORT", "USER", "GROUPS"].map(str::to_owned).to_vec()];
    for host in hosts {
        let keys = &host.keys;
        let groups = if host.groups.is_empty() { "-".to_owned() } else { host.groups.join(",") };
        rows.push(vec![
            host.name.clone(),
            keys.id.clone().unwrap_or_else(|| "-".to_owned()),
            host.address().to_owned(),
            keys.port.unwrap_or(DEFAULT_PORT).to_string(),
            keys.user.clone().unwrap_or_else(|| account.login.clone()),
            groups,
        ]);
    }
    if let Some(answers) = answers {
        rows[0].push("PING".to_owned());
        for (row, answer) in rows[1..].iter_mut().zip(answers) {
            row.push(match answer {
                Ok(server) => format!("ok ({server})"),
                Err(failure) => format!("failed: {}", failure.cause),
            });
        }
    }
    aligned(&rows)
}

#[derive(Serialize)]
struct HostEvent<'a> {
    event: &'static str,
    host: &'a str,
    id: Option<&'a str>,
    address: &'a str,
    port: u16,
    /// Null where the local login name is used.
    user: Option<&'a str>,
    groups: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    ping: Option<PingObject<'a>>,
}

#[derive(Serialize)]
struct PingObject<'a> {
    ok: bool,
    server: Option<&'a str>,
    error: Option<&'a str>,
    exit_code: u8,
}

fn json_lines(hosts: &[Host], answers: Option<&[Answer]>) -> String {
    let mut text = String::new();
    for (index, host) in hosts.iter().enumerate() {
        let ping = answers.and_then(|answers| answers.get(index)).map(|answer| match answer {
            Ok(server) => PingObject { ok: true, server: Some(server), error: None, exit_code: 0 },
            Err(failure) => PingObject {
                ok: false,
                server: None,
                error: Some(&failure.cause),
                exit_code: ExitCode::of(failure.kind).number(),
            },
        });
        let event = HostEvent {
            event: "host",
            host: &host.name,
            id: host.keys.id.as_deref(),
            address: host.address(),
            port: host.keys.port.unwrap_or(DEFAULT_PORT),
            user: host.keys.user.as_deref(),
            groups: &host.groups,
            ping,
        };
        // Strings and numbers always become JSON.
        text.push_str(&serde_json::to_string(&event).unwrap_or_default());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_its_own_code_and_several_have_three() {
        let ok = || Ok("OpenSSH".to_owned());
        let failed = || Err(Failure::new(FailureKind::Unreachable, Phase::Connect, "", "no"));
        assert_eq!(exit_code(&[ok()]), ExitCode::Done);
        assert_eq!(exit_code(&[failed()]), ExitCode::Unreachable);
        assert_eq!(exit_code(&[ok(), failed()]), ExitCode::SomeHostsFailed);
        assert_eq!(exit_code(&[]), ExitCode::Done);
    }
}
