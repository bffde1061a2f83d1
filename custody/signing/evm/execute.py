"""Carrying out what the owners of a Safe have signed: a transaction of the chain's gas payer that calls the Safe.

One at a time for each Safe, its lowest nonce first: others would revert. It is tried on the node before it is asked
for, and recorded at most once for each complete transaction of the Safe; if it fails, the very same bytes are sent by
another. What confirms the Safe's transaction is the use of the Safe's nonce, by whomever.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chains.eth import gas
from chains.eth.address import raw_address
from chains.eth.call import Reverted
from chains.eth.gas import FeeOffer
from chains.eth.safe import safe_resource
from custody.ids import new_id
from custody.signing import executions, repository
from custody.signing.errors import Raced
from custody.signing.evm import funds, nonces, stuck
from custody.signing.evm.assemble import Draft, assemble
from custody.signing.evm.funds import Committed
from custody.signing.evm.plan import offer_for
from custody.signing.evm.site import GasPayerSite
from custody.signing.evm.stuck import WAITS
from custody.signing.lifecycle import TransactionState
from custody.signing.model import OurTransaction
from custody.signing.recording import record_first
from custody.signing.requests import house_intent
from custody.storage import alerts, halts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from policies.bundle import EvmVault
from policies.decision import Reason
from policies.intent import Kind

FAILED_AT_MOST = 3
"""Executions of one transaction that were mined and did nothing, before it counts as stuck."""
_CARRIED_OUT = frozenset({"active", "deactivated", "compromised"})
"""States of a Safe whose transactions are sent: its owners have judged each, by the rules of the state."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """One execution, before it is recorded."""

    vault: EvmVault
    serves: OurTransaction
    safe_nonce: int
    draft: Draft
    gas_limit: int
    offer: FeeOffer


def build(db: Database, site: GasPayerSite, now: int) -> UUID | None:
    """Record one execution, if a Safe's complete transaction waits for one; see `custody.signing.build`."""
    for vault in site.bundle.vaults:
        if isinstance(vault, EvmVault) and vault.chain == site.chain and vault.state in _CARRIED_OUT:
            built = _build(db, site, vault)
            if built is not None:
                return built
    return None


def _build(db: Database, site: GasPayerSite, vault: EvmVault) -> UUID | None:
    with db.snapshot() as tx:
        if _halted(tx, site, vault) is not None or not executions.wait(tx, site.chain, vault.id):
            return None
    node, safe = site.node, raw_address(vault.address)
    used = node.nonce(site.sender, node.tip())
    safe_nonce = node.safes.nonce(safe, node.tip())
    with db.snapshot() as tx:
        serves = executions.due(tx, site.chain, vault.id, safe_resource(safe, safe_nonce))
        seen = funds.committed(tx, site)
        in_flight = nonces.unconfirmed(tx, site.chain, site.wallet.id)
        stopped = None if serves is None else executions.stopped(tx, vault, serves.id)
    if serves is None or seen is None or in_flight >= site.pace.unconfirmed_at_most:
        return None
    if stopped is not None:
        _wait(db, site, vault, serves, Reason("halted", stopped))
        return None
    with db.snapshot() as tx:
        failed = executions.failing(tx, serves.id, seconds=site.pace.stuck_seconds)
    planned = _plan(site, vault, serves, safe_nonce, seen)
    if failed >= FAILED_AT_MOST:
        planned = Reason("would-revert", f"{failed} executions were mined and did nothing")
    if isinstance(planned, Reason):
        seconds = _wait(db, site, vault, serves, planned)
        if failed >= FAILED_AT_MOST or seconds >= site.pace.stuck_seconds:
            stuck.give_up(db, site, vault, serves, planned)
        return None
    try:
        return _record(db, site, planned, seen, used)
    except Raced:
        return None


def _halted(tx: Tx, site: GasPayerSite, vault: EvmVault) -> str | None:
    """Why nothing is sent for a Safe now, if so."""
    return site.halted(tx) or halts.halted(tx, site.chain, tier=vault.tier, wallet=vault.id)


def _plan(
    site: GasPayerSite, vault: EvmVault, serves: OurTransaction, safe_nonce: int, seen: Committed
) -> _Planned | Reason:
    signed = serves.newest_signed
    assert signed is not None, "only complete ones are due"
    assert signed.signed is not None
    cap = site.network.gas_caps.execution
    draft = Draft(raw_address(vault.address), 0, signed.signed, cap)
    estimate = site.node.estimate_gas(draft.call(site.sender))
    if isinstance(estimate, Reverted):
        return Reason(
            "would-revert", f"the Safe would refuse it, or its call would fail: {estimate.reason}"[:500]
        )
    limit = gas.gas_limit(estimate, cap)
    if limit is None:
        return Reason("gas-cap", f"it would take {estimate} gas, at most {cap} is signed for an execution")
    found = offer_for(site, site.node.gas_price(), limit, int(site.network.fee_cap))
    if isinstance(found, Reason):
        return found
    needed, there = limit * found.max_fee_wei, funds.available(site, seen, ())[site.asset.id]
    if needed > there:
        told = site.asset.told
        return Reason(
            "insufficient-gas",
            f"{site.wallet.id} needs {told(needed)} for gas; {told(there)} can be paid now",
        )
    return _Planned(vault, serves, safe_nonce, draft, limit, found)


def _wait(db: Database, site: GasPayerSite, vault: EvmVault, serves: OurTransaction, reason: Reason) -> int:
    """Says so, louder after a while; returns for how many seconds it has waited."""
    told = f"owners of {serves.keyset} have signed it, and it is not carried out now: {reason}"
    data: dict[str, Any] = {"chain": site.chain, "vault": serves.keyset, "by": stuck.kept_by(reason)}
    with db.transaction() as tx:
        before = alerts.open_for(tx, WAITS, str(serves.id))
        if before is not None and before.data.get("by") != data["by"]:
            alerts.resolve_alert(tx, WAITS, str(serves.id))
        repository.schedule_broadcast(tx, serves.id, site.pace.wait_seconds, str(reason))
        alerts.raise_alert(tx, Severity.WARNING, WAITS, str(serves.id), told, data)
        now = alerts.open_for(tx, WAITS, str(serves.id))
        seconds = 0 if now is None else now.seconds
        if now is None or now.severity is Severity.CRITICAL or seconds < site.pace.stuck_seconds:
            return seconds
        alerts.resolve_alert(tx, WAITS, str(serves.id))
        told += f". It holds up all that {vault.id} is to pay{stuck.what_to_do(tx, vault, serves, reason)}"
        since = {"since": int(time.time()) - seconds}
        alerts.raise_alert(tx, Severity.CRITICAL, WAITS, str(serves.id), told, data | since)
        return seconds


def _record(db: Database, site: GasPayerSite, planned: _Planned, seen: Committed, used: int) -> UUID:
    """The one transaction in which an execution is recorded, for a Safe's transaction that still waits for it."""
    vault, serves = planned.vault, planned.serves
    with db.transaction() as tx:
        current = repository.lock(tx, serves.id)
        if current.state is not TransactionState.BROADCAST or current.newest_signed != serves.newest_signed:
            raise Raced(f"{serves.id} was carried out or given up meanwhile")
        if _halted(tx, site, vault) is not None or executions.stopped(tx, vault, serves.id) is not None:
            raise Raced("paying was halted meanwhile")
        nonce = nonces.take(tx, site.chain, site.account, used=used)
        if funds.committed(tx, site) != seen:
            raise Raced("another transaction was recorded, or a block was read, meanwhile")
        id_ = new_id()
        intent = house_intent(site, Kind.EXECUTION, str(id_), vault.address)
        built = assemble(
            site,
            planned.draft,
            (intent,),
            (),
            nonce=nonce,
            gas_limit=planned.gas_limit,
            offer=planned.offer,
            safe_nonce=planned.safe_nonce,
        )
        record_first(tx, site, id_, Kind.EXECUTION, built)
        executions.insert(tx, id_, serves.id)
        alerts.resolve_alert(tx, WAITS, str(serves.id))
    return id_
