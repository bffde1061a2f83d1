"""What can be said in public of a key-set: its record for the bundle, fingerprints, descriptor, first addresses.

Addresses come from two implementations that share no code, and those of an HD wallet from a third one that starts
from the descriptor's text: chains.btc and bip_utils, and embit; chains.eth and bip_utils.

Sources: BIP32, BIP48, BIP84, BIP86, BIP380 (descriptor checksums), BIP389 (multipath), EIP-55.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from chains.btc.hd import AccountKey, agreed_address
from chains.btc.multisig import with_checksum
from chains.btc.network import NETWORKS
from chains.errors import DerivationDisagreement, InvalidValue
from chains.eth.tx import address_text_of_key
from signers.ceremony.plan import NewBitcoinKeys, NewEvmKey, NewOwner, NewPayer, NewWallet
from signers.ceremony.record import CeremonyRecord, FirstAddress
from signers.errors import NotProven
from signers.keys.account import AccountSecret
from signers.keys.keyset import (
    PURPOSES,
    BitcoinCosignerRecord,
    BitcoinKeysetRecord,
    EvmKeysetRecord,
    EvmRecord,
    GasPayerRecord,
    KeysetRecord,
    SafeOwnerRecord,
)
from signers.keys.sealed import SealedRecord

FIRST_ADDRESSES: Final = 3
BRANCHES: Final[tuple[Literal[0], Literal[1]]] = (0, 1)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the record says of the keys."""

    public_key: str
    fingerprints: dict[str, str]
    descriptor: str | None
    addresses: tuple[FirstAddress, ...]


def bitcoin_record(keyset: NewBitcoinKeys, entropy: bytes, attestation_key: bytes) -> SealedRecord:
    """The public half of the keys that come from this entropy (32 bytes, BIP39). Raises InvalidValue."""
    network = NETWORKS[keyset.network]
    if isinstance(keyset, NewWallet):
        path = f"{PURPOSES[keyset.script]}'/{network.coin_type}'/{keyset.account}'"
        secret, origin = AccountSecret.from_entropy(entropy, network, path)
        return BitcoinKeysetRecord(
            id=keyset.id,
            network=keyset.network,
            script=keyset.script,
            account=secret.public.xpub,
            origin=origin,
            attestation_key=attestation_key.hex(),
        )
    path = f"48'/{network.coin_type}'/{keyset.account}'/2'"
    cosigner, origin = AccountSecret.of_cosigner(entropy, network, path)
    return BitcoinCosignerRecord(
        id=keyset.id,
        network=keyset.network,
        account=cosigner.public.xpub,
        origin=origin,
        attestation_key=attestation_key.hex(),
    )


def bitcoin_public_key(record: SealedRecord, entropy: bytes) -> str:
    """The extended public key that entropy gives at the record's path. Raises InvalidValue."""
    network = NETWORKS[record.network]
    if isinstance(record, BitcoinKeysetRecord):
        return AccountSecret.from_entropy(entropy, network, record.path)[0].public.xpub
    return AccountSecret.of_cosigner(entropy, network, record.path)[0].public.xpub


def evm_record(
    keyset: NewEvmKey | NewOwner | NewPayer, public_key: bytes, attestation_key: bytes
) -> EvmRecord:
    """The public half of an EVM key (33 bytes)."""
    kinds: dict[type, type[EvmRecord]] = {NewOwner: SafeOwnerRecord, NewPayer: GasPayerRecord}
    kind = kinds.get(type(keyset), EvmKeysetRecord)
    return kind(
        id=keyset.id,
        chain_id=keyset.chain_id,
        address=address_text_of_key(public_key),
        attestation_key=attestation_key.hex(),
    )


def facts_of(keyset: KeysetRecord, public_key: str) -> Facts:
    """What a record says of a key-set.

    Args:
        keyset: its public half.
        public_key: BTC: the account's extended public key. EVM: the compressed public key as hex.

    Raises:
        DerivationDisagreement: two implementations give different addresses.
        InvalidValue: a malformed key, or one of another key-set.
    """
    prints = {
        "public_key": hashlib.sha256(public_key.encode()).hexdigest(),
        "attestation_key": hashlib.sha256(bytes.fromhex(keyset.attestation_key)).hexdigest(),
    }
    if isinstance(keyset, EvmRecord):
        address = _agreed_evm_address(bytes.fromhex(public_key))
        if address != keyset.address:
            raise InvalidValue(f"key-set {keyset.id!r}: {address} is not its address")
        return Facts(public_key, prints, None, (FirstAddress(branch=1, index=0, address=address),))
    if keyset.account != public_key:
        raise InvalidValue(f"key-set {keyset.id!r}: this is not its account key")
    prints["master"] = keyset.origin[:8]
    origin = keyset.origin.replace("'", "h")
    expression = f"[{origin}]{keyset.account}/<0;1>/*"
    if isinstance(keyset, BitcoinCosignerRecord):
        return Facts(public_key, prints, expression, ())
    descriptor = with_checksum(f"{'tr' if keyset.script == 'p2tr' else 'wpkh'}({expression})")
    return Facts(public_key, prints, descriptor, _first_addresses(keyset, descriptor))


def check_facts(record: CeremonyRecord) -> None:
    """Check that a record says of its keys what follows from them. Raises NotProven, DerivationDisagreement."""
    try:
        found = facts_of(record.keyset, record.public_key)
    except (InvalidValue, ValueError) as error:
        raise NotProven(f"the ceremony's record: {error}") from None
    said = Facts(record.public_key, record.fingerprints, record.descriptor, record.addresses)
    if found != said:
        raise NotProven(f"key-set {record.keyset.id!r}: its record says what does not follow from its keys")


def _first_addresses(keyset: BitcoinKeysetRecord, descriptor: str) -> tuple[FirstAddress, ...]:
    account = AccountKey.parse(keyset.account, NETWORKS[keyset.network], keyset.script)
    made = []
    for branch in BRANCHES:
        for index in range(FIRST_ADDRESSES):
            address = agreed_address(account, branch, index)
            third = _described_address(descriptor, branch, index, keyset.network)
            if address != third:
                raise DerivationDisagreement(
                    f"path {branch}/{index}: {address} by bip_utils, {third} by embit"
                )
            made.append(FirstAddress(branch=branch, index=index, address=address))
    return tuple(made)


def _described_address(descriptor: str, branch: int, index: int, network: str) -> str:
    from embit.descriptor import Descriptor
    from embit.descriptor.checksum import add_checksum
    from embit.networks import NETWORKS as EMBIT_NETWORKS

    if add_checksum(descriptor.partition("#")[0]) != descriptor:
        raise DerivationDisagreement(f"descriptor: another checksum by embit than in {descriptor[-9:]}")
    derived = Descriptor.from_string(descriptor).derive(index, branch_index=branch)
    return str(derived.address(EMBIT_NETWORKS[network]))


def _agreed_evm_address(public_key: bytes) -> str:
    from bip_utils import EthAddrEncoder

    ours, theirs = address_text_of_key(public_key), str(EthAddrEncoder.EncodeKey(public_key))
    if ours != theirs:
        raise DerivationDisagreement(f"{ours} by our own code, {theirs} by bip_utils")
    return ours
