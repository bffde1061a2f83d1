"""Deposit and change keys from an account's public extended key (BIP32, BIP84, BIP86). Pure; no private key enters.

Addresses are derived by two independent implementations that must agree before one is given out: this
module (coincurve) and `bip_utils`.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import coincurve
from embit import base58

from chains.btc.address import address_text, p2wpkh_address_text
from chains.btc.network import NETWORKS, BtcNetwork
from chains.btc.script import KeyScript, hash160, key_script
from chains.errors import DerivationDisagreement, InvalidValue

HARDENED: Final = 0x8000_0000
"""First hardened child number (BIP32)."""

RECEIVE: Final = 0
"""Branch of deposit addresses (BIP44)."""

CHANGE: Final = 1
"""Branch of change addresses (BIP44)."""

_EXTENDED_KEY_BYTES: Final = 78
_ACCOUNT_DEPTH: Final = 3
_ORIGIN: Final = re.compile(r"[0-9a-f]{8}(/(0|[1-9][0-9]{0,9})'){1,6}")


@dataclass(frozen=True, slots=True)
class _Node:
    """A public key with its chain code: what BIP32 derives children from."""

    key: coincurve.PublicKey
    pubkey: bytes
    chain_code: bytes

    def child(self, number: int) -> tuple[coincurve.PublicKey, bytes]:
        """CKDpub of BIP32: the child's key and chain code."""
        digest = hmac.digest(self.chain_code, self.pubkey + number.to_bytes(4, "big"), "sha512")
        try:
            # point(I_L) + K_par. Multiplying the generator and adding is faster than coincurve's `add`,
            # which multiplies by the generic routine.
            tweak = coincurve.PublicKey.from_valid_secret(digest[:32])
            return coincurve.PublicKey.combine_keys([self.key, tweak]), digest[32:]
        except ValueError as error:
            raise InvalidValue(f"child {number}: no key exists at this index, use the next one") from error


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an account key comes from (BIP380): `d34db33f/84'/1'/0'`."""

    fingerprint: bytes
    """First 4 bytes of HASH160 of the master public key (BIP32)."""
    path: tuple[int, ...]
    """Hardened steps from the master key, with bit 31."""

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read a fingerprint and at least one hardened step.

        Raises:
            InvalidValue: any other form.
        """
        if _ORIGIN.fullmatch(text) is None:
            raise InvalidValue(
                f"origin {text[:100]!r}: expected a fingerprint and a path such as d34db33f/84'/1'/0'"
            )
        fingerprint, *steps = text.split("/")
        path = tuple(int(step[:-1]) + HARDENED for step in steps)
        if max(path) >= 2 * HARDENED:
            raise InvalidValue(f"origin {text!r}: a step is at most {HARDENED - 1}")
        return cls(bytes.fromhex(fingerprint), path)

    def place(self, path: tuple[int, ...] | None) -> tuple[int, int] | None:
        """Branch (0 or 1) and index of a whole path from the master, None for a path elsewhere."""
        if path is None or len(path) != len(self.path) + 2 or path[:-2] != self.path:
            return None
        branch, index = path[-2:]
        return (branch, index) if branch in (RECEIVE, CHANGE) and 0 <= index < HARDENED else None


@dataclass(frozen=True, slots=True)
class BranchKeys:
    """A public extended key and its two branches."""

    network: BtcNetwork
    xpub: str
    """The text it was read from: `xpub...` on main, `tpub...` elsewhere."""
    fingerprint: bytes
    """First 4 bytes of HASH160 of this key (BIP32). Not the master key's fingerprint."""
    _branches: tuple[_Node, _Node] = field(repr=False, compare=False)

    @classmethod
    def of_depth(cls, text: str, network: BtcNetwork, depth: int) -> BranchKeys:
        """Read an `xpub` or `tpub` that is `depth` steps below its master and whose last step is hardened.

        Raises:
            InvalidValue: bad checksum, a private key, another network's, another depth, or no curve point.
        """
        return cls(network, text, *_branches_of(text, network, depth))

    def pubkey(self, branch: int, index: int) -> bytes:
        """The compressed public key (33 bytes) at branch/index below this key.

        Raises:
            InvalidValue: branch is neither 0 nor 1, or the index is hardened or negative.
        """
        if branch not in (RECEIVE, CHANGE) or not 0 <= index < HARDENED:
            raise InvalidValue(f"path {branch}/{index}: expected branch 0 or 1, index 0 to {HARDENED - 1}")
        pubkey: bytes = self._branches[branch].child(index)[0].format()
        return pubkey


@dataclass(frozen=True, slots=True)
class AccountKey(BranchKeys):
    """The public extended key of an account, m/84h/coinh/accounth (BIP84) or m/86h/coinh/accounth (BIP86).

    Construct it with `AccountKey.parse`.
    """

    kind: KeyScript
    """How its keys lock coins."""

    @classmethod
    def parse(cls, text: str, network: BtcNetwork, kind: KeyScript = "p2wpkh") -> AccountKey:
        """Read an `xpub` or `tpub` of depth 3 whose last step is hardened.

        Raises:
            InvalidValue: bad checksum, a private key, another network's, another depth, or no curve point.
        """
        return cls(network, text, *_branches_of(text, network, _ACCOUNT_DEPTH), kind)

    def script(self, branch: int, index: int) -> bytes:
        """The script at branch/index: 22 bytes (P2WPKH) or 34 (P2TR). Raises InvalidValue like `pubkey`."""
        return key_script(self.kind, self.pubkey(branch, index))

    def address(self, branch: int, index: int) -> str:
        """The address at branch/index. Raises InvalidValue like `pubkey`."""
        if self.kind == "p2wpkh":
            return p2wpkh_address_text(hash160(self.pubkey(branch, index)), self.network)
        return address_text(self.script(branch, index), self.network)

    def addresses(self, branch: int, start: int, count: int) -> list[str]:
        """`count` addresses from branch/start on, in order.

        Raises:
            InvalidValue: like `pubkey`, or a negative count.
        """
        if count < 0:
            raise InvalidValue(f"count {count}: expected 0 or more")
        return [self.address(branch, index) for index in range(start, start + count)]


def second_opinion(
    xpub: str, branch: int, index: int, network: BtcNetwork, kind: KeyScript = "p2wpkh"
) -> str:
    """The address at branch/index by `bip_utils`, sharing no code with `AccountKey`.

    Raises:
        InvalidValue: bip_utils can't read the key or the path.
    """
    # These import in 0.5 s: keep them lazy.
    from bip_utils import Bip32KeyError, Bip32PathError, P2TRAddrEncoder, P2WPKHAddrEncoder
    from bip_utils.bip.bip32 import Bip32KeyNetVersions

    versions = Bip32KeyNetVersions(network.xpub_version, network.xprv_version)
    encoder = P2TRAddrEncoder if kind == "p2tr" else P2WPKHAddrEncoder
    try:
        key = _second_opinion_branch(xpub, branch, versions.Public(), versions.Private()).ChildKey(index)
        return str(encoder.EncodeKey(key.PublicKey().KeyObject(), hrp=network.bech32_hrp))
    except (Bip32KeyError, Bip32PathError, ValueError) as error:
        raise InvalidValue(f"path {branch}/{index}: {error}") from error


def agreed_address(account: AccountKey, branch: int, index: int) -> str:
    """The address at branch/index on which both implementations agree.

    Raises:
        DerivationDisagreement: they don't; neither address may be used.
        InvalidValue: like `AccountKey.pubkey`.
    """
    ours = account.address(branch, index)
    theirs = second_opinion(account.xpub, branch, index, account.network, account.kind)
    if ours != theirs:
        raise DerivationDisagreement(f"path {branch}/{index}: {ours} by coincurve, {theirs} by bip_utils")
    return ours


def _branches_of(text: str, network: BtcNetwork, depth: int) -> tuple[bytes, tuple[_Node, _Node]]:
    """Fingerprint and branches of an extended key's text."""
    payload = _decode(text, network)
    found, child_number = payload[4], int.from_bytes(payload[9:13], "big")
    if found != depth or child_number < HARDENED:
        raise InvalidValue(f"extended key of depth {found}: expected {depth}, and a hardened last step")
    try:
        key = coincurve.PublicKey(payload[45:])
    except ValueError as error:
        raise InvalidValue("extended key: its public key is not on the curve") from error
    node = _Node(key, payload[45:], payload[13:45])
    receive, change = (_Node(k, k.format(), code) for k, code in (node.child(RECEIVE), node.child(CHANGE)))
    return hash160(node.pubkey)[:4], (receive, change)


@lru_cache(maxsize=64)
def _second_opinion_branch(xpub: str, branch: int, public: bytes, private: bytes) -> Any:
    from bip_utils import Bip32Slip10Secp256k1
    from bip_utils.bip.bip32 import Bip32KeyNetVersions

    return Bip32Slip10Secp256k1.FromExtendedKey(xpub, Bip32KeyNetVersions(public, private)).ChildKey(branch)


def _decode(text: str, network: BtcNetwork) -> bytes:
    """The 78 bytes of a public extended key of `network`. Errors never repeat the text: it may be private."""
    try:
        payload: bytes = base58.decode_check(text) if len(text) <= 120 else b""
    except ValueError:
        raise InvalidValue("extended key: bad checksum, or not base58") from None
    if any(payload[:4] == known.xprv_version for known in NETWORKS.values()):
        raise InvalidValue("extended key: this is a PRIVATE key; only xpub or tpub belongs here")
    if len(payload) != _EXTENDED_KEY_BYTES:
        raise InvalidValue(f"extended key of {len(payload)} bytes: expected {_EXTENDED_KEY_BYTES}")
    if payload[:4] != network.xpub_version:
        raise InvalidValue(
            f"extended key version {payload[:4].hex()}: expected {network.name}'s public version"
        )
    return payload
