//! Threshold ECDSA on secp256k1: cggmp24 (CGGMP24, ia.cr/2021/060), carried out and nothing more.
//!
//! Key generation gives an incomplete share; the auxiliary set-up gives Paillier and Pedersen parameters; both together
//! are a share that signs. Derivation is non-hardened BIP32 of the joint key.

use cggmp24::generic_ec::Scalar;
use cggmp24::key_share::{AuxInfo, DirtyIncompleteKeyShare};
use cggmp24::security_level::SecurityLevel128 as Level;
use cggmp24::signing::PrehashedDataToSign;
use cggmp24::supported_curves::Secp256k1;
use cggmp24::{ExecutionId, IncompleteKeyShare, KeyShare, PregeneratedPrimes};
use rand_core::OsRng;
use round_based::state_machine::{ProceedResult, StateMachine};
use round_based::{Incoming as Received, MessageDestination, MessageType};
use serde::{de::DeserializeOwned, Serialize};

use crate::session::{Failure, Link, Output, Recipient};
use crate::wire::{decode, encode};

/// What everybody may know of a key-set, as one party's share tells it.
pub struct Public {
    /// 33 bytes, SEC 1 compressed.
    pub key: Vec<u8>,
    /// 32 bytes (BIP32).
    pub chain_code: Vec<u8>,
    pub index: u16,
    pub parties: u16,
    pub threshold: u16,
}

fn drive<S, T>(mut machine: S, link: &Link) -> Result<T, Failure>
where
    S: StateMachine<Output = T>,
    S::Msg: Serialize + DeserializeOwned,
{
    let mut received = 0;
    loop {
        match machine.proceed() {
            ProceedResult::SendMsg(message) => {
                let recipient = match message.recipient {
                    MessageDestination::AllParties => Recipient::All,
                    MessageDestination::OneParty(index) => Recipient::One(index),
                };
                link.send(recipient, encode(&message.msg)?.to_vec())?;
            }
            ProceedResult::NeedsOneMoreMessage => {
                let message = link.receive()?;
                let msg = decode(&message.message).map_err(Failure::Protocol)?;
                let msg_type = if message.broadcast { MessageType::Broadcast } else { MessageType::P2P };
                received += 1;
                machine
                    .received_msg(Received { id: received, sender: message.sender, msg_type, msg })
                    .map_err(|_| Failure::Protocol("a message came unasked".into()))?;
            }
            ProceedResult::Yielded => {}
            ProceedResult::Output(output) => return Ok(output),
            ProceedResult::Error(error) => return Err(Failure::Protocol(chain_of(&error))),
        }
    }
}

/// The error and its causes in one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn failed<E: std::error::Error>(error: E) -> Failure {
    Failure::Protocol(chain_of(&error))
}

fn input(error: impl std::fmt::Display) -> Failure {
    Failure::Input(error.to_string())
}

/// Four safe primes for one party's auxiliary set-up; takes long.
pub fn primes() -> Result<Output, Failure> {
    encode(&PregeneratedPrimes::<Level>::generate(&mut OsRng))
}

/// Distributed key generation, for every party at once; gives an incomplete share.
pub fn keygen(link: &Link, eid: &[u8], index: u16, parties: u16, threshold: u16) -> Result<Output, Failure> {
    let machine = cggmp24::keygen::<Secp256k1>(ExecutionId::new(eid), index, parties)
        .set_threshold(threshold)
        .hd_wallet(true)
        .enforce_reliable_broadcast(true);
    let share = drive(machine.into_state_machine(&mut OsRng), link)?.map_err(failed)?;
    encode(&share)
}

/// The auxiliary set-up, for every party at once; `primes` are used for this once only.
pub fn aux(link: &Link, eid: &[u8], index: u16, parties: u16, primes: &[u8]) -> Result<Output, Failure> {
    let primes: PregeneratedPrimes<Level> = decode(primes).map_err(Failure::Input)?;
    let machine = cggmp24::aux_info_gen(ExecutionId::new(eid), index, parties, primes).enforce_reliable_broadcast(true);
    let info = drive(machine.into_state_machine(&mut OsRng), link)?.map_err(failed)?;
    encode(&info)
}

/// An incomplete share and auxiliary parameters as one share, checked against each other.
pub fn complete(incomplete: &[u8], aux: &[u8]) -> Result<Output, Failure> {
    let incomplete: IncompleteKeyShare<Secp256k1> = decode(incomplete).map_err(Failure::Input)?;
    let aux: AuxInfo<Level> = decode(aux).map_err(Failure::Input)?;
    encode(&KeyShare::from_parts((incomplete, aux)).map_err(input)?)
}

/// One signature over a digest of 32 bytes by exactly the threshold of parties.
///
/// `signers` are the indices that the signers had at key generation, in the order that all of them use; `position` is
/// this party's place among them. Gives r and s, 32 bytes each, s low (BIP146).
pub fn sign(
    link: &Link,
    eid: &[u8],
    position: u16,
    signers: &[u16],
    share: &[u8],
    path: &[u32],
    digest: &[u8; 32],
) -> Result<Output, Failure> {
    let share: KeyShare<Secp256k1, Level> = decode(share).map_err(Failure::Input)?;
    let data = PrehashedDataToSign::from_scalar(Scalar::<Secp256k1>::from_be_bytes_mod_order(digest));
    let builder = cggmp24::signing(ExecutionId::new(eid), position, signers, &share)
        .enforce_reliable_broadcast(true)
        .set_derivation_path(path.iter().copied())
        .map_err(input)?;
    let signature = drive(builder.sign_sync(&mut OsRng, &data), link)?.map_err(failed)?.normalize_s();
    let mut bytes = vec![0; 64];
    signature.write_to_slice(&mut bytes);
    Ok(Output::new(bytes))
}

/// What an incomplete or a complete share says of its key-set.
pub fn public(share: &[u8]) -> Result<Public, Failure> {
    match decode::<KeyShare<Secp256k1, Level>>(share) {
        Ok(complete) => told(&complete.core),
        Err(_) => told(&*decode::<IncompleteKeyShare<Secp256k1>>(share).map_err(Failure::Input)?),
    }
}

fn told(core: &DirtyIncompleteKeyShare<Secp256k1>) -> Result<Public, Failure> {
    let info = &core.key_info;
    let chain_code = info.chain_code.ok_or_else(|| Failure::Input("a share without a chain code".into()))?;
    let setup = info.vss_setup.as_ref().ok_or_else(|| Failure::Input("a share without a threshold".into()))?;
    Ok(Public {
        key: info.shared_public_key.to_bytes(true).to_vec(),
        chain_code: chain_code.to_vec(),
        index: core.i,
        parties: u16::try_from(info.public_shares.len()).map_err(input)?,
        threshold: setup.min_signers,
    })
}
