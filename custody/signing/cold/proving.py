"""Trying a cold vault out before real money: addresses compared in several programs, keys and threshold read back from
the chain, a small payment in, and one out that its holders have signed offline (BIP129 in spirit).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from chains.btc.multisig import Multisig, agreed_multisig_address, parse_multisig, with_checksum
from chains.btc.multisig_script import MultisigScript
from chains.btc.network import NETWORKS
from chains.btc.tx import Transaction, TxOut
from chains.errors import DerivationDisagreement, InvalidValue
from chains.eth.address import raw_address
from chains.eth.safe_report import SafeReport, objections
from chains.types import TxId
from custody.signing import repository as transactions
from custody.signing.model import OurTransaction
from custody.signing.sessions import repository as sessions
from custody.signing.sessions.lifecycle import SessionState
from custody.signing.sessions.model import Source
from custody.storage.db import Tx, units
from policies.bundle import BitcoinNetwork, BitcoinVault, Bundle, EvmVault, Vault

COMPARED: Final = 100
"""First addresses of each branch that our code, embit and the node must derive alike."""
LETTERS: Final = 12
"""At the end of an address, which holders read from their offline machines (`strongroom-airgap register`)."""
_BRANCHES: Final = (0, 1)
_REACH: Final = 1_000
"""Places at which a coin of the vault is looked for."""


class Deriving(Protocol):
    """A node that derives addresses by itself, and has blocks."""

    def derive_addresses(self, descriptor: str, count: int) -> tuple[str, ...]:
        """The first addresses of one branch."""

    def mined(self, txid: TxId, block_hash: str) -> tuple[Transaction, tuple[TxOut, ...]]:
        """A transaction of a block, and what it spends."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a vault is tried out by."""

    name: str
    done: bool
    told: str
    """What was found; or what to do, or what is wrong."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What the books and sessions say of a vault."""

    money_in: str
    """The first money that came, for people; empty: none has come."""
    out: OurTransaction | None
    """The newest final payment out."""
    offline: tuple[str, ...]
    """Members who signed it offline, as we know."""


def moved(tx: Tx, bundle: Bundle, vault: Vault) -> Moved:
    """What came to a vault, and what left it signed by its holders, both final."""
    first = tx.optional(
        "SELECT a.asset, -l.amount AS units, l.at, t.reference FROM ledger_lines l"
        " JOIN ledger_accounts a ON a.id = l.account_id JOIN ledger_transfers t ON t.id = l.transfer_id"
        " WHERE a.kind = 'chain_assets' AND a.wallet = %s AND l.amount < 0 ORDER BY l.id LIMIT 1",
        [vault.id],
    )
    money_in = "" if first is None else (
        f"{bundle.told(first['asset'], units(first['units']))} at {first['at']:%Y-%m-%d %H:%M} UTC"
    )  # fmt: skip
    row = tx.optional(
        "SELECT id FROM transactions WHERE keyset = %s AND state = 'final' AND kind IN ('payment', 'refill')"
        " ORDER BY created_at DESC, id LIMIT 1",
        [vault.id],
    )
    out = None if row is None else transactions.find(tx, row["id"])
    if out is None:
        return Moved(money_in, None, ())
    signers = [
        asked.member
        for session in sessions.of_transaction(tx, out.id)
        if session.state is SessionState.COMPLETE
        for asked in session.asked.values()
        if asked.source is Source.FILE and asked.response is not None
    ]
    return Moved(money_in, out, tuple(sorted(signers)))


def bitcoin_steps(
    bundle: Bundle,
    vault: BitcoinVault,
    readings: Mapping[str, str],
    found: Moved,
    node: Deriving,
    *,
    small: str,
) -> tuple[Step, ...]:
    """Each step of a Bitcoin vault, done or not.

    Args:
        bundle: the one in force.
        vault: of the cold tier.
        readings: what holders read as the end of address 0/0, by their ids.
        found: of `moved`.
        node: of its chain.
        small: an amount that may go to the vault now, for people.

    Raises:
        InvalidValue: somebody who read is no member of the vault.
        NodeUnavailable, NodeRefused: of the node.
    """
    wallet = _wallet(bundle, vault)
    address = agreed_multisig_address(wallet, 0, 0)
    return (
        _compared(wallet, node),
        _read(vault, address, readings),
        _in(vault, address, found, small),
        _out(vault, found),
        _read_back(vault, wallet, found.out, node),
    )


def safe_steps(
    vault: EvmVault, readings: Mapping[str, str], found: Moved, report: SafeReport, *, small: str
) -> tuple[Step, ...]:
    """Each step of a Safe, done or not: like `bitcoin_steps`, with what its chain says of it."""
    return (
        _read_back_safe(vault, report),
        _read(vault, vault.address, readings),
        _in(vault, vault.address, found, small),
        _out(vault, found),
    )


def transaction_of(found: Moved) -> UUID:
    """The payment out, of a vault whose steps are all done."""
    assert found.out is not None
    return found.out.id


def _wallet(bundle: Bundle, vault: BitcoinVault) -> Multisig:
    network = bundle.network(vault.chain)
    assert isinstance(network, BitcoinNetwork)
    members = [(each.origin, each.account) for each in vault.cosigners]
    return parse_multisig(vault.threshold, members, NETWORKS[network.network])


def _compared(wallet: Multisig, node: Deriving) -> Step:
    name = "addresses in three programs"
    for branch in _BRANCHES:
        text = wallet.descriptor.partition("#")[0].replace("<0;1>", str(branch))
        theirs = node.derive_addresses(with_checksum(text), COMPARED)
        try:
            ours = tuple(agreed_multisig_address(wallet, branch, index) for index in range(COMPARED))
        except DerivationDisagreement as error:
            return Step(name, False, str(error))
        if ours != theirs:
            return Step(name, False, f"WRONG: the node derives other addresses on branch {branch}")
    told = f"the first {COMPARED} of both branches are the same by our code, embit and the node"
    return Step(name, True, told)


def _read_back(vault: BitcoinVault, wallet: Multisig, out: OurTransaction | None, node: Deriving) -> Step:
    """Keys and threshold, as a block shows them once the vault has paid."""
    name = "keys and threshold on the chain"
    if out is None or out.confirmed_txid is None or out.block_hash is None:
        return Step(name, False, "a block shows them once the vault has paid something")
    tx, spent = node.mined(TxId(out.confirmed_txid), out.block_hash)
    places = {wallet.script(branch, at): (branch, at) for branch in _BRANCHES for at in range(_REACH)}
    for txin, output in zip(tx.inputs, spent, strict=True):
        place = places.get(output.script)
        shown = MultisigScript.parse(txin.witness[-1]) if len(txin.witness) > 2 else None
        if (
            place is None
            or shown != wallet.witness_script(*place)
            or len(txin.witness) - 2 != vault.threshold
        ):
            return Step(name, False, f"WRONG: {out.confirmed_txid} spends what is not the bundle's vault")
    told = f"{out.confirmed_txid} shows {vault.threshold} signatures for {vault.threshold} of the"
    return Step(name, True, f"{told} {len(vault.cosigners)} keys that the bundle has")


def _read_back_safe(vault: EvmVault, report: SafeReport) -> Step:
    wrong = objections(report, [raw_address(owner.address) for owner in vault.owners], vault.threshold)
    told = (
        f"{report.threshold} of {len(report.owners)} owners, nothing else may act"
        if not wrong
        else "; ".join(wrong)
    )
    return Step("owners and threshold on the chain", not wrong, told)


def _read(vault: Vault, address: str, readings: Mapping[str, str]) -> Step:
    name = "address read by holders"
    members = _members(vault)
    for who in readings:
        if who not in members:
            raise InvalidValue(f"{vault.id} has no holder {who!r}: it has {', '.join(members)}")
    wrong = [who for who, letters in readings.items() if letters.lower() != address[-LETTERS:].lower()]
    if wrong:
        return Step(name, False, f"WRONG: {', '.join(wrong)} read other letters than {address} ends in")
    if len(readings) >= vault.threshold:
        return Step(name, True, f"{', '.join(sorted(readings))} read the end of {address} offline")
    what = "its address" if isinstance(vault, EvmVault) else "address 0/0"
    return Step(
        name,
        False,
        f"{vault.threshold} holders read the last {LETTERS} letters of {what} to you from their offline machines"
        f" (strongroom-airgap register shows it): --read NAME=LETTERS for each. Do not read yours to them first",
    )


def _out(vault: Vault, found: Moved) -> Step:
    name = "payment out, signed offline"
    if found.out is None:
        return Step(
            name,
            False,
            f"pay a part of it out, e.g. strongroom refill propose --from {vault.id}; then strongroom cold export and"
            f" import, until {vault.threshold} holders have signed, and wait until it is final",
        )
    if len(found.offline) < vault.threshold:
        who = ", ".join(found.offline) or "nobody"
        return Step(
            name,
            False,
            f"{found.out.confirmed_txid}: of its signatures we have those of {who}; import the others",
        )
    return Step(name, True, f"{found.out.confirmed_txid}, by {', '.join(found.offline)}")


def _in(vault: Vault, address: str, found: Moved, small: str) -> Step:
    how = f"send a little to {address}, or strongroom refill propose --to {vault.id} (at most {small} until then)"
    return Step("payment in", bool(found.money_in), found.money_in or how)


def _members(vault: Vault) -> Sequence[str]:
    return [each.id for each in (vault.owners if isinstance(vault, EvmVault) else vault.cosigners)]
