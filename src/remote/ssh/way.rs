//! Where the bytes to a server travel: straight over the network, through a jump host, or
//! through a command. What lies below a connection may end it, and then says why.

use std::sync::Arc;
use std::time::Duration;

use super::acknowledging::Acknowledging;
use super::congestion::Path;
use super::dial;
use super::hop::{Hop, Hops};
use super::link::{ByteStream, Link};
use super::options::{SshOptions, Via};
use super::prompter::Prompter;
use super::proxy::{self, ProxyEnd};
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// How long the end of what lies below may take to be known once the stream has ended.
const REASON_LIMIT: Duration = Duration::from_secs(1);

/// Kept for all connections to one host: a jump host remembers how it was logged in to.
pub enum Way {
    Network,
    Hop(Arc<Hop>),
    Command(String),
}

/// What a standing connection rests on.
#[derive(Debug, Clone)]
pub enum Below {
    Network(Path),
    Hop { name: String, link: Arc<Link> },
    Command(ProxyEnd),
}

impl Way {
    pub fn new(via: &Via, prompter: &Arc<dyn Prompter>, hops: &Hops) -> Way {
        match via {
            Via::Tcp => Way::Network,
            Via::Jump(hop) => Way::Hop(hops.hop(hop, prompter)),
            Via::Command(command) => Way::Command(command.clone()),
        }
    }

    /// A fresh stream to the host of `options`.
    pub async fn stream(
        &self,
        options: &SshOptions,
        prompter: &Arc<dyn Prompter>,
    ) -> Result<(Box<dyn ByteStream>, Below), RemoteError> {
        match self {
            Way::Network => {
                let (stream, path) = dial::dial(options).await?;
                let stream: Box<dyn ByteStream> =
                    if path.is_long { Box::new(Acknowledging::new(stream)) } else { Box::new(stream) };
                Ok((stream, Below::Network(path)))
            }
            Way::Hop(hop) => {
                // A hop may stand behind a hop: the future would hold itself.
                let (stream, below) = Box::pin(hop.stream(options)).await?;
                let below = Below::Hop { name: below.options.host.clone(), link: below.link.clone() };
                Ok((Box::new(stream), below))
            }
            Way::Command(command) => {
                let (stream, end) =
                    proxy::start(&options.host, command, prompter.clone()).map_err(|error| {
                        RemoteError::new(
                            RemoteErrorKind::Unreachable,
                            format!("{}: cannot start the proxy command: {error}", options.host),
                        )
                    })?;
                Ok((Box::new(stream), Below::Command(end)))
            }
        }
    }
}

impl Below {
    /// Why the stream ended, as far as it is known by now.
    pub fn reason(&self) -> Option<String> {
        match self {
            Below::Network(_) => None,
            Below::Hop { name, link } => {
                let ending = link.ending()?;
                Some(format!("the connection to the jump host {name} is lost: {}", ending.reason))
            }
            Below::Command(end) => end.borrow().clone(),
        }
    }

    /// As [`Below::reason`], and gives it a moment to be known.
    pub async fn last_words(&self) -> Option<String> {
        if let Below::Command(end) = self {
            let mut end = end.clone();
            let _ = tokio::time::timeout(REASON_LIMIT, end.wait_for(Option::is_some)).await;
        }
        self.reason()
    }
}
