"""Bringing signatures back: whoever made them, whenever, in whatever order and company, each is verified and kept once.

A file is about one transaction, and says itself about which: its txid, or the hash that owners of a Safe sign, is
looked up among all that was ever asked for. What fits nothing is refused; of the rest only signatures are taken.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chains.btc.psbt import parse_psbt, read_brought, verified
from chains.errors import InvalidValue, NodeUnavailable, PermanentError
from chains.eth.address import checksummed, raw_address
from chains.eth.safe import key_of
from chains.eth.safe_files import SafeSignature, decode_signature
from custody.signing import repository as transactions
from custody.signing.btc.finish import cosigners_keys
from custody.signing.btc.site import BtcSite, cosigners_of
from custody.signing.cold.asking import Asking, request
from custody.signing.errors import NotOurs
from custody.signing.evm.safe_site import SafeSite
from custody.signing.requests import read_request
from custody.signing.sessions import repository
from custody.signing.sessions.lifecycle import SessionState
from custody.signing.sessions.model import Session
from custody.signing.sessions.service import bring
from custody.signing.site import Site
from custody.storage.db import Database
from signers.ports import InputSignature, SignResponse


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a file."""

    session: Session
    """As it is now."""
    kept: tuple[str, ...]
    """Members whose signatures are new."""
    known: tuple[str, ...]
    """Members whose signatures were here already."""
    refused: tuple[str, ...]
    """A sentence for each thing in it that was not taken."""
    objection: str | None
    """Once complete: what our node has against it. It is sent all the same when that is over."""


def take(db: Database, sites: Mapping[str, Site], raw: bytes) -> Taken:
    """Keep what a file has that is new, and complete what is complete by it. Again changes nothing.

    Args:
        db: the database, as the workers' role.
        sites: of the vaults, by their ids.
        raw: the file: a PSBT (binary, base64 or hexadecimal), a finished transaction, or a Safe's signature.

    Raises:
        InvalidValue: it is nothing that can be read.
        NotOurs: it is about nothing that we have asked for.
        DatabaseUnavailable, Conflict: try again.
    """
    content, signature = _about(raw)
    with db.snapshot() as tx:
        session = repository.of_content(tx, content)
        asking = None if session is None else request(tx, session.id)
    if asking is None:
        raise NotOurs(
            f"nobody was asked to sign {content}: a file of something else, or one that was altered"
        )
    site = sites.get(asking.session.wallet)
    if isinstance(site, BtcSite):
        given, refused = _of_psbt(site, asking, raw)
    elif isinstance(site, SafeSite) and signature is not None:
        given, refused = _of_owner(site, signature)
    else:
        raise NotOurs(f"the bundle has no vault {asking.session.wallet} that this could be for")
    kept: list[str] = []
    known: list[str] = []
    for member, response in given.items():
        was_known = member in asking.session.signed
        try:
            bring(db, site, asking.version, member, response)
        except PermanentError as error:
            refused.append(f"{member}: {error}")
        else:
            (known if was_known else kept).append(member)
    return _result(db, site, asking, kept, known, refused)


def _about(raw: bytes) -> tuple[str, SafeSignature | None]:
    if raw.lstrip()[:1] == b"{":
        signature = decode_signature(raw.strip())
        return signature.safe_tx_hash.hex(), signature
    try:
        return read_brought(raw).tx.txid.hex, None
    except InvalidValue as error:
        raise InvalidValue(
            f"neither a PSBT, nor a finished transaction, nor a Safe signature: {error}"
        ) from None


def _of_psbt(site: BtcSite, asking: Asking, raw: bytes) -> tuple[dict[str, SignResponse], list[str]]:
    """By cosigner, the signatures of those who have signed every input."""
    asked = base64.b64decode(read_request(asking.version.request).transaction, validate=True)
    found = verified(parse_psbt(asked), read_brought(raw))
    there = {(item.index, item.pubkey): item for item in found.signatures}
    refused = list(found.refused)
    given: dict[str, SignResponse] = {}
    for member, keys in cosigners_keys(
        cosigners_of(site.wallet), site.network.network, asking.version
    ).items():
        own = [there[index, key] for index, key in enumerate(keys) if (index, key) in there]
        if len(own) == len(keys):
            given[member] = SignResponse(
                signatures=tuple(
                    InputSignature(index=item.index, pubkey=item.pubkey.hex(), signature=item.signature.hex())
                    for item in own
                )
            )
        elif own:
            refused.append(f"{member} has signed {len(own)} of {len(keys)} inputs: every input, or none")
    return given, refused


def _of_owner(site: SafeSite, signature: SafeSignature) -> tuple[dict[str, SignResponse], list[str]]:
    owners = [each.id for each in site.wallet.owners if raw_address(each.address) == signature.owner]
    if not owners:
        return {}, [f"{checksummed(signature.owner)} is no owner of {site.wallet.id}"]
    key = key_of(signature.safe_tx_hash, signature.signature)
    one = InputSignature(index=0, pubkey=key.hex(), signature=signature.signature.hex())
    return {owners[0]: SignResponse(signatures=(one,))}, []


def _result(
    db: Database,
    site: Site,
    asking: Asking,
    kept: Sequence[str],
    known: Sequence[str],
    refused: Sequence[str],
) -> Taken:
    with db.snapshot() as tx:
        session = repository.get(tx, asking.session.id)
        transaction = transactions.find(tx, session.transaction_id)
    assert transaction is not None
    signed = transaction.versions[session.version - 1].signed
    objection = None
    if signed is not None and session.state is SessionState.COMPLETE:
        try:
            objection = site.objection(signed)
        except NodeUnavailable as error:
            objection = f"our node does not answer: {error}"
    return Taken(session, tuple(kept), tuple(known), tuple(refused), objection)
