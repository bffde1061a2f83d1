//! A protocol on a thread of its own, and the only ways in and out of it: messages, and one result.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread::JoinHandle;

use zeroize::Zeroizing;

/// To whom a message goes: everybody, or one party by its index in this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    All,
    One(u16),
}

/// A message of the protocol, on its way out.
pub struct Outgoing {
    pub recipient: Recipient,
    pub message: Vec<u8>,
}

/// A message of the protocol that has come in; the transport vouches for its sender.
pub struct Incoming {
    pub sender: u16,
    pub broadcast: bool,
    pub message: Vec<u8>,
}

/// Why a protocol ended without a result.
#[derive(Debug)]
pub enum Failure {
    /// Somebody did not follow the protocol; nobody can say who for certain.
    Protocol(String),
    /// What this party itself brought along is wrong.
    Input(String),
    /// The session was dropped before its end.
    Abandoned,
}

/// What a protocol returns: secret shares and signatures alike, wiped when dropped.
pub type Output = Zeroizing<Vec<u8>>;

enum Event {
    Send(Outgoing),
    Waiting,
    Ended(Result<Output, Failure>),
}

/// What a protocol sees of the world.
pub struct Link {
    events: Sender<Event>,
    inbox: Receiver<Incoming>,
}

impl Link {
    pub fn send(&self, recipient: Recipient, message: Vec<u8>) -> Result<(), Failure> {
        let event = Event::Send(Outgoing { recipient, message });
        self.events.send(event).map_err(|_| Failure::Abandoned)
    }

    /// Waits for the next message, after everything sent so far has been taken.
    pub fn receive(&self) -> Result<Incoming, Failure> {
        self.events.send(Event::Waiting).map_err(|_| Failure::Abandoned)?;
        self.inbox.recv().map_err(|_| Failure::Abandoned)
    }
}

/// Where a session stands after a step.
pub enum Standing {
    Waiting,
    Ended(Result<Output, Failure>),
}

/// A running protocol. Dropping it ends its thread at the next message it waits for.
pub struct Session {
    inbox: Option<Sender<Incoming>>,
    events: Receiver<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Starts `protocol` on a thread.
    pub fn start<F>(protocol: F) -> std::io::Result<Self>
    where
        F: FnOnce(&Link) -> Result<Output, Failure> + Send + 'static,
    {
        let (to_thread, inbox) = channel();
        let (events, from_thread) = channel();
        let thread = std::thread::Builder::new().name("mpc-session".into()).spawn(move || {
            let link = Link { events, inbox };
            let ended = catch_unwind(AssertUnwindSafe(|| protocol(&link)))
                .unwrap_or_else(|_| Err(Failure::Protocol("the protocol panicked".into())));
            // Nobody listens any more if the session was dropped.
            let _ = link.events.send(Event::Ended(ended));
        })?;
        Ok(Session { inbox: Some(to_thread), events: from_thread, thread: Some(thread) })
    }

    /// Hands a message over; only while the session waits for one.
    pub fn deliver(&self, message: Incoming) -> Result<(), Failure> {
        self.inbox.as_ref().ok_or(Failure::Abandoned)?.send(message).map_err(|_| Failure::Abandoned)
    }

    /// Runs until the protocol waits for a message or has ended; gives what it sent meanwhile.
    pub fn advance(&self) -> (Vec<Outgoing>, Standing) {
        let mut sent = Vec::new();
        loop {
            match self.events.recv() {
                Ok(Event::Send(message)) => sent.push(message),
                Ok(Event::Waiting) => return (sent, Standing::Waiting),
                Ok(Event::Ended(result)) => return (sent, Standing::Ended(result)),
                Err(_) => return (sent, Standing::Ended(Err(Failure::Abandoned))),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A protocol that waits sees the end of its inbox; one that computes runs to its next message first.
        self.inbox.take();
        drop(self.thread.take());
    }
}
