//! Further connections to a host, made while other things are done.
//!
//! A connection is bounded by the window of its channel, by its socket's send buffer, by
//! one core of the server's, and by its luck with lost packets. All four hurt the more the
//! longer the round trip is, so that decides how many are made, together with what there is
//! to send; and they are made early, since a login takes as long as all the rest before the
//! first byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::monitor::{Level, Monitor, Notice};
use super::options::Connections;
use crate::model::escape::printable;
use crate::remote::{Connection, Connector, Files, RemoteError};

/// What a connection has to carry to be worth its login.
const BYTES_EACH: u64 = 2 << 20;
/// On a link this short each connection has to carry more: a login costs what it costs.
const LOCAL_BYTES_EACH: u64 = 64 << 20;
const LOCAL: Duration = Duration::from_millis(2);
const NEAR: Duration = Duration::from_millis(15);
/// Connections in all, the first included. On a short way they compete with all the rest for
/// this machine's processors: on two, a second one cost 5 % of the speed.
const LOCAL_CONNECTIONS: u64 = 2;
const PROCESSORS_EACH: u64 = 2;
const NEAR_CONNECTIONS: u64 = 4;
/// As many as fill a link where loss slows down each of them. Below the ten logins at once of
/// which sshd refuses none (MaxStartups).
const FAR_CONNECTIONS: u64 = 8;
/// Where loss does not, more only fill its queue: at 50 ms and 1 Gbit/s eight took 6 % longer.
const ENDURING_CONNECTIONS: u64 = 4;

/// What there is between here and a host.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    pub round_trip: Option<Duration>,
    /// See [`Connection::endures_loss`].
    pub endures_loss: bool,
    /// On this side.
    pub processors: u64,
}

/// How many connections to have beside the first.
pub fn wanted(connections: Connections, bytes: u64, rate_is_limited: bool, path: Path) -> u64 {
    let most = match (connections, path.round_trip) {
        (Connections::Exactly(n), _) => return u64::from(n).saturating_sub(1),
        // A limited rate needs no help, and no round trips means no link.
        (Connections::Auto, None) => return 0,
        (Connections::Auto, _) if rate_is_limited => return 0,
        (Connections::Auto, Some(time)) if time < LOCAL => {
            let most = (path.processors / PROCESSORS_EACH).clamp(1, LOCAL_CONNECTIONS);
            return (bytes / LOCAL_BYTES_EACH).clamp(1, most) - 1;
        }
        // At 10 ms and 1 Gbit/s two of them sent a tenth of all twice, lost where they met.
        (Connections::Auto, Some(time)) if time < NEAR && path.endures_loss => {
            (path.processors / PROCESSORS_EACH).clamp(1, NEAR_CONNECTIONS)
        }
        (Connections::Auto, Some(time)) if time < NEAR => NEAR_CONNECTIONS,
        (Connections::Auto, Some(_)) if path.endures_loss => ENDURING_CONNECTIONS,
        (Connections::Auto, Some(_)) => FAR_CONNECTIONS,
    };
    (bytes / BYTES_EACH).clamp(1, most) - 1
}

/// A connection with a file channel.
pub struct Further {
    pub files: Arc<dyn Files>,
    // Closed when the last one who holds it is done.
    _connection: Arc<dyn Connection>,
    dead: AtomicBool,
}

impl Further {
    pub fn bury(&self) {
        self.dead.store(true, Ordering::Release);
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
}

#[derive(Default)]
struct State {
    open: Vec<Arc<Further>>,
    awaited: u64,
}

/// The further connections of one attempt. Dropping it ends them.
pub struct FurtherConnections {
    state: watch::Sender<State>,
    _making: JoinSet<()>,
}

impl FurtherConnections {
    pub fn none() -> Arc<FurtherConnections> {
        let state = watch::Sender::new(State::default());
        Arc::new(FurtherConnections { state, _making: JoinSet::new() })
    }

    /// Makes `count` of them in the background. A host that refuses them is no error; where
    /// a person would have to be asked again, that is said and nothing is tried.
    pub fn make(
        connector: &Arc<dyn Connector>,
        count: u64,
        monitor: &Arc<dyn Monitor>,
    ) -> Arc<FurtherConnections> {
        if let Some(why) = connector.needs_person().filter(|_| count > 0) {
            let host = printable(connector.host().as_bytes());
            monitor
                .notice(Notice { level: Level::Info, text: format!("{host}: one connection only: {why}") });
            return FurtherConnections::none();
        }
        let state = watch::Sender::new(State { open: Vec::new(), awaited: count });
        let mut making = JoinSet::new();
        for _ in 0..count {
            let (state, connector, monitor) = (state.clone(), connector.clone(), monitor.clone());
            making.spawn(async move {
                let opened = open(connector.as_ref()).await;
                if let Err(error) = &opened {
                    let host = printable(connector.host().as_bytes());
                    let text = format!("{host}: no further connection: {}", error.message);
                    monitor.notice(Notice { level: Level::Detail, text });
                }
                state.send_modify(|state| {
                    state.awaited -= 1;
                    state.open.extend(opened.ok().map(Arc::new));
                });
            });
        }
        Arc::new(FurtherConnections { state, _making: making })
    }

    /// Those that are open, first to last, and whether more may come. Waits until there
    /// are more than `known`, or none can come any more.
    pub async fn beyond(&self, known: usize) -> (Vec<Arc<Further>>, bool) {
        let mut state = self.state.subscribe();
        let more = state.wait_for(|state| state.open.len() > known || state.awaited == 0).await;
        match more {
            Ok(state) => (state.open.iter().skip(known).cloned().collect(), state.awaited > 0),
            // Not while `self` holds the sender.
            Err(_) => (Vec::new(), false),
        }
    }
}

async fn open(connector: &dyn Connector) -> Result<Further, RemoteError> {
    let connection = connector.connect().await?;
    let files = connection.files().await?;
    Ok(Further { files, _connection: connection, dead: AtomicBool::new(false) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_the_link_needs() {
        let ms = |n| Some(Duration::from_millis(n));
        let short = Some(Duration::from_micros(300));
        let path = |round_trip, endures_loss, processors| Path { round_trip, endures_loss, processors };
        for (bytes, path, expected) in [
            (1 << 30, path(None, false, 4), 0),
            (1 << 30, path(short, false, 4), 1),
            (1 << 30, path(short, false, 2), 0),
            (32 << 20, path(short, false, 4), 0),
            (1 << 30, path(ms(10), false, 2), 3),
            (1 << 30, path(ms(10), true, 2), 0),
            (1 << 30, path(ms(10), true, 16), 3),
            (200 << 20, path(ms(50), false, 2), 7),
            (200 << 20, path(ms(50), true, 2), 3),
            (16 << 20, path(ms(200), false, 2), 7),
            (1 << 20, path(ms(200), false, 2), 0),
        ] {
            assert_eq!(wanted(Connections::Auto, bytes, false, path), expected, "{bytes} {path:?}");
        }
        assert_eq!(wanted(Connections::Auto, 1 << 30, true, path(ms(50), false, 2)), 0);
        assert_eq!(wanted(Connections::Exactly(3), 1, false, path(None, false, 2)), 2);
    }
}
