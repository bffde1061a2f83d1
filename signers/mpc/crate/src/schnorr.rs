//! Threshold Schnorr for taproot: frost-secp256k1-tr (RFC 9591's FROST with BIP340 and BIP341), carried out and nothing
//! more. Every party is its own coordinator: it sends its commitments and its share to all, and aggregates by itself.
//!
//! Round one of key generation and refresh needs a broadcast channel: everybody sends everybody a hash of what it got
//! (an echo broadcast), and goes on only if all are equal.

use std::collections::BTreeMap;

use cggmp24::generic_ec::{Point, Scalar};
use cggmp24::supported_curves::Secp256k1;
use frost_secp256k1_tr::keys::{dkg, refresh, KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare};
use frost_secp256k1_tr::{round1, round2, Identifier, SigningPackage, VerifyingKey};
use rand_core::OsRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::derive::child;
use crate::ecdsa::Public;
use crate::session::{Failure, Link, Output, Recipient};
use crate::wire::{decode, encode};

/// The chain code of every joint Schnorr key, as BIP328 has it for aggregate keys: there is no dealer to draw one.
pub const CHAIN_CODE: [u8; 32] = [
    0x86, 0x80, 0x87, 0xca, 0x02, 0xa6, 0xf9, 0x74, 0xc4, 0x59, 0x89, 0x24, 0xc3, 0x6b, 0x57, 0x76, 0x2d, 0x32, 0xcb,
    0x45, 0x71, 0x71, 0x67, 0xe3, 0x00, 0x62, 0x2c, 0x71, 0x67, 0xe3, 0x89, 0x65,
];

const ROUND_ONE: u8 = 1;
const ECHO: u8 = 2;
const ROUND_TWO: u8 = 3;

#[derive(Serialize, Deserialize)]
struct Share {
    index: u16,
    parties: u16,
    key: KeyPackage,
    public: PublicKeyPackage,
}

fn failed(error: frost_secp256k1_tr::Error) -> Failure {
    Failure::Protocol(error.to_string())
}

fn input(error: impl std::fmt::Display) -> Failure {
    Failure::Input(error.to_string())
}

/// Parties count from 0 outside, and from 1 in FROST.
fn identifier(index: u16) -> Result<Identifier, Failure> {
    index.checked_add(1).ok_or_else(|| Failure::Input("index too large".into()))?.try_into().map_err(input)
}

/// Messages of this session's parties, sorted by round; what comes early waits.
struct Rounds<'a> {
    link: &'a Link,
    me: u16,
    parties: u16,
    arrived: BTreeMap<(u8, u16), Vec<u8>>,
}

impl<'a> Rounds<'a> {
    fn new(link: &'a Link, me: u16, parties: u16) -> Self {
        Rounds { link, me, parties, arrived: BTreeMap::new() }
    }

    fn send(&self, recipient: Recipient, round: u8, content: &[u8]) -> Result<(), Failure> {
        self.link.send(recipient, [&[round], content].concat())
    }

    /// The messages of one round from everybody else, by index.
    fn all(&mut self, round: u8) -> Result<BTreeMap<u16, Vec<u8>>, Failure> {
        let others: Vec<u16> = (0..self.parties).filter(|index| *index != self.me).collect();
        while !others.iter().all(|index| self.arrived.contains_key(&(round, *index))) {
            let message = self.link.receive()?;
            let Some((kind, content)) = message.message.split_first() else {
                return Err(Failure::Protocol(format!("party {} sent nothing", message.sender)));
            };
            // Only round two of key generation and refresh is for one party alone.
            let known = matches!(*kind, ROUND_ONE | ECHO | ROUND_TWO) && others.contains(&message.sender);
            if !known || self.arrived.insert((*kind, message.sender), content.to_vec()).is_some() {
                return Err(Failure::Protocol(format!("party {} sent round {kind} unasked", message.sender)));
            }
        }
        Ok(others.iter().filter_map(|index| Some((*index, self.arrived.remove(&(round, *index))?))).collect())
    }
}

/// Round one to all, and a proof that all got the same.
fn broadcast(rounds: &mut Rounds, eid: &[u8], mine: &[u8]) -> Result<BTreeMap<u16, Vec<u8>>, Failure> {
    rounds.send(Recipient::All, ROUND_ONE, mine)?;
    let others = rounds.all(ROUND_ONE)?;
    let mut everything = others.clone();
    everything.insert(rounds.me, mine.to_vec());
    let mut hash = Sha256::new_with_prefix(b"strongroom:frost-echo:v1\n");
    hash.update((eid.len() as u64).to_be_bytes());
    hash.update(eid);
    for (index, content) in &everything {
        hash.update(index.to_be_bytes());
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    let digest = hash.finalize();
    rounds.send(Recipient::All, ECHO, &digest)?;
    for (index, echo) in rounds.all(ECHO)? {
        if echo[..] != digest[..] {
            return Err(Failure::Protocol(format!("party {index} was told other things in round one than this one")));
        }
    }
    Ok(others)
}

type FromOthers<T> = BTreeMap<Identifier, T>;

fn read<T>(
    messages: BTreeMap<u16, Vec<u8>>,
    parse: impl Fn(&[u8]) -> Result<T, frost_secp256k1_tr::Error>,
) -> Result<FromOthers<T>, Failure> {
    messages.into_iter().map(|(index, bytes)| Ok((identifier(index)?, parse(&bytes).map_err(failed)?))).collect()
}

/// The two rounds that key generation and refresh have in common.
fn deal(
    link: &Link,
    eid: &[u8],
    (me, parties): (u16, u16),
    (secret, package): (dkg::round1::SecretPackage, dkg::round1::Package),
    second: impl Fn(
        dkg::round1::SecretPackage,
        &FromOthers<dkg::round1::Package>,
    )
        -> Result<(dkg::round2::SecretPackage, FromOthers<dkg::round2::Package>), frost_secp256k1_tr::Error>,
) -> Result<(dkg::round2::SecretPackage, FromOthers<dkg::round1::Package>, FromOthers<dkg::round2::Package>), Failure> {
    let mut rounds = Rounds::new(link, me, parties);
    let first = broadcast(&mut rounds, eid, &package.serialize().map_err(failed)?)?;
    let first = read(first, dkg::round1::Package::deserialize)?;
    let (secret, packages) = second(secret, &first).map_err(failed)?;
    for index in (0..parties).filter(|index| *index != me) {
        let package = packages.get(&identifier(index)?).ok_or_else(|| Failure::Protocol("a party lacks".into()))?;
        let bytes = Zeroizing::new(package.serialize().map_err(failed)?);
        rounds.send(Recipient::One(index), ROUND_TWO, &bytes)?;
    }
    let second = read(rounds.all(ROUND_TWO)?, dkg::round2::Package::deserialize)?;
    Ok((secret, first, second))
}

/// Distributed key generation, for every party at once; gives this party's share.
pub fn keygen(link: &Link, eid: &[u8], me: u16, parties: u16, threshold: u16) -> Result<Output, Failure> {
    let start = dkg::part1(identifier(me)?, parties, threshold, OsRng).map_err(input)?;
    let (secret, first, second) = deal(link, eid, (me, parties), start, |secret, first| dkg::part2(secret, first))?;
    let (key, public) = dkg::part3(&secret, &first, &second).map_err(failed)?;
    encode(&Share { index: me, parties, key, public })
}

/// New shares of the same key, for every party at once; old and new ones do not mix.
pub fn refreshed(link: &Link, eid: &[u8], share: &[u8]) -> Result<Output, Failure> {
    let Share { index, parties, key, public } = decode(share).map_err(Failure::Input)?;
    let start = refresh::refresh_dkg_part1(identifier(index)?, parties, *key.min_signers(), OsRng).map_err(input)?;
    let (secret, first, second) =
        deal(link, eid, (index, parties), start, |secret, first| refresh::refresh_dkg_part2(secret, first))?;
    let (key, public) = refresh::refresh_dkg_shares(&secret, &first, &second, public, key).map_err(failed)?;
    encode(&Share { index, parties, key, public })
}

fn shifted(share: &SigningShare, by: &Scalar<Secp256k1>) -> Result<SigningShare, Failure> {
    let bytes = Zeroizing::new(share.serialize());
    let scalar = Scalar::<Secp256k1>::from_be_bytes(&*bytes).map_err(|_| Failure::Input("not a share".into()))?;
    SigningShare::deserialize(&(scalar + by).to_be_bytes()).map_err(input)
}

fn moved(point: &[u8], by: &Scalar<Secp256k1>) -> Result<Vec<u8>, Failure> {
    let point = Point::<Secp256k1>::from_bytes(point).map_err(|_| Failure::Input("not a point".into()))?;
    Ok((point + Point::generator() * by).to_bytes(true).to_vec())
}

/// The share of the child at `path`: BIP32 adds one shift to the secret, hence to every share of it and every public one.
fn of_child(share: Share, path: &[u32]) -> Result<Share, Failure> {
    let joint = share.public.verifying_key().serialize().map_err(input)?;
    let shift = child(&joint, CHAIN_CODE, path)?.shift;
    let verifying = |share: &VerifyingShare| {
        VerifyingShare::deserialize(&moved(&share.serialize().map_err(input)?, &shift)?).map_err(input)
    };
    let joint = VerifyingKey::deserialize(&moved(&joint, &shift)?).map_err(input)?;
    let shares = share.public.verifying_shares().iter().map(|(id, one)| Ok((*id, verifying(one)?)));
    let shares = shares.collect::<Result<BTreeMap<_, _>, Failure>>()?;
    let (old, threshold) = (&share.key, *share.key.min_signers());
    let signing = shifted(old.signing_share(), &shift)?;
    let key = KeyPackage::new(*old.identifier(), signing, verifying(old.verifying_share())?, joint, threshold);
    let public = PublicKeyPackage::new(shares, joint, Some(threshold));
    Ok(Share { key, public, ..share })
}

/// Which key signs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spend {
    /// The child itself (BIP340).
    Child,
    /// The taproot output key of the child, without scripts (BIP341, BIP86).
    KeyPath,
}

/// One signature of 64 bytes (BIP340) over a message of 32 by exactly the threshold of parties.
///
/// `signers` are the indices that the signers had at key generation, in rising order; `position` is this party's place
/// among them.
pub fn sign(
    link: &Link,
    position: u16,
    signers: &[u16],
    share: &[u8],
    path: &[u32],
    message: &[u8; 32],
    spend: Spend,
) -> Result<Output, Failure> {
    let share: Share = decode(share).map_err(Failure::Input)?;
    let count = u16::try_from(signers.len()).map_err(input)?;
    let rising = signers.windows(2).all(|pair| pair[0] < pair[1]);
    if count != *share.key.min_signers() || !rising || signers.last().is_some_and(|last| *last >= share.parties) {
        return Err(Failure::Input(format!("{signers:?} are no {} parties in rising order", share.key.min_signers())));
    }
    if signers.get(usize::from(position)) != Some(&share.index) {
        return Err(Failure::Input(format!("the share is of party {}, not of signer {position}", share.index)));
    }
    let share = of_child(share, path)?;
    let mut rounds = Rounds::new(link, position, count);
    let by_index = |found: BTreeMap<u16, Vec<u8>>| {
        found.into_iter().map(|(at, bytes)| (signers[usize::from(at)], bytes)).collect::<BTreeMap<u16, Vec<u8>>>()
    };
    let (nonces, commitments) = round1::commit(share.key.signing_share(), &mut OsRng);
    rounds.send(Recipient::All, ROUND_ONE, &commitments.serialize().map_err(failed)?)?;
    let mut all = read(by_index(rounds.all(ROUND_ONE)?), round1::SigningCommitments::deserialize)?;
    all.insert(*share.key.identifier(), commitments);
    let package = SigningPackage::new(all, message);
    let mine = match spend {
        Spend::Child => round2::sign(&package, &nonces, &share.key),
        Spend::KeyPath => round2::sign_with_tweak(&package, &nonces, &share.key, None),
    }
    .map_err(failed)?;
    rounds.send(Recipient::All, ROUND_TWO, &mine.serialize())?;
    let mut shares = read(by_index(rounds.all(ROUND_TWO)?), round2::SignatureShare::deserialize)?;
    shares.insert(*share.key.identifier(), mine);
    let signature = match spend {
        Spend::Child => frost_secp256k1_tr::aggregate(&package, &shares, &share.public),
        Spend::KeyPath => frost_secp256k1_tr::aggregate_with_tweak(&package, &shares, &share.public, None),
    }
    .map_err(failed)?;
    Ok(Output::new(signature.serialize().map_err(failed)?))
}

/// What a share says of its key-set.
pub fn public(share: &[u8]) -> Result<Public, Failure> {
    let share: Share = decode(share).map_err(Failure::Input)?;
    Ok(Public {
        key: share.public.verifying_key().serialize().map_err(input)?,
        chain_code: CHAIN_CODE.to_vec(),
        index: share.index,
        parties: share.parties,
        threshold: *share.key.min_signers(),
    })
}
