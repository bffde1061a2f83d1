"""Handing a request out: from the moment that this is recorded its holder may sign, and so may whoever gets the file.

A Bitcoin request is a plain PSBT (BIP174), which any standard signer reads; a Safe's is JSON (`chains.eth.safe_files`).
Neither holds a secret, and neither can be taken back.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from chains.btc.multisig import parse_multisig
from chains.btc.network import NETWORKS
from chains.btc.portable import for_any_signer
from chains.eth.safe import SafeMessage
from chains.eth.safe_files import SafeRequest, encode_request
from custody.ports import Clock, system_clock
from custody.signing import repository as transactions
from custody.signing.btc.site import BtcSite, cosigners_of
from custody.signing.cold.asking import Asking, request
from custody.signing.errors import NotAMember, NotHandedOut
from custody.signing.requests import read_request
from custody.signing.sessions import repository
from custody.signing.sessions.lifecycle import SessionState
from custody.signing.sessions.model import Session, Source
from custody.signing.site import Site
from custody.signing.verdicts import Verifier, check_covered
from custody.storage.db import Database, Tx
from custody.withdrawals import repository as withdrawals
from policies.bundle import BitcoinVault, EvmVault, WalletEntry

FileKind = Literal["psbt", "json"]
_LIVE: Final = (SessionState.OPEN, SessionState.COLLECTING)


@dataclass(frozen=True, slots=True)
class Ready:
    """A request that may be handed out now, and to whom."""

    asking: Asking
    holders: tuple[str, ...]
    kind: FileKind
    file: bytes
    """What the holders get; not before it is recorded that they do (`hand_out`)."""


def members_of(wallet: WalletEntry) -> tuple[str, ...]:
    """Ids of the cosigners or owners of a vault, in the bundle's order; none of other wallets."""
    if isinstance(wallet, BitcoinVault):
        return tuple(each.id for each in wallet.cosigners)
    return tuple(each.id for each in wallet.owners) if isinstance(wallet, EvmVault) else ()


def prepare(
    db: Database,
    site: Site,
    session_id: UUID,
    holders: Sequence[str],
    verifiers: Sequence[Verifier],
    *,
    daemons: Collection[str] = (),
    clock: Clock = system_clock,
) -> Ready:
    """Everything that speaks against handing a request out is looked at, a verifier's word on its payments included.

    Args:
        db: the database, as the workers' role.
        site: of the vault.
        session_id: of the request.
        holders: to whom it goes, by their ids in the vault.
        verifiers: who says that customers' ledgers cover payments.
        daemons: members that are signers of ours: they get no files.
        clock: UNIX seconds.

    Raises:
        NotFound: there is no such request.
        NotAMember: a holder is none of the vault's, or a signer of ours.
        NotHandedOut: says why not now.
        Refused: a verifier says that a payment is not covered.
        SignerUnavailable: no verifier answers, and it makes payments.
    """
    with db.snapshot() as tx:
        asking = request(tx, session_id)
        _check_open(tx, site, asking, now=clock())
    _check_holders(site, asking.session, holders, daemons)
    check_covered(read_request(asking.version.request), verifiers)
    kind, file = _file_of(site, asking)
    return Ready(asking, tuple(dict.fromkeys(holders)), kind, file)


def hand_out(tx: Tx, site: Site, ready: Ready, *, now: int) -> None:
    """Record that the holders get the request; the caller writes the file after this is committed. Again changes
    nothing but the time.

    Raises:
        NotHandedOut: what spoke for it has changed.
    """
    session = repository.lock(tx, ready.asking.session.id)
    _check_open(tx, site, request(tx, session.id), now=now)
    for holder in ready.holders:
        repository.note_asked(tx, session, holder, Source.FILE)


def _check_open(tx: Tx, site: Site, asking: Asking, *, now: int) -> None:
    session = asking.session
    if session.wallet != site.wallet.id:
        raise NotHandedOut(f"the request is {session.wallet}'s, not {site.wallet.id}'s")
    if session.state not in _LIVE:
        raise NotHandedOut(f"the request is {session.state}: nobody is asked any more")
    if now >= session.expires_at.timestamp():
        raise NotHandedOut(f"the request has expired at {session.expires_at:%Y-%m-%d %H:%M} UTC")
    if not transactions.still_to_sign(tx, asking.version):
        raise NotHandedOut(
            f"its transaction is {asking.transaction.state}, its version {asking.version.state}"
        )
    if asking.transaction.kind not in site.allowed(tx):
        raise NotHandedOut(f"paying is halted: {site.halted(tx)}")
    for signed in read_request(asking.version.request).evidence.orders:
        why = site.halted(tx, signed.order.asset, signed.order.customer)
        if why is not None:
            raise NotHandedOut(f"it pays order {signed.order.id}, and {why}")
        if withdrawals.customer_state(tx, signed.order.customer) != "active":
            raise NotHandedOut(
                f"it pays order {signed.order.id}, and customer {signed.order.customer} is frozen"
            )


def _check_holders(site: Site, session: Session, holders: Sequence[str], daemons: Collection[str]) -> None:
    known = members_of(site.wallet)
    if not holders:
        raise NotAMember(f"to whom? {site.wallet.id} has {', '.join(known)}")
    for holder in holders:
        if holder not in known:
            raise NotAMember(f"{site.wallet.id} has no member {holder!r}: it has {', '.join(known)}")
        if holder in daemons:
            raise NotAMember(f"{holder} is a signer of ours, which is asked by itself")
        if holder in session.signed:
            raise NotHandedOut(f"{holder} has signed already")


def _file_of(site: Site, asking: Asking) -> tuple[FileKind, bytes]:
    raw = base64.b64decode(read_request(asking.version.request).transaction, validate=True)
    if isinstance(site.wallet, EvmVault):
        message = SafeMessage.decode(asking.version.unsigned)
        note = f"{asking.transaction.kind} of {asking.session.wallet}"
        expires_at = int(asking.session.expires_at.timestamp())
        return "json", encode_request(SafeRequest(message, expires_at, note))
    assert isinstance(site, BtcSite)
    members = [(each.origin, each.account) for each in cosigners_of(site.wallet)]
    wallet = parse_multisig(asking.session.threshold, members, NETWORKS[site.network.network])
    return "psbt", for_any_signer(raw, wallet.members)
