"""Deposit and change keys from an account's public extended key (BIP32, BIP84). Pure; no private key enters.

Addresses are derived by two independent implementations that must agree before one is given out: this
module (coincurve) and `bip_utils`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import coincurve
from embit import base58

from chains.btc.address import p2wpkh_address_text
from chains.btc.network import NETWORKS, BtcNetwork
from chains.btc.script import hash160, p2wpkh_script_from_hash
from chains.errors import DerivationDisagreement, InvalidValue

HARDENED: Final = 0x8000_0000
"""First hardened child number (BIP32)."""

RECEIVE: Final = 0
"""Branch of deposit addresses (BIP44)."""

CHANGE: Final = 1
"""Branch of change addresses (BIP44)."""

_EXTENDED_KEY_BYTES: Final = 78
_ACCOUNT_DEPTH: Final = 3


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
class AccountKey:
    """The public extended key of a BIP84 account, m/84h/coinh/accounth.

    Construct it with `AccountKey.parse`.
    """

    network: BtcNetwork
    xpub: str
    """The text it was read from: `xpub...` on main, `tpub...` elsewhere."""
    fingerprint: bytes
    """First 4 bytes of HASH160 of the account's public key (BIP32). Not the master key's fingerprint."""
    _branches: tuple[_Node, _Node] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, network: BtcNetwork) -> AccountKey:
        """Read an `xpub` or `tpub` of depth 3 whose last step is hardened.

        Raises:
            InvalidValue: bad checksum, a private key, another network's, another depth, or no curve point.
        """
        payload = _decode(text, network)
        depth, child_number = payload[4], int.from_bytes(payload[9:13], "big")
        if depth != _ACCOUNT_DEPTH or child_number < HARDENED:
            raise InvalidValue(f"extended key of depth {depth}: expected an account, m/84h/coinh/accounth")
        try:
            key = coincurve.PublicKey(payload[45:])
        except ValueError as error:
            raise InvalidValue("extended key: its public key is not on the curve") from error
        node = _Node(key, payload[45:], payload[13:45])
        branches = tuple(_Node(k, k.format(), code) for k, code in (node.child(RECEIVE), node.child(CHANGE)))
        return cls(network, text, hash160(node.pubkey)[:4], (branches[0], branches[1]))

    def pubkey(self, branch: int, index: int) -> bytes:
        """The compressed public key (33 bytes) at m/84h/coinh/accounth/branch/index.

        Raises:
            InvalidValue: branch is neither 0 nor 1, or the index is hardened or negative.
        """
        if branch not in (RECEIVE, CHANGE) or not 0 <= index < HARDENED:
            raise InvalidValue(f"path {branch}/{index}: expected branch 0 or 1, index 0 to {HARDENED - 1}")
        pubkey: bytes = self._branches[branch].child(index)[0].format()
        return pubkey

    def script(self, branch: int, index: int) -> bytes:
        """The 22-byte P2WPKH script at branch/index. Raises InvalidValue like `pubkey`."""
        return p2wpkh_script_from_hash(hash160(self.pubkey(branch, index)))

    def address(self, branch: int, index: int) -> str:
        """The P2WPKH address at branch/index. Raises InvalidValue like `pubkey`."""
        return p2wpkh_address_text(hash160(self.pubkey(branch, index)), self.network)

    def addresses(self, branch: int, start: int, count: int) -> list[str]:
        """`count` addresses from branch/start on, in order.

        Raises:
            InvalidValue: like `pubkey`, or a negative count.
        """
        if count < 0:
            raise InvalidValue(f"count {count}: expected 0 or more")
        return [self.address(branch, index) for index in range(start, start + count)]


def second_opinion(xpub: str, branch: int, index: int, network: BtcNetwork) -> str:
    """The P2WPKH address at branch/index by `bip_utils`, sharing no code with `AccountKey`.

    Raises:
        InvalidValue: bip_utils can't read the key or the path.
    """
    from bip_utils import Bip32KeyError, Bip32PathError, P2WPKHAddrEncoder  # imports in 0.5 s: keep it lazy
    from bip_utils.bip.bip32 import Bip32KeyNetVersions

    versions = Bip32KeyNetVersions(network.xpub_version, network.xprv_version)
    try:
        key = _second_opinion_branch(xpub, branch, versions.Public(), versions.Private()).ChildKey(index)
        return str(P2WPKHAddrEncoder.EncodeKey(key.PublicKey().KeyObject(), hrp=network.bech32_hrp))
    except (Bip32KeyError, Bip32PathError, ValueError) as error:
        raise InvalidValue(f"path {branch}/{index}: {error}") from error


def agreed_address(account: AccountKey, branch: int, index: int) -> str:
    """The address at branch/index on which both implementations agree.

    Raises:
        DerivationDisagreement: they don't; neither address may be used.
        InvalidValue: like `AccountKey.pubkey`.
    """
    ours = account.address(branch, index)
    theirs = second_opinion(account.xpub, branch, index, account.network)
    if ours != theirs:
        raise DerivationDisagreement(f"path {branch}/{index}: {ours} by coincurve, {theirs} by bip_utils")
    return ours


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
