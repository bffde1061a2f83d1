"""A customer gets a deposit address: an index, the signer's word for it, our own check, then the row."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from chains.eth.address import raw_address
from chains.eth.safe import safe_resource
from chains.eth.tx import nonce_resource
from custody.deposits import repository
from custody.deposits.attestation import DEPOSITS, HOUSE, address_path, derive, verify
from custody.deposits.model import AddressRow, Purpose
from custody.errors import UnknownCustomer
from custody.storage.db import Database, Tx
from custody.storage.events import emit
from policies.bundle import BitcoinVault, Bundle, EvmKeyset, EvmVault, GasPayer
from signers.ports import AttestRequest, SignedAttestation, Signer

EvmWallet = EvmKeyset | EvmVault | GasPayer
"""A wallet of the EVM family: it has one address that pays, and nonces of its own."""


def evm_wallets(bundle: Bundle, chain: str) -> list[EvmWallet]:
    """Key-sets, Safes and gas payers of an EVM chain; none on others."""
    return [each for each in bundle.wallets if isinstance(each, EvmWallet) and each.chain == chain]


def nonces_of(wallet: EvmWallet) -> str:
    """What stands before the nonces of a wallet in the resources that it uses up."""
    account = raw_address(wallet.address)
    resource = safe_resource(account, 0) if isinstance(wallet, EvmVault) else nonce_resource(account, 0)
    return resource.rpartition(":")[0]


def ensure_house(tx: Tx, bundle: Bundle, chain: str) -> None:
    """Store the addresses of the keys and Safes themselves, which pay and hold what was swept, and the first address of
    each Bitcoin vault's branch for the house, which takes what it begins with. Again changes nothing.

    What arrives there is nobody's: it goes to suspense, and is how operators bring the money for gas.
    """
    vaults = [each for each in bundle.vaults if isinstance(each, BitcoinVault) and each.chain == chain]
    for wallet in (*evm_wallets(bundle, chain), *vaults):
        address, script = derive(bundle, wallet.id, HOUSE, 0)
        native = bundle.network(chain).native_asset
        repository.ensure_house_address(
            tx, chain=chain, keyset=wallet.id, asset=native, branch=HOUSE, address=address, script=script
        )


@dataclass(frozen=True, slots=True)
class AttestedAddress:
    """An address that the signer attested and that we have verified, not stored yet."""

    chain: str
    keyset: str
    asset: str
    customer: str
    index: int
    path: str
    address: str
    script: bytes
    signed: SignedAttestation


def allocate(db: Database, signer: Signer, bundle: Bundle, customer: str, asset: str) -> AddressRow:
    """A new, attested deposit address on the asset's hot key-set: `attest`, then `record` in one transaction.

    Raises:
        As `attest`.
    """
    attested = attest(db, signer, bundle, customer, asset)
    with db.transaction() as tx:
        return record(tx, attested)


def attest(db: Database, signer: Signer, bundle: Bundle, customer: str, asset: str) -> AttestedAddress:
    """Take the next index and have the signer attest its address.

    The index is taken in a transaction of its own: if anything fails afterwards it is burnt, never used for
    another customer.

    Args:
        db: database of the API.
        signer: of the key-set; asked between two transactions, never inside one.
        bundle: names the asset, its chain and key-set.
        customer: must exist.
        asset: id of an asset of the bundle.

    Raises:
        InvalidValue: the bundle has no such asset or no hot key-set for it.
        UnknownCustomer: there is no such customer.
        SignerUnavailable, Refused: as the signer says.
        AddressNotOurs, AttestationMismatch, DerivationDisagreement: the signer's answer is wrong.
    """
    entry = bundle.asset(asset)
    keyset = bundle.keyset_for(entry.chain, "hot")
    with db.transaction() as tx:
        if not repository.customer_exists(tx, customer):
            raise UnknownCustomer(customer)
        index = repository.take_index(tx, keyset.id, DEPOSITS)
    signed = signer.attest(
        AttestRequest(
            chain=entry.chain,
            keyset=keyset.id,
            customer=customer,
            asset=asset,
            branch=DEPOSITS,
            index=index,
        )
    )
    text, script = verify(
        signed, bundle, keyset=keyset.id, customer=customer, asset=asset, branch=DEPOSITS, index=index
    )
    path = address_path(keyset, DEPOSITS, index)
    return AttestedAddress(entry.chain, keyset.id, asset, customer, index, path, text, script, signed)


def record(tx: Tx, attested: AttestedAddress) -> AddressRow:
    """Store an attested address and tell the feed.

    Nobody is shown the address before this commits, so the monitor knows it before any payment can exist.
    """
    row = repository.insert_address(
        tx,
        chain=attested.chain,
        keyset=attested.keyset,
        asset=attested.asset,
        customer=attested.customer,
        purpose=Purpose.DEPOSIT,
        branch=DEPOSITS,
        index=attested.index,
        address=attested.address,
        script=attested.script,
        attestation=msgspec.json.encode(attested.signed).decode(),
    )
    data = {"customer": attested.customer, "asset": attested.asset, "address": attested.address}
    emit(tx, "address.created", attested.address, {**data, "path": attested.path})
    return row
