//! Threshold signing for Strongroom: sessions of audited protocols, for Python. No sockets, no files, no clock.
//!
//! A session runs on its own thread. `start` and `deliver` release the GIL, give back the messages to be sent as
//! `(recipient | None, bytes)`, and wait until the protocol needs another message; `result` is what came of it.

mod derive;
mod ecdsa;
mod schnorr;
mod session;
mod wire;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Mutex;

use crate::session::{Failure, Incoming, Link, Outgoing, Output, Recipient, Standing};

create_exception!(strongroom_mpc, ProtocolFailed, PyException, "Somebody did not follow the protocol.");

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Protocol(why) => ProtocolFailed::new_err(why),
            Failure::Input(why) => PyValueError::new_err(why),
            Failure::Abandoned => PyRuntimeError::new_err("the session is over"),
        }
    }
}

type Sent = Vec<(Option<u16>, Vec<u8>)>;

fn sent(messages: Vec<Outgoing>) -> Sent {
    let to = |recipient| match recipient {
        Recipient::All => None,
        Recipient::One(index) => Some(index),
    };
    messages.into_iter().map(|each| (to(each.recipient), each.message)).collect()
}

struct Running {
    session: session::Session,
    started: bool,
    ended: Option<Result<Output, Failure>>,
}

/// One party's part in one run of a protocol.
#[pyclass(frozen, module = "strongroom_mpc")]
struct Session {
    running: Mutex<Running>,
}

impl Session {
    fn of<F>(protocol: F) -> PyResult<Self>
    where
        F: FnOnce(&Link) -> Result<Output, Failure> + Send + 'static,
    {
        let session = session::Session::start(protocol).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(Session { running: Mutex::new(Running { session, started: false, ended: None }) })
    }

    fn step(&self, message: Option<Incoming>) -> Result<Sent, Failure> {
        let mut running = self.running.lock().map_err(|_| Failure::Abandoned)?;
        if running.ended.is_some() || running.started != message.is_some() {
            return Err(Failure::Input("the session takes no message now".into()));
        }
        running.started = true;
        if let Some(message) = message {
            running.session.deliver(message)?;
        }
        let (messages, standing) = running.session.advance();
        if let Standing::Ended(result) = standing {
            running.ended = Some(result);
        }
        Ok(sent(messages))
    }
}

#[pymethods]
impl Session {
    /// Begins; gives the first messages, `(recipient, bytes)` each, of which the recipient is None for all.
    fn start(&self, py: Python<'_>) -> PyResult<Sent> {
        Ok(py.detach(|| self.step(None))?)
    }

    /// Takes one message of party `sender`; gives what is to be sent now.
    #[pyo3(signature = (sender, message, *, broadcast))]
    fn deliver(&self, py: Python<'_>, sender: u16, message: Vec<u8>, broadcast: bool) -> PyResult<Sent> {
        Ok(py.detach(|| self.step(Some(Incoming { sender, broadcast, message })))?)
    }

    /// Whether the protocol has ended, well or not.
    #[getter]
    fn ended(&self) -> bool {
        self.running.lock().map(|running| running.ended.is_some()).unwrap_or(true)
    }

    /// What came of it; once. Raises: ProtocolFailed, ValueError (wrong input), RuntimeError (not ended, or taken).
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let mut running = self.running.lock().map_err(|_| Failure::Abandoned)?;
        let ended = running.ended.replace(Err(Failure::Abandoned));
        match ended {
            Some(Ok(output)) => Ok(PyBytes::new(py, &output)),
            Some(Err(failure)) => Err(failure.into()),
            None => {
                running.ended = None;
                Err(PyRuntimeError::new_err("the session has not ended"))
            }
        }
    }

    fn __repr__(&self) -> &'static str {
        "Session([secret])"
    }
}

fn digest(bytes: &[u8]) -> PyResult<[u8; 32]> {
    bytes.try_into().map_err(|_| PyValueError::new_err(format!("{} bytes to sign, expected 32", bytes.len())))
}

/// Safe primes for one auxiliary set-up; takes half a minute.
#[pyfunction]
fn ecdsa_primes(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    let primes = py.detach(ecdsa::primes)?;
    Ok(PyBytes::new(py, &primes))
}

#[pyfunction]
fn ecdsa_keygen(eid: Vec<u8>, index: u16, parties: u16, threshold: u16) -> PyResult<Session> {
    Session::of(move |link| ecdsa::keygen(link, &eid, index, parties, threshold))
}

#[pyfunction]
fn ecdsa_aux(eid: Vec<u8>, index: u16, parties: u16, primes: Vec<u8>) -> PyResult<Session> {
    let primes = Output::new(primes);
    Session::of(move |link| ecdsa::aux(link, &eid, index, parties, &primes))
}

/// The incomplete share of a key generation and the parameters of an auxiliary set-up as one share.
#[pyfunction]
fn ecdsa_complete<'py>(py: Python<'py>, incomplete: Vec<u8>, aux: Vec<u8>) -> PyResult<Bound<'py, PyBytes>> {
    let (incomplete, aux) = (Output::new(incomplete), Output::new(aux));
    let share = py.detach(|| ecdsa::complete(&incomplete, &aux))?;
    Ok(PyBytes::new(py, &share))
}

#[pyfunction]
fn ecdsa_sign(
    eid: Vec<u8>,
    position: u16,
    signers: Vec<u16>,
    share: Vec<u8>,
    path: Vec<u32>,
    digest32: &[u8],
) -> PyResult<Session> {
    let (share, digest) = (Output::new(share), digest(digest32)?);
    Session::of(move |link| ecdsa::sign(link, &eid, position, &signers, &share, &path, &digest))
}

#[pyfunction]
fn schnorr_keygen(eid: Vec<u8>, index: u16, parties: u16, threshold: u16) -> PyResult<Session> {
    Session::of(move |link| schnorr::keygen(link, &eid, index, parties, threshold))
}

#[pyfunction]
fn schnorr_refresh(eid: Vec<u8>, share: Vec<u8>) -> PyResult<Session> {
    let share = Output::new(share);
    Session::of(move |link| schnorr::refreshed(link, &eid, &share))
}

#[pyfunction]
#[pyo3(signature = (position, signers, share, path, message32, *, taproot))]
fn schnorr_sign(
    position: u16,
    signers: Vec<u16>,
    share: Vec<u8>,
    path: Vec<u32>,
    message32: &[u8],
    taproot: bool,
) -> PyResult<Session> {
    let (share, message) = (Output::new(share), digest(message32)?);
    let spend = if taproot { schnorr::Spend::KeyPath } else { schnorr::Spend::Child };
    Session::of(move |link| schnorr::sign(link, position, &signers, &share, &path, &message, spend))
}

type Told = (Vec<u8>, Vec<u8>, u16, u16, u16);

fn told(public: ecdsa::Public) -> Told {
    (public.key, public.chain_code, public.index, public.parties, public.threshold)
}

/// (key of 33 bytes, chain code of 32, index, parties, threshold) as the share has them.
#[pyfunction]
fn ecdsa_public(share: Vec<u8>) -> PyResult<Told> {
    Ok(told(ecdsa::public(&Output::new(share))?))
}

/// As `ecdsa_public`, for a Schnorr share.
#[pyfunction]
fn schnorr_public(share: Vec<u8>) -> PyResult<Told> {
    Ok(told(schnorr::public(&Output::new(share))?))
}

/// The child (33 bytes, chain code of 32) at a non-hardened path below a key (BIP32).
#[pyfunction]
fn child_key(key: &[u8], chain_code: &[u8], path: Vec<u32>) -> PyResult<(Vec<u8>, Vec<u8>)> {
    let found = derive::child(key, digest(chain_code)?, &path)?;
    Ok((found.key, found.chain_code.to_vec()))
}

#[pymodule]
fn strongroom_mpc(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ProtocolFailed", module.py().get_type::<ProtocolFailed>())?;
    module.add_class::<Session>()?;
    module.add_function(wrap_pyfunction!(ecdsa_primes, module)?)?;
    module.add_function(wrap_pyfunction!(ecdsa_keygen, module)?)?;
    module.add_function(wrap_pyfunction!(ecdsa_aux, module)?)?;
    module.add_function(wrap_pyfunction!(ecdsa_complete, module)?)?;
    module.add_function(wrap_pyfunction!(ecdsa_sign, module)?)?;
    module.add_function(wrap_pyfunction!(ecdsa_public, module)?)?;
    module.add_function(wrap_pyfunction!(schnorr_keygen, module)?)?;
    module.add_function(wrap_pyfunction!(schnorr_refresh, module)?)?;
    module.add_function(wrap_pyfunction!(schnorr_sign, module)?)?;
    module.add_function(wrap_pyfunction!(schnorr_public, module)?)?;
    module.add_function(wrap_pyfunction!(child_key, module)?)?;
    Ok(())
}
