"""`wsh(sortedmulti(m, ...))`: one wallet of several signers' keys, its descriptor, scripts and addresses. Pure.

Every address is derived by two implementations that must agree before one is given out: this module (coincurve) and
embit, which reads nothing but the descriptor's text; so the text is checked as well.

Sources: BIP48 (paths), BIP67 (order of the keys in a script), BIP380 (descriptors, key origins, checksum), BIP383
(sortedmulti), BIP389 (`<0;1>` for both branches).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

from embit.base import EmbitError
from embit.networks import NETWORKS as EMBIT_NETWORKS

from chains.btc.address import address_text
from chains.btc.codec import compact_size
from chains.btc.hd import BranchKeys, Origin
from chains.btc.multisig_script import MultisigScript
from chains.btc.network import BtcNetwork
from chains.btc.psbt import KeyOrigin, ScriptKeys
from chains.btc.script import INPUT_BASE_WU, SIGNATURE_BYTES, p2wsh_script
from chains.errors import DerivationDisagreement, InvalidValue


@dataclass(frozen=True, slots=True)
class Member:
    """One signer's account of a multisig wallet."""

    origin: Origin
    keys: BranchKeys

    @classmethod
    def parse(cls, origin: str, xpub: str, network: BtcNetwork) -> Self:
        """From the texts that a descriptor has: `d34db33f/48'/1'/0'/2'` and `xpub...` or `tpub...`.

        Raises:
            InvalidValue: malformed, another network's, or a key of another depth than its path has steps.
        """
        found = Origin.parse(origin)
        return cls(found, BranchKeys.of_depth(xpub, network, len(found.path)))


@dataclass(frozen=True, slots=True)
class Multisig:
    """So many signatures of so many members, in the order in which the descriptor lists them.

    Raises:
        InvalidValue: a member comes twice, or there are fewer than the threshold.
    """

    network: BtcNetwork
    threshold: int
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if len({member.keys.xpub for member in self.members}) != len(self.members):
            raise InvalidValue("multisig: a key comes twice")
        self.witness_script(0, 0)

    @property
    def descriptor(self) -> str:
        """The whole wallet as one line, with checksum: `wsh(sortedmulti(2,[fp/48h/...]xpub/<0;1>/*,...))#...`."""
        keys = ",".join(_key_expression(member) for member in self.members)
        return with_checksum(f"wsh(sortedmulti({self.threshold},{keys}))")

    def witness_script(self, branch: int, index: int) -> MultisigScript:
        """The script at branch/index, its keys in the order of their bytes.

        Raises:
            InvalidValue: branch is neither 0 nor 1, or the index is hardened or negative.
        """
        return MultisigScript(
            self.threshold, tuple(sorted(member.keys.pubkey(branch, index) for member in self.members))
        )

    def script(self, branch: int, index: int) -> bytes:
        """The 34-byte P2WSH script at branch/index. Raises InvalidValue like `witness_script`."""
        return p2wsh_script(self.witness_script(branch, index).serialize())

    def address(self, branch: int, index: int) -> str:
        """The P2WSH address at branch/index. Raises InvalidValue like `witness_script`."""
        return address_text(self.script(branch, index), self.network)

    def behind(self, branch: int, index: int) -> ScriptKeys:
        """What a PSBT says of the output at branch/index: its script, and whose keys are in it, sorted by key."""
        keys = [
            KeyOrigin(
                member.keys.pubkey(branch, index),
                member.origin.fingerprint,
                (*member.origin.path, branch, index),
            )
            for member in self.members
        ]
        return ScriptKeys(
            self.witness_script(branch, index).serialize(), tuple(sorted(keys, key=lambda key: key.pubkey))
        )


def multisig_input_wu(script: MultisigScript) -> int:
    """Largest weight of an input that spends a P2WSH multisig output with exactly its threshold of signatures."""
    raw = script.serialize()
    # Number of items, the empty one that OP_CHECKMULTISIG drops, signatures, script; each with its length.
    signatures = script.threshold * (1 + SIGNATURE_BYTES)
    return INPUT_BASE_WU + 1 + 1 + signatures + len(compact_size(len(raw))) + len(raw)


def second_opinion(descriptor: str, branch: int, index: int, network: BtcNetwork) -> str:
    """The address at branch/index by embit, which reads the descriptor's text.

    Raises:
        InvalidValue: embit can't read it, or finds another checksum.
    """
    from embit.descriptor.checksum import add_checksum

    try:
        if add_checksum(descriptor.partition("#")[0]) != descriptor:
            raise InvalidValue(f"descriptor: another checksum by embit than in {descriptor[-9:]}")
        derived = _second_opinion_branch(descriptor, branch).derive(index)
        return str(derived.address(EMBIT_NETWORKS[network.name]))
    except (EmbitError, ValueError, LookupError, TypeError) as error:
        raise InvalidValue(f"descriptor at {branch}/{index}: {error}") from error


def agreed_multisig_address(wallet: Multisig, branch: int, index: int) -> str:
    """The address at branch/index on which both implementations agree.

    Raises:
        DerivationDisagreement: they don't; neither address may be used.
        InvalidValue: like `Multisig.witness_script`.
    """
    ours = wallet.address(branch, index)
    theirs = second_opinion(wallet.descriptor, branch, index, wallet.network)
    if ours != theirs:
        raise DerivationDisagreement(f"path {branch}/{index}: {ours} by coincurve, {theirs} by embit")
    return ours


def parse_multisig(threshold: int, members: Sequence[tuple[str, str]], network: BtcNetwork) -> Multisig:
    """A wallet from origin and account key of each member, in the descriptor's order.

    Raises:
        InvalidValue: a member is malformed or comes twice, or there are fewer than the threshold.
    """
    return Multisig(
        network, threshold, tuple(Member.parse(origin, xpub, network) for origin, xpub in members)
    )


@lru_cache(maxsize=64)
def _second_opinion_branch(descriptor: str, branch: int) -> Any:
    from embit.descriptor import Descriptor

    return Descriptor.from_string(descriptor).branch(branch)


def _key_expression(member: Member) -> str:
    steps = "".join(f"/{step - (1 << 31)}h" for step in member.origin.path)
    return f"[{member.origin.fingerprint.hex()}{steps}]{member.keys.xpub}/<0;1>/*"


# The checksum of BIP380: a code over GF(32) that finds up to four wrong characters.

_INPUT_CHARACTERS: Final = (
    "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
)
_CHECKSUM_CHARACTERS: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)


def with_checksum(text: str) -> str:
    """A descriptor with its checksum (BIP380).

    Raises:
        InvalidValue: a character that descriptors don't have.
    """
    symbols: list[int] = []
    groups: list[int] = []
    for character in text:
        position = _INPUT_CHARACTERS.find(character)
        if position < 0:
            raise InvalidValue(f"descriptor: the character {character!r} is not allowed")
        symbols.append(position & 31)
        groups.append(position >> 5)
        if len(groups) == 3:
            symbols.append(groups[0] * 9 + groups[1] * 3 + groups[2])
            groups = []
    if groups:
        symbols.append(groups[0] if len(groups) == 1 else groups[0] * 3 + groups[1])
    value = _polymod([*symbols, *[0] * 8]) ^ 1
    return f"{text}#{''.join(_CHECKSUM_CHARACTERS[value >> 5 * (7 - at) & 31] for at in range(8))}"


def _polymod(symbols: Sequence[int]) -> int:
    check = 1
    for symbol in symbols:
        top = check >> 35
        check = (check & 0x7FFFFFFFF) << 5 ^ symbol
        for bit, generator in enumerate(_GENERATOR):
            check ^= generator if top >> bit & 1 else 0
    return check
