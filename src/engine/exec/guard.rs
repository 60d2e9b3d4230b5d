//! The guard beside a program: the client's end of the second channel.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot, watch};

use super::dialogue::{Dialogue, OpenError};
use super::error::ExecError;
use super::host::Host;
use crate::engine::random::run_id;
use crate::model::exec::{GuardSaid, Order, find_line, guard_script};
use crate::remote::process::ProcessEvent;
use crate::remote::{Connection, RemoteErrorKind};

/// Orders that wait to be sent.
const ORDER_QUEUE: usize = 8;
/// A guard says short lines; one that says more is none.
const MAX_UNREAD_BYTES: usize = 64 * 1024;

pub type Asked = (Order, oneshot::Sender<GuardSaid>);

/// When the last sender of orders is dropped the channel closes, and the guard ends the
/// program's group if the program still runs.
pub struct Guard {
    pub orders: mpsc::Sender<Asked>,
    /// Becomes true when an [`Order::End`] was carried out.
    pub ended: watch::Receiver<bool>,
}

impl Guard {
    /// In a channel of the host's connection, or of another connection where the server
    /// opens no second one.
    pub async fn open(host: &Host) -> Result<Guard, ExecError> {
        match Guard::open_on(&host.connection).await {
            Err(OpenError::Channel(error)) if error.kind != RemoteErrorKind::LinkLost => {
                let connected = host.connector.connect().await;
                let connection = connected.map_err(|error| ExecError::remote(&error, false))?;
                Ok(Guard::open_on(&connection).await?)
            }
            opened => Ok(opened?),
        }
    }

    async fn open_on(connection: &Arc<dyn Connection>) -> Result<Guard, OpenError> {
        let nonce = run_id().map_err(ExecError::from)?;
        let mark = GuardSaid::mark(nonce);
        let mut dialogue = Dialogue::open(connection.as_ref(), &guard_script(nonce), None).await?;
        dialogue.next_line(&mark).await?;
        let (orders, asked) = mpsc::channel(ORDER_QUEUE);
        let (ended_in, ended) = watch::channel(false);
        tokio::spawn(attend(dialogue, connection.clone(), mark, asked, ended_in));
        Ok(Guard { orders, ended })
    }
}

/// Carries orders and answers until nobody gives orders or the guard is gone.
async fn attend(
    mut dialogue: Dialogue,
    _connection: Arc<dyn Connection>,
    mark: String,
    mut asked: mpsc::Receiver<Asked>,
    ended: watch::Sender<bool>,
) {
    let mut waiting: VecDeque<oneshot::Sender<GuardSaid>> = VecDeque::new();
    let mut heard = Vec::new();
    loop {
        tokio::select! {
            order = asked.recv() => {
                let Some((order, answer)) = order else { return };
                waiting.push_back(answer);
                if dialogue.process.stdin.write_all(order.line().as_bytes()).await.is_err() {
                    return;
                }
            }
            event = dialogue.process.events.recv() => match event {
                None => return,
                Some(ProcessEvent::Stdout(data)) => heard.extend_from_slice(&data),
                Some(_) => {}
            },
        }
        while let Some((line, end)) = find_line(&heard, &mark) {
            match GuardSaid::parse(line) {
                Some(GuardSaid::Ended) => {
                    ended.send_replace(true);
                }
                Some(said) => {
                    if let Some(answer) = waiting.pop_front() {
                        // Nobody has to wait for an answer.
                        let _ = answer.send(said);
                    }
                }
                None => {}
            }
            heard.drain(..end);
        }
        if heard.len() > MAX_UNREAD_BYTES {
            return;
        }
    }
}
