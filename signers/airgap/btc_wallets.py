"""Registered Bitcoin wallets derived again: whose an output is, by two implementations, and at which place. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from chains.btc.address import address_text
from chains.btc.hd import AccountKey, Origin
from chains.btc.multisig import Member, Multisig, agreed_multisig_address, parse_multisig, with_checksum
from chains.btc.network import NETWORKS, BtcNetwork
from chains.btc.psbt import KeyOrigin
from chains.btc.script import KeyScript, key_script
from chains.errors import DerivationDisagreement, InvalidValue
from signers.airgap.keys import HolderKey
from signers.airgap.registered import KnownVault, Registered, RegisteredMember, RegisteredVault

Place = tuple[int, int]
"""Branch (0 receives, 1 is change) and index."""

_DESCRIPTOR: Final = re.compile(r"wsh\(sortedmulti\(([1-9][0-9]?),(.+)\)\)")
_KEY: Final = re.compile(r"\[([0-9a-f]{8}(?:/[0-9]{1,10}['h])+)\]([1-9A-HJ-NP-Za-km-z]{100,120})/<0;1>/\*")


def multisig_of(vault: RegisteredVault) -> Multisig:
    """A vault derived again from its members.

    Raises:
        InvalidValue: malformed.
        DerivationDisagreement: its descriptor is not its members' own.
    """
    members = [(member.origin, member.account) for member in vault.members]
    wallet = parse_multisig(vault.threshold, members, NETWORKS[vault.network])
    if wallet.descriptor != vault.descriptor:
        raise DerivationDisagreement(f"{vault.id}: its descriptor is another one than its keys give")
    return wallet


def read_descriptor(text: str, network: BtcNetwork) -> Multisig:
    """A wallet from its descriptor's text: `wsh(sortedmulti(m,[origin]xpub/<0;1>/*,...))#checksum`.

    Raises:
        InvalidValue: another form, another network's keys, or its checksum is missing or wrong.
    """
    body, _, checksum = text.strip().partition("#")
    if with_checksum(body).rpartition("#")[2] != checksum:
        raise InvalidValue("descriptor: its checksum (# and eight letters at the end) is missing or wrong")
    form = _DESCRIPTOR.fullmatch(body)
    keys = [_KEY.fullmatch(part) for part in form.group(2).split(",")] if form else []
    found = [key.groups() for key in keys if key is not None]
    if form is None or len(found) != len(keys):
        raise InvalidValue("descriptor: expected wsh(sortedmulti(m,[fingerprint/path]xpub/<0;1>/*,...))")
    members = [(origin.replace("h", "'"), xpub) for origin, xpub in found]
    return parse_multisig(int(form.group(1)), members, network)


def own_member(vault: RegisteredVault, key: HolderKey) -> RegisteredMember | None:
    """The holder's own place among a vault's members."""
    found = [m for m in vault.members if (m.origin, m.account) == (key.origin_text, key.xpub)]
    return found[0] if len(found) == 1 else None


def place_of(members: Sequence[RegisteredMember], keys: Sequence[KeyOrigin]) -> Place | None:
    """Where key origins say that an output lies in the wallet of these members; None: not there. Not believed yet."""
    origins = [Origin.parse(member.origin) for member in members]
    places = {
        origin.place(key.path) for key in keys for origin in origins if origin.fingerprint == key.fingerprint
    }
    known = {origin.fingerprint for origin in origins}
    if len(places) != 1 or any(key.fingerprint not in known for key in keys):
        return None
    return places.pop()


def derives(
    wallet: RegisteredVault | KnownVault, place: Place, script: bytes, keys: Sequence[KeyOrigin]
) -> bool:
    """Whether a wallet, derived again by two implementations, has this script and these keys at a place.

    Raises:
        DerivationDisagreement: the two do not agree.
    """
    network = NETWORKS[wallet.network]
    if isinstance(wallet, KnownVault) and wallet.kind != "wsh-sortedmulti":
        return _derives_single(wallet, place, script, keys, network)
    members = [Member.parse(member.origin, member.account, network) for member in wallet.members]
    multisig = Multisig(network, wallet.threshold, tuple(members))
    if multisig.script(*place) != script or not {*keys} <= {*multisig.behind(*place).keys}:
        return False
    return agreed_multisig_address(multisig, *place) == address_text(script, network)


def own_place(
    registered: Registered, key: HolderKey, script: bytes, reach: int
) -> tuple[str, int, int] | None:
    """Which wallet and place a script is at, looking at the first places of each branch; None: at none of them.

    Args:
        registered: what the holder registered.
        key: the holder's.
        script: of an address.
        reach: how many places of each branch are looked at.

    Raises:
        DerivationDisagreement: two implementations derive different addresses there.
    """
    for vault in registered.vaults:
        if own_member(vault, key) is None:
            continue
        wallet = multisig_of(vault)
        for index in range(reach):
            for branch in (0, 1):
                if wallet.script(branch, index) == script:
                    agreed_multisig_address(wallet, branch, index)
                    return vault.id, branch, index
    return None


def _derives_single(
    wallet: KnownVault, place: Place, script: bytes, keys: Sequence[KeyOrigin], network: BtcNetwork
) -> bool:
    """A wallet of one key, by coincurve and by embit."""
    from embit import bip32

    kind: KeyScript = "p2tr" if wallet.kind == "p2tr" else "p2wpkh"
    pubkey = AccountKey.parse(wallet.members[0].account, network, kind).pubkey(*place)
    again = bytes(bip32.HDKey.from_base58(wallet.members[0].account).derive(list(place)).key.sec())
    if again != pubkey:
        raise DerivationDisagreement(f"{wallet.id} at {place[0]}/{place[1]}: coincurve and embit differ")
    named = pubkey[1:] if kind == "p2tr" else pubkey
    return key_script(kind, pubkey) == script and [key.pubkey for key in keys] == [named]
