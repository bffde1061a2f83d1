"""Reading blocks and the mempool, and saying whose each receipt is. Reads only, decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chains.eth.network import NativeMode
from chains.ports import ChainAdapter, Consumption, Header, Observation, Receipt
from chains.types import BlockRef
from custody.deposits.addresses import evm_wallets, nonces_of
from custody.deposits.attestation import Prover
from custody.deposits.model import MOST_UNITS, AddressRow, Purpose
from custody.deposits.repository import addresses_by_script
from custody.deposits.service import Found
from custody.monitor import repository
from custody.monitor.repository import MinedConsumption, OwnReceipt
from custody.monitor.watch import Watch
from custody.storage import halts
from custody.storage.alerts import Severity, raise_alert
from custody.storage.db import Tx
from policies.bundle import Bundle, EvmNetwork

FOREIGN_SPEND: Final = "coin.foreign_spend"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something a person must look at, found while reading."""

    type: str
    subject: str
    message: str
    severity: Severity = Severity.CRITICAL

    def raise_in(self, tx: Tx) -> None:
        """Raise it as an alert; again changes nothing while it is open."""
        raise_alert(tx, self.severity, self.type, self.subject, self.message, {})


@dataclass(frozen=True, slots=True)
class Sighting:
    """One observation and where it was made; `block` is None for the mempool."""

    block: BlockRef | None
    observation: Observation


@dataclass(slots=True)
class Attributed:
    """What observations mean to us."""

    receipts: list[OwnReceipt] = field(default_factory=list)
    """Outputs in blocks at addresses that our keys control."""
    deposits: list[Found] = field(default_factory=list)
    """Those that are not change of our own transactions."""
    consumptions: list[MinedConsumption] = field(default_factory=list)
    native_modes: dict[str, NativeMode] = field(default_factory=dict)
    """How each block was read, by its hash, where that is to be chosen."""
    troubles: list[Trouble] = field(default_factory=list)
    foreign: list[Trouble] = field(default_factory=list)
    """Uses of our resources by transactions that are none of ours."""
    expected: list[Trouble] = field(default_factory=list)
    """The same of keys that are known to be compromised."""

    def raise_in(self, tx: Tx) -> None:
        """Raise all troubles. Foreign use halts all paying in the very commit that records it: somebody else signs with
        our key, or this database has forgotten a payment, and each payment more could be paid twice."""
        for trouble in (*self.troubles, *self.foreign, *self.expected):
            trouble.raise_in(tx)
        if self.foreign:
            halts.halt(tx, halts.ALL, "; ".join(trouble.message for trouble in self.foreign)[:500])


def read_blocks(
    adapter: ChainAdapter, headers: Sequence[Header], watch: Watch, modes: Mapping[str, NativeMode]
) -> list[Sighting]:
    """Read blocks in order. What they bring us is watched from then on, also in the next blocks.

    Args:
        adapter: the chain.
        headers: of the blocks.
        watch: what to look for.
        modes: how those were read that were read before, by their hashes: their receipts get the same names again.

    Raises:
        Reorganised: the node no longer has one of them.
    """
    sightings = []
    for header in headers:
        mode = modes.get(header.ref.hash)
        observation = adapter.observe_block(header.ref, watch.scripts, watch.resources, mode)
        watch.resources.update(receipt.resource for receipt in observation.receipts)
        sightings.append(Sighting(header.ref, observation))
    return sightings


def attribute(tx: Tx, prover: Prover, chain: str, sightings: Iterable[Sighting]) -> Attributed:
    """Say which address each receipt is at, whether it is a deposit, and which transactions are not ours.

    A receipt at an address that our own keys do not give is none: its row was edited. An address of ours
    whose attestation is doubtful still receives: the coin is ours, only its owner is in doubt, so it is
    recorded and never credited.
    """
    sightings = list(sightings)
    scripts = {receipt.script for each in sightings for receipt in each.observation.receipts}
    # Change of ours is on chains only where a transaction's content is its txid.
    contents = {receipt.txid.hex for each in sightings for receipt in each.observation.receipts}
    contents |= {used.content for each in sightings for used in each.observation.consumptions}
    found = Attributed()
    for each in sightings:
        _mode(found, prover, chain, each)
    if not contents:
        return found
    addresses = addresses_by_script(tx, chain, scripts)
    own = repository.own_contents(tx, contents)
    foreign: list[tuple[Consumption, BlockRef]] = []
    for each in sightings:
        for receipt in each.observation.receipts:
            _receipt(found, prover, addresses.get(receipt.script), receipt, each.block, own)
        for used in each.observation.consumptions:
            if each.block is None:
                continue
            found.consumptions.append(MinedConsumption(used, each.block))
            if used.content not in own:
                foreign.append((used, each.block))
    _foreign(tx, found, prover.bundle, chain, foreign)
    return found


def _foreign(
    tx: Tx, found: Attributed, bundle: Bundle, chain: str, uses: Sequence[tuple[Consumption, BlockRef]]
) -> None:
    """Whoever has stolen keys can spend a little there whenever he likes. Once the bundle calls them compromised that
    is no news, and must not stop what other keys pay."""
    wallets = {each.receipt.resource: each.address.keyset for each in found.receipts}
    if uses:
        wallets |= repository.wallets_of(tx, chain, [used.resource for used, _ in uses])
    compromised = {entry.id for entry in bundle.wallets if entry.state == "compromised"}
    users = {nonces_of(entry): entry.id for entry in evm_wallets(bundle, chain)}
    for used, block in uses:
        message = f"{used.resource} was used in block {block} by {used.txid}, which is not ours"
        wallet = wallets.get(used.resource, users.get(used.resource.rpartition(":")[0]))
        if wallet in compromised:
            # One alert for all of it: dust is cheap.
            message += f". The keys of {wallet} are known to be compromised, so others go on paying"
            found.expected.append(Trouble(FOREIGN_SPEND, wallet, message))
        else:
            found.foreign.append(Trouble(FOREIGN_SPEND, used.resource, message))


def _mode(found: Attributed, prover: Prover, chain: str, sighting: Sighting) -> None:
    mode, block = sighting.observation.native_mode, sighting.block
    if mode is None or block is None:
        return
    found.native_modes[block.hash] = mode
    network = prover.bundle.network(chain)
    if isinstance(network, EvmNetwork) and mode is not NativeMode(network.native_mode):
        # One alert a chain: whoever makes such blocks could make one every few seconds.
        message = (
            f"the node gave no traces of block {block}: what came there of {network.native_asset} was found by"
            " comparing balances, as in all blocks whose native_mode is 'balance'. Somebody may want to slow us down"
        )
        found.troubles.append(Trouble("block.untraced", chain, message, Severity.WARNING))


def _receipt(
    found: Attributed,
    prover: Prover,
    address: AddressRow | None,
    receipt: Receipt,
    block: BlockRef | None,
    own: set[str],
) -> None:
    if address is None:
        message = f"{receipt.resource} pays to script {receipt.script.hex()}, whose address row was changed"
        found.troubles.append(Trouble("address.not_ours", receipt.script.hex(), message))
        return
    entry = prover.bundle.asset_of(address.chain, receipt.contract)
    if entry is None:
        return  # a token that nobody listed is nothing to us
    if receipt.units > MOST_UNITS:
        # Not even held: what is held keeps all else at its address from being swept.
        message = (
            f"{entry.id} claims {entry.told(receipt.units)} for {receipt.resource}: more than there can be"
        )
        found.troubles.append(Trouble("deposit.absurd", entry.id, message))
        return
    doubt = prover.not_ours(address)
    if doubt is not None:
        message = f"{receipt.resource} pays to an address that is not ours: {doubt}"
        found.troubles.append(Trouble("address.not_ours", str(address.id), message))
        return
    if (doubt := prover.unproven(address)) is not None:
        message = f"{receipt.resource} pays to an address whose owner is in doubt: {doubt}"
        found.troubles.append(Trouble("address.unproven", str(address.id), message))
    if block is not None:
        found.receipts.append(OwnReceipt(receipt, address, entry.id, block))
    if not (address.purpose is Purpose.CHANGE and receipt.txid.hex in own):
        found.deposits.append(Found(receipt, address, entry.id, block))
