"""Building for a Safe: the oldest withdrawal that it can pay becomes one recorded transaction that its owners sign.

One payment each, with the Safe's next nonce of ours: what was refused, abandoned or never signed frees its nonce, and
the next payment takes it. Whoever carries it out pays the gas, so the Safe needs none. A Safe's transaction whose inner
call fails reverts as a whole and stays valid, so a payment that would fail now is not asked for at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from chains.eth.address import checksummed, raw_address
from chains.eth.call import Call, Reverted
from chains.eth.erc20 import transfer_calldata
from chains.eth.safe import SafeMessage, SafeTx
from custody.signing import paying
from custody.signing.errors import BumpRefused, Raced
from custody.signing.evm import funds, nonces, safe_nonce
from custody.signing.evm.build import queue_full, warn_of_reverts
from custody.signing.evm.funds import Committed
from custody.signing.evm.plan import WOULD_REVERT, agrees
from custody.signing.evm.safe_site import SafeSite
from custody.signing.requests import Payee, payment_intents
from custody.storage import alerts
from custody.storage.db import Database
from custody.withdrawals import reverts
from policies.decision import Reason

EXECUTION_GAS: Final = 35_000
"""Least that `execTransaction` takes around the inner call, beside its owners' signatures."""
OWNER_GAS: Final = 6_000
"""Least that each of those takes."""


def build(db: Database, site: SafeSite, now: int) -> UUID | None:
    """Record one transaction that pays what can be paid; see `custody.signing.build`."""
    with db.snapshot() as tx:
        ready = paying.ready(tx, site, now=now)
        held = reverts.stopped(tx, ready, now=now)
        found = funds.committed(tx, site)
        in_flight = nonces.unconfirmed(tx, site.chain, site.wallet.id)
    if not ready or found is None:
        return None
    if held:
        with db.transaction() as tx:
            reverts.hold_back(tx, held, seconds=site.pace.wait_seconds)
    stopped = {withdrawal.id for withdrawal, _ in held}
    payees = paying.payees(db, site, [each for each in ready if each.id not in stopped])
    if not payees:
        return None
    full = queue_full(site, in_flight)
    if full is not None:
        paying.wait(db, site, [(payee, full) for payee in payees])
        return None
    used = site.node.safes.nonce(site.sender, site.node.tip())
    available = funds.available(site, found, {payee.signed.order.asset for payee in payees})
    chosen, waiting = _choose(site, payees, available)
    paying.wait(db, site, waiting)
    warn_of_reverts(db, waiting)
    if chosen is None:
        return None
    try:
        return _record(db, site, chosen, found, used)
    except Raced:
        return None


def replace_transaction(db: Database, site: SafeSite, transaction_id: UUID, feerate: int | None) -> int:
    """Never done: a Safe's transaction pays no fee. Raises BumpRefused."""
    raise BumpRefused(f"{site.wallet.id} pays no fee: what carries its transaction out is replaced instead")


def stuck(db: Database, site: SafeSite) -> Sequence[tuple[UUID, int | None]]:
    """Nothing: what carries a Safe's transaction out may be stuck, and is the gas payer's."""
    return ()


def transfer(site: SafeSite, asset: str, destination: bytes, units: int, nonce: int) -> SafeMessage:
    """What owners sign for one payment: all fields that have to do with gas are zero.

    Args:
        site: the Safe.
        asset: id of an asset of its chain.
        destination: 20 bytes.
        units: base units of the asset.
        nonce: of the Safe.
    """
    contract = site.bundle.asset(asset).contract
    if contract is None:
        tx = SafeTx(to=destination, value_wei=units, data=b"", nonce=nonce)
    else:
        data = transfer_calldata(destination, units)
        tx = SafeTx(to=raw_address(contract), value_wei=0, data=data, nonce=nonce)
    return SafeMessage(site.network.chain_id, site.sender, tx)


def would_fail(site: SafeSite, message: SafeMessage) -> Reason | None:
    """Why the inner call of a Safe's transaction would fail now, or take more gas than is signed for carrying it out;
    None if it would not. Once owners have signed what cannot be carried out, all that follows waits for it."""
    tx = message.tx
    call = Call(site.sender, tx.to, tx.value_wei, tx.data)
    answer = site.node.simulate(call)
    if isinstance(answer, Reverted):
        why = answer.reason
    elif tx.data and not agrees(answer):
        why = "the token says no, without failing"
    else:
        return _too_much_gas(site, call)
    return Reason(WOULD_REVERT, f"the Safe's call to {checksummed(tx.to)} would fail: {why}"[:500])


def _too_much_gas(site: SafeSite, call: Call) -> Reason | None:
    estimate, cap = site.node.estimate_gas(call), site.network.gas_caps.execution
    if isinstance(estimate, Reverted):
        return Reason(WOULD_REVERT, f"the call to {checksummed(call.to)} would fail: {estimate.reason}"[:500])
    # Of what is left, a call gets 63 of 64 parts (EIP-150).
    around = EXECUTION_GAS + OWNER_GAS * site.wallet.threshold
    least = -(-estimate * 64 // 63) + around
    if least <= cap:
        return None
    return Reason("gas-cap", f"it would take {least} gas, at most {cap} is signed for an execution")


def short(site: SafeSite, asset: str, units: int, available: Mapping[str, int]) -> Reason | None:
    """What is missing to pay so many base units of an asset; None if it is there."""
    if units <= available[asset]:
        return None
    told = site.bundle.asset(asset).told
    return Reason(
        f"insufficient-{site.wallet.tier}-funds",
        f"{told(units)} are needed; {told(available[asset])} can be paid now",
    )


def _choose(
    site: SafeSite, payees: Sequence[Payee], available: Mapping[str, int]
) -> tuple[Payee | None, list[tuple[Payee, Reason]]]:
    """The oldest payment that can be made, and who has to wait."""
    waiting: list[tuple[Payee, Reason]] = []
    for payee in payees:
        asset = payee.signed.order.asset
        reason = short(site, asset, payee.units, available) or would_fail(site, _message(site, payee, 0))
        if reason is None:
            return payee, waiting
        waiting.append((payee, reason))
    return None, waiting


def _message(site: SafeSite, payee: Payee, nonce: int) -> SafeMessage:
    return transfer(site, payee.signed.order.asset, payee.destination.script, payee.units, nonce)


def _record(db: Database, site: SafeSite, payee: Payee, seen: Committed, used: int) -> UUID:
    """The one transaction in which the withdrawal is claimed and what pays it is recorded."""
    with db.transaction() as tx:
        claimed = paying.claim(tx, site, [payee])
        message = safe_nonce.take(tx, site, used=used, say=lambda nonce: _message(site, payee, nonce))
        # Whoever takes a nonce waits for the one before, so money that is on its way is counted by everybody.
        if funds.committed(tx, site) != seen:
            raise Raced("another transaction was recorded, or a block was read, meanwhile")
        built = safe_nonce.version_of(site, message, payment_intents([payee], site), [payee.signed])
        for withdrawal in claimed:
            alerts.resolve_alert(tx, "withdrawal.would_revert", str(withdrawal.id))
        return paying.record(tx, site, claimed, built)
