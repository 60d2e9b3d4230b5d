//! One session's traffic: requests go out in order, replies find who waits for them.
//!
//! One task owns both halves of the stream. A request is registered and queued in one
//! step without a pause, and the task writes whole packets only; so a future may be
//! dropped anywhere, an id is not used again before its reply has come, and requests
//! leave in the order in which their futures were first polled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::codec::{self, DecodeError, Greeting, Reply};
use super::request::{Request, encode_init};
use super::sink::PacketSink;
use super::stall::{self, StallWatch};
use crate::model::escape::printable;
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// With more requests that await their replies, who made one more waits.
const MAX_OUTSTANDING: usize = 1024;
/// With more packets that wait for the writer, who queued one more waits: it would only be memory.
const QUEUE_PACKETS: usize = 4;
/// What is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How much of what is no SFTP is shown.
const SHOWN_BYTES: usize = 80;

type Reason = RemoteError;

/// A packet on its way out: all but the payload, and the payload.
pub struct Packet {
    head: BytesMut,
    payload: Bytes,
}

/// What both ends of a session's task know.
pub struct Link {
    state: Mutex<State>,
    /// A packet left, or a reply came.
    moved: Notify,
    requests: AtomicU64,
    sent: AtomicU64,
    /// In nanoseconds; `u64::MAX` until there is one.
    shortest_round_trip: AtomicU64,
    closing: AtomicBool,
    wake: Notify,
}

struct State {
    greeting: Option<oneshot::Sender<Greeting>>,
    waiting: HashMap<u32, Waiting>,
    queued: usize,
    next_id: u32,
    ended: Option<Reason>,
}

struct Waiting {
    answer: oneshot::Sender<Answer>,
    asked: Instant,
}

/// Makes requests. Cheap to clone; does not keep the session alive.
#[derive(Clone)]
pub struct Requests {
    link: Arc<Link>,
    queue: mpsc::WeakUnboundedSender<Packet>,
}

/// The session itself: it ends when this is dropped, as soon as what was asked is answered.
pub struct Session {
    requests: Requests,
    _queue: mpsc::UnboundedSender<Packet>,
}

/// A reply that is closed again when nobody takes it, if it holds a handle.
pub struct Answer {
    reply: Option<Reply>,
    requests: Requests,
}

impl Answer {
    pub fn take(mut self) -> Option<Reply> {
        self.reply.take()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(Reply::Handle(handle)) = self.reply.take() {
            self.requests.close_later(handle);
        }
    }
}

impl Session {
    /// Starts the task and sends the first packet; the receiver yields the server's.
    pub fn start<R, S>(reader: R, sink: S, stall_timeout: Duration) -> (Session, oneshot::Receiver<Greeting>)
    where
        R: AsyncRead + Send + Unpin + 'static,
        S: PacketSink + 'static,
    {
        let (greeting_sender, greeting) = oneshot::channel();
        let (queue, packets) = mpsc::unbounded_channel();
        let link = Arc::new(Link {
            state: Mutex::new(State {
                greeting: Some(greeting_sender),
                waiting: HashMap::new(),
                // The greeting.
                queued: 1,
                next_id: 0,
                ended: None,
            }),
            moved: Notify::new(),
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            shortest_round_trip: AtomicU64::new(u64::MAX),
            closing: AtomicBool::new(false),
            wake: Notify::new(),
        });
        let requests = Requests { link, queue: queue.downgrade() };
        tokio::spawn(run(reader, sink, packets, requests.clone(), stall_timeout));
        (Session { requests, _queue: queue }, greeting)
    }

    pub fn requests(&self) -> &Requests {
        &self.requests
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.requests.link.closing.store(true, Ordering::Release);
        self.requests.link.wake.notify_one();
    }
}

impl Requests {
    pub fn count(&self) -> u64 {
        self.link.requests.load(Ordering::Relaxed)
    }

    pub fn round_trip(&self) -> Option<Duration> {
        let shortest = self.link.shortest_round_trip.load(Ordering::Relaxed);
        (shortest != u64::MAX).then(|| Duration::from_nanos(shortest))
    }

    /// Why the session is over.
    pub fn reason(&self) -> Reason {
        self.link.state().ended.clone().unwrap_or_else(closed_here)
    }

    /// Ends the session for `reason`; only the first one counts.
    pub fn end(&self, reason: Reason) {
        self.link.end(reason);
    }

    /// Queues a request at the first poll, and returns when the queue is short again. The
    /// receiver yields the reply, or nothing when the session ends first.
    pub async fn submit(
        &self,
        request: Request<'_>,
        payload: Bytes,
    ) -> Result<oneshot::Receiver<Answer>, Reason> {
        let answer = self.queue(request, payload)?;
        self.link.room().await;
        Ok(answer)
    }

    /// Never pauses: whoever is called first is sent first.
    fn queue(&self, request: Request<'_>, payload: Bytes) -> Result<oneshot::Receiver<Answer>, Reason> {
        let queue = self.queue.upgrade().ok_or_else(|| self.reason())?;
        let (sender, answer) = oneshot::channel();
        let id = self.link.register(Waiting { answer: sender, asked: Instant::now() })?;
        self.link.requests.fetch_add(1, Ordering::Relaxed);
        let packet = Packet { head: request.encode(id), payload };
        queue.send(packet).map_err(|_| self.reason())?;
        Ok(answer)
    }

    /// Closes a handle that nobody holds any more; what the close says interests nobody.
    pub fn close_later(&self, handle: Bytes) {
        // An error means that the session is over, and all its handles with it.
        let _ = self.queue(Request::Close { handle: &handle }, Bytes::new());
    }
}

impl Link {
    /// No code panics while it holds the lock, so the state is whole even if poisoned.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, waiting: Waiting) -> Result<u32, Reason> {
        let mut state = self.state();
        if let Some(reason) = &state.ended {
            return Err(reason.clone());
        }
        // Ends: fewer ids are outstanding than there are.
        while state.waiting.contains_key(&state.next_id) {
            state.next_id = state.next_id.wrapping_add(1);
        }
        let id = state.next_id;
        state.next_id = id.wrapping_add(1);
        state.waiting.insert(id, waiting);
        state.queued += 1;
        Ok(id)
    }

    /// A packet is no longer queued.
    fn taken(&self) {
        let mut state = self.state();
        state.queued = state.queued.saturating_sub(1);
        drop(state);
        self.moved.notify_waiters();
    }

    async fn room(&self) {
        loop {
            // Hears of what moves from here on, polled or not.
            let moved = self.moved.notified();
            if self.has_room() {
                return;
            }
            moved.await;
        }
    }

    fn has_room(&self) -> bool {
        let state = self.state();
        let short = state.queued <= QUEUE_PACKETS && state.waiting.len() <= MAX_OUTSTANDING;
        short || state.ended.is_some()
    }

    fn end(&self, reason: Reason) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.ended = Some(reason);
        }
        // Dropping the senders wakes everyone who waits.
        let waiting = std::mem::take(&mut state.waiting);
        state.greeting = None;
        drop(state);
        drop(waiting);
        self.moved.notify_waiters();
        self.wake.notify_one();
    }

    fn awaiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Whether the task has nothing left to do.
    fn is_over(&self) -> bool {
        let state = self.state();
        state.ended.is_some() || (self.closing.load(Ordering::Acquire) && state.waiting.is_empty())
    }
}

fn closed_here() -> Reason {
    RemoteError::new(RemoteErrorKind::LinkLost, "the SFTP session was closed on this side")
}

/// Whatever ends the task, nobody is left waiting.
struct EndOnDrop(Arc<Link>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(closed_here());
    }
}

async fn run<R, S>(
    reader: R,
    sink: S,
    packets: mpsc::UnboundedReceiver<Packet>,
    requests: Requests,
    stall_timeout: Duration,
) where
    R: AsyncRead + Send + Unpin,
    S: PacketSink,
{
    let link = Arc::clone(&requests.link);
    let _end = EndOnDrop(Arc::clone(&link));
    let reason = tokio::select! {
        reason = receive(reader, &requests, stall_timeout) => reason,
        reason = transmit(sink, packets, &link) => reason,
    };
    link.end(reason);
}

/// Writes packets until none can come any more.
async fn transmit(
    mut sink: impl PacketSink,
    mut packets: mpsc::UnboundedReceiver<Packet>,
    link: &Link,
) -> Reason {
    let lost = |error| {
        RemoteError::new(
            RemoteErrorKind::LinkLost,
            format!("the connection broke while it was written to ({error})"),
        )
    };
    let mut batch = Vec::with_capacity(QUEUE_PACKETS);
    batch.push(Packet { head: encode_init(), payload: Bytes::new() });
    loop {
        // Packets without a payload travel together with the next one.
        let mut head = BytesMut::new();
        for packet in batch.drain(..) {
            link.taken();
            if head.is_empty() {
                head = packet.head;
            } else {
                head.extend_from_slice(&packet.head);
            }
            if !packet.payload.is_empty() {
                if let Err(error) = sink.send(head.split().freeze(), packet.payload).await {
                    return lost(error);
                }
                link.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        if !head.is_empty() {
            if let Err(error) = sink.send(head.freeze(), Bytes::new()).await {
                return lost(error);
            }
            link.sent.fetch_add(1, Ordering::Relaxed);
        }
        if packets.recv_many(&mut batch, QUEUE_PACKETS).await == 0 {
            break;
        }
    }
    match sink.finish().await {
        // The answers that are still due end the session.
        Ok(()) => std::future::pending().await,
        Err(error) => lost(error),
    }
}

/// Reads packets until the stream ends, breaks the protocol or stalls.
async fn receive(mut reader: impl AsyncRead + Unpin, requests: &Requests, stall_timeout: Duration) -> Reason {
    let link = &requests.link;
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut watch = StallWatch::default();
    let period = (stall_timeout / stall::TICKS).max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let wanted = match take_packets(&mut buffer, &mut watch, requests) {
            Ok(wanted) => wanted,
            Err(reason) => return reason,
        };
        if link.is_over() {
            return requests.reason();
        }
        buffer.reserve(wanted.max(READ_BYTES));
        tokio::select! {
            read = reader.read_buf(&mut buffer) => match read {
                Ok(0) => return lost(if buffer.is_empty() {
                    "the server closed the SFTP channel"
                } else {
                    "the SFTP channel ended in the middle of a packet"
                }),
                Ok(read) => watch.received(read),
                Err(error) => return lost(&format!("the connection broke while it was read from ({error})")),
            },
            _ = ticks.tick() => {
                let sent = link.sent.load(Ordering::Relaxed);
                if watch.tick(link.awaiting(), !buffer.is_empty(), sent) {
                    return lost(&format!("the server has been silent for {stall_timeout:?}"));
                }
            }
            () = link.wake.notified() => {}
        }
    }
}

/// Handles every whole packet in `buffer`; returns how many bytes the next one lacks.
fn take_packets(buffer: &mut BytesMut, watch: &mut StallWatch, requests: &Requests) -> Result<usize, Reason> {
    const LENGTH_BYTES: usize = 4;
    loop {
        let greeted = requests.link.state().greeting.is_none();
        let length = match codec::packet_length(buffer) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(0),
            Err(error) if greeted => return Err(broken(error)),
            Err(_) => return Err(no_sftp(buffer)),
        };
        let end = LENGTH_BYTES + length;
        if buffer.len() < end {
            return Ok(end - buffer.len());
        }
        let packet = buffer.split_to(end).freeze().slice(LENGTH_BYTES..);
        watch.packet_complete();
        if greeted {
            dispatch(packet, requests)?;
        } else {
            let greeting = codec::decode_greeting(packet.clone()).map_err(|_| no_sftp(&packet))?;
            if let Some(sender) = requests.link.state().greeting.take() {
                // Nobody waits for it any more: the session is being closed.
                let _ = sender.send(greeting);
            }
        }
    }
}

fn dispatch(packet: Bytes, requests: &Requests) -> Result<(), Reason> {
    let (id, reply) = codec::decode_reply(packet).map_err(broken)?;
    // Where the handle goes if nobody waits for it any more.
    let answer = Answer { reply: Some(reply), requests: requests.clone() };
    let Some(waiting) = requests.link.state().waiting.remove(&id) else {
        return Err(RemoteError::new(
            RemoteErrorKind::Protocol,
            "the server answered a request that was never made",
        ));
    };
    let took = u64::try_from(waiting.asked.elapsed().as_nanos()).unwrap_or(u64::MAX);
    requests.link.shortest_round_trip.fetch_min(took, Ordering::Relaxed);
    requests.link.moved.notify_waiters();
    // Who asked has gone; a handle in the answer is closed as it drops.
    let _ = waiting.answer.send(answer);
    Ok(())
}

fn lost(text: &str) -> Reason {
    RemoteError::new(RemoteErrorKind::LinkLost, text)
}

fn broken(error: DecodeError) -> Reason {
    RemoteError::new(RemoteErrorKind::Protocol, format!("the server broke the SFTP protocol: {error}"))
}

fn no_sftp(received: &[u8]) -> Reason {
    let shown = printable(&received[..received.len().min(SHOWN_BYTES)]);
    RemoteError::new(
        RemoteErrorKind::Protocol,
        format!(
            "the server does not begin with SFTP but with \"{shown}\"; if its shell's start files \
             print text, keep them quiet without a terminal"
        ),
    )
}
