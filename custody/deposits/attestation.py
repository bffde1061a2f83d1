"""Is this address ours, and is it this customer's? Asked before it is shown and before it is credited.

The answer never comes from the database: the address is derived again from the bundle's key-set by two
implementations, and the customer is read from the signer's attestation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from chains.btc.address import parse_address
from chains.btc.network import NETWORKS
from chains.errors import InvalidValue, PermanentError
from chains.eth.address import raw_address
from chains.eth.forwarder import agreed_forwarder
from custody.deposits.model import AddressRow, Purpose
from custody.deposits.outputs import outputs_of
from policies.bundle import (
    BitcoinNetwork,
    Bundle,
    EvmKeyset,
    EvmVault,
    GasPayer,
    KeysetEntry,
)
from policies.canonical import BadSignature, verify_ed25519
from signers.ports import SignedAttestation

DEPOSITS: Final = 0
"""The branch of addresses that customers are given."""
HOUSE: Final = 1
"""The branch of our own: change on BTC, the address of a key or Safe (index 0) on EVM chains."""
_MAX_REMEMBERED: Final = 100_000


class AddressNotOurs(PermanentError):
    """The address is not what our own keys give at its path: nobody must pay to it."""


class AttestationMismatch(PermanentError):
    """The address is ours, but no signer's word says that it belongs to this customer and asset."""


def address_path(keyset: KeysetEntry, branch: int, index: int) -> str:
    """Path from the master key, e.g. `m/84'/1'/0'/0/7`; on EVM chains `m/0/7` is the forwarder with salt 7."""
    return f"{keyset.account_path}/{branch}/{index}"


def derive(bundle: Bundle, wallet: str, branch: int, index: int) -> tuple[str, bytes]:
    """The address text and script (on EVM chains: the 20 bytes) at a path of a wallet, agreed by two implementations.

    Raises:
        InvalidValue: the bundle has no such wallet, or the path is impossible.
        DerivationDisagreement: the implementations differ.
    """
    entry = bundle.wallet(wallet)
    if isinstance(entry, EvmKeyset):
        return _evm_address(entry, branch, index)
    if isinstance(entry, EvmVault | GasPayer):
        return _own_address(entry, branch, index)
    outputs, network = outputs_of(bundle, entry), bundle.network(entry.chain)
    assert isinstance(network, BitcoinNetwork)  # outputs_of has said so
    text = outputs.agreed_address(branch, index)
    return text, parse_address(text, NETWORKS[network.network], entry.chain).script


def verify(
    signed: SignedAttestation,
    bundle: Bundle,
    *,
    keyset: str,
    customer: str | None,
    asset: str,
    branch: int,
    index: int,
) -> tuple[str, bytes]:
    """Check a signer's word for an address; returns the address text and its script.

    Args:
        signed: the attestation with its signature.
        bundle: names the key-set's account key and attestation key.
        keyset: the key-set that was asked; the chain is the key-set's.
        customer: whose address it must be; None: the house's.
        asset: the asset it must be for.
        branch: `DEPOSITS` or `HOUSE`.
        index: index on the branch.

    Raises:
        AddressNotOurs: our own derivation at that path gives another address.
        AttestationMismatch: wrong signature, or it speaks of another customer, asset, path, chain or key-set.
    """
    text, script = derive(bundle, keyset, branch, index)
    entry = bundle.keyset(keyset)
    said = signed.attestation
    if said.address != text:
        raise AddressNotOurs(
            f"the signer said {said.address}, path {branch}/{index} of {keyset} gives {text}"
        )
    try:
        verify_ed25519(entry.attestation_key, said.digest(), signed.signature)
    except BadSignature as error:
        raise AttestationMismatch(f"attestation of {text}: {error}") from error
    for field, found, expected in (
        ("chain", said.chain, entry.chain),
        ("keyset", said.keyset, keyset),
        ("customer", said.customer, customer),
        ("asset", said.asset, asset),
        ("path", said.path, address_path(entry, branch, index)),
    ):
        if found != expected:
            raise AttestationMismatch(f"attestation of {text}: {field} is {found!r}, expected {expected!r}")
    return text, script


def verify_row(row: AddressRow, bundle: Bundle) -> None:
    """Check a stored address in full: ours, and the customer's.

    Raises:
        AddressNotOurs: see `verify_ours`.
        AttestationMismatch: it has no valid attestation for its customer and asset (deposit addresses).
    """
    verify_ours(row, bundle)
    if row.purpose is Purpose.CHANGE:
        return
    try:
        signed = msgspec.json.decode(row.attestation or "", type=SignedAttestation)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AttestationMismatch(f"attestation of {row.address}: {error}") from error
    verify(
        signed,
        bundle,
        keyset=row.keyset,
        customer=row.customer,
        asset=row.asset,
        branch=row.branch,
        index=row.index,
    )


def verify_ours(row: AddressRow, bundle: Bundle) -> None:
    """Check that text and script of a stored address are what our keys give at its path.

    Raises:
        AddressNotOurs: they are not, or the path is none of the bundle's.
    """
    try:
        text, script = derive(bundle, row.keyset, row.branch, row.index)
        chain = bundle.wallet(row.keyset).chain
    except InvalidValue as error:
        raise AddressNotOurs(f"address {row.address}: {error}") from error
    if (row.address, row.script, row.chain) != (text, script, chain):
        raise AddressNotOurs(
            f"address row {row.id} says {row.address} on {row.chain}; "
            f"path {row.branch}/{row.index} of {row.keyset} gives {text} on {chain}"
        )


class Prover:
    """Answers of `verify_ours` and `verify_row` for one bundle, remembered: an edited row is another key.

    Args:
        bundle: names the keys.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._ours: dict[AddressRow, str | None] = {}
        self._theirs: dict[AddressRow, str | None] = {}

    def not_ours(self, row: AddressRow) -> str | None:
        """Why the address is not derived from our keys; None if it is."""
        return self._remembered(self._ours, row, verify_ours)

    def unproven(self, row: AddressRow) -> str | None:
        """Why the address is not proven to be its customer's; None if it is."""
        return self._remembered(self._theirs, row, verify_row)

    def _remembered(
        self,
        answers: dict[AddressRow, str | None],
        row: AddressRow,
        check: Callable[[AddressRow, Bundle], None],
    ) -> str | None:
        if row not in answers:
            if len(answers) >= _MAX_REMEMBERED:
                answers.clear()
            try:
                check(row, self.bundle)
                answers[row] = None
            except PermanentError as error:
                answers[row] = str(error)
        return answers[row]


@lru_cache(maxsize=_MAX_REMEMBERED)
def _evm_address(keyset: EvmKeyset, branch: int, index: int) -> tuple[str, bytes]:
    if branch == DEPOSITS:
        text = agreed_forwarder(keyset.factory, keyset.forwarder, index)
    elif (branch, index) == (HOUSE, 0):
        text = keyset.address
    else:
        raise InvalidValue(
            f"{keyset.id} has no path {branch}/{index}: 0/n are its forwarders, 1/0 is its key"
        )
    return text, raw_address(text)


def _own_address(entry: EvmVault | GasPayer, branch: int, index: int) -> tuple[str, bytes]:
    if (branch, index) != (HOUSE, 0):
        raise InvalidValue(f"{entry.id} has no path {branch}/{index}: it has one address, 1/0")
    return entry.address, raw_address(entry.address)
