"""The tour's second half: withdrawals in all their fates, and the ledger against the chain."""

from __future__ import annotations

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ops.demo.record import expect
from ops.demo.world import CONFIRMATIONS, World
from policies.bundle import BitcoinVault

MAIN_NETWORK_ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
_BUMP_SAT_PER_KVB = 20_000


def batch(world: World) -> dict[str, Any]:
    """Two withdrawals of two customers leave in one transaction, with change, and settle after six blocks."""
    wishes = (
        ("alice", world.outside.address("bech32m"), 2_000_000),
        ("carol", world.outside.address("legacy"), 3_000_000),
    )
    with ThreadPoolExecutor(2) as both:
        made = list(both.map(lambda wish: world.withdraw(*wish), wishes))
    world.note("ordered " + " and ".join(f"{world.btc.show(wish[2])} for {wish[0]}" for wish in wishes))
    sent = [world.await_withdrawal(entry["id"], "broadcast") for entry in made]
    expect(
        sent[0]["txids"] == sent[1]["txids"],
        "orders that come together share a transaction",
        txids=[entry["txids"] for entry in sent],
    )
    world.await_pending(sent[0]["txids"][-1])
    block = world.mine(CONFIRMATIONS)[0]
    settled = [world.await_withdrawal(entry["id"], "settled") for entry in made]
    for entry, (customer, address, amount_sats) in zip(settled, wishes, strict=True):
        world.paid(customer, entry, address, amount_sats)
    return {
        "withdrawals": [entry["id"] for entry in settled],
        "txid": settled[0]["confirmed_txid"],
        "amounts": [world.btc.show(wish[2]) for wish in wishes],
        "destinations": [wish[1] for wish in wishes],
        "customer_fees": [entry["fee"] for entry in settled],
        "network_fee": settled[0]["versions"][-1]["network_fee"],
        "block": block,
        "balances": world.expect_balances("alice", "carol"),
    }


def bumped(world: World) -> dict[str, Any]:
    """Nobody mines; the fee is raised. The replacement spends the same coin, so only one can ever confirm."""
    address, amount_sats = world.outside.address("p2sh-segwit"), 1_000_000
    made = world.withdraw("alice", address, amount_sats)
    first = world.await_withdrawal(made["id"], "broadcast")
    old = first["txids"][-1]
    world.await_pending(old)
    before = {(i["txid"], i["vout"]) for i in world.node.rpc("getrawtransaction", old, True)["vin"]}
    world.operator.bump_withdrawal(made["id"], feerate=_BUMP_SAT_PER_KVB)
    world.note(f"{old} waits; an operator asks for {_BUMP_SAT_PER_KVB // 1000} sat/vB")
    second = world.until(
        lambda: world.api.withdrawal(made["id"]),
        lambda entry: len(entry["txids"]) == 2,
        "a second signed version",
    )
    new = second["txids"][-1]
    world.await_pending(new)
    after = {(i["txid"], i["vout"]) for i in world.node.rpc("getrawtransaction", new, True)["vin"]}
    expect(
        before <= after, "the replacement spends every coin of the first version", before=before, after=after
    )
    expect(old not in world.node.rpc("getrawmempool"), "the first version has left the mempool")
    block = world.mine(CONFIRMATIONS)[0]
    settled = world.await_withdrawal(made["id"], "settled")
    expect(settled["confirmed_txid"] == new, "the second version confirmed", withdrawal=settled)
    world.paid("alice", settled, address, amount_sats)
    return {
        "withdrawal": made["id"],
        "amount": world.btc.show(amount_sats),
        "destination": address,
        "first_txid": old,
        "txid": new,
        "network_fees": [version["network_fee"] for version in settled["versions"]],
        "block": block,
        "balances": world.expect_balances("alice"),
    }


def over_limit(world: World) -> dict[str, Any]:
    """More than the hot tier pays: hot keeps its hands off, warm's people are asked. Cancelled, the money is free."""
    amount_sats = 20_000_000
    made = world.withdraw("alice", world.outside.address(), amount_sats)
    waiting = world.await_withdrawal(made["id"], "awaiting_approval")
    expect(not waiting["txids"], "nothing was signed", txids=waiting["txids"])
    world.note(f"it waits: {waiting['reason']}; alice thinks better of it")
    world.api.cancel_withdrawal(made["id"])
    cancelled = world.await_withdrawal(made["id"], "cancelled")
    return {
        "withdrawal": made["id"],
        "amount": world.btc.show(amount_sats),
        "state": cancelled["state"],
        "waited": waiting["reason"],
        "balances": world.expect_balances("alice"),
    }


def bad_address(world: World) -> dict[str, Any]:
    """An address of another network: a clear problem, and nothing changes."""
    body = world.signed(world.order("alice", MAIN_NETWORK_ADDRESS, 1_000_000))
    answer = world.api.send("POST", "/v1/withdrawals", body=body, idempotency_key=str(uuid.uuid4()))
    expect(400 <= answer.status_code < 500, "the API refuses it", status=answer.status_code, body=answer.text)
    kind = answer.headers["content-type"]
    expect(kind.startswith("application/problem+json"), "as a problem", media_type=kind)
    known = world.api.send("GET", f"/v1/withdrawals/{body['order']['id']}")
    expect(known.status_code == 404, "there is no such withdrawal", status=known.status_code)
    return {
        "address": MAIN_NETWORK_ADDRESS,
        "status": answer.status_code,
        "problem": answer.json(),
        "balances": world.expect_balances("alice"),
    }


def repeated(world: World) -> dict[str, Any]:
    """The same request under the same idempotency key: the same answer, one payment. Another body: 409."""
    address, amount_sats, key = world.outside.address(), 1_500_000, str(uuid.uuid4())
    body = world.signed(world.order("carol", address, amount_sats))
    first = world.api.post("/v1/withdrawals", body, idempotency_key=key)
    again = world.api.post("/v1/withdrawals", body, idempotency_key=key)
    expect(first == again, "the repeated request gets the same answer", first=first, again=again)
    other = world.signed(world.order("carol", address, amount_sats + 1))
    refused = world.api.send("POST", "/v1/withdrawals", body=other, idempotency_key=key)
    expect(refused.status_code == 409, "another body under the same key is refused", answer=refused.text)
    sent = world.await_withdrawal(first["id"], "broadcast")
    world.await_pending(sent["txids"][-1])
    world.mine(CONFIRMATIONS)
    settled = world.await_withdrawal(first["id"], "settled")
    world.paid("carol", settled, address, amount_sats)
    return {
        "withdrawal": first["id"],
        "idempotency_key": key,
        "amount": world.btc.show(amount_sats),
        "txid": settled["confirmed_txid"],
        "network_fee": settled["versions"][-1]["network_fee"],
        "other_body": {"status": refused.status_code, "problem": refused.json()},
        "balances": world.expect_balances("carol"),
    }


def internal(world: World) -> dict[str, Any]:
    """Alice pays bob's deposit address: it is ours, so the ledger settles it at once without the chain."""
    amount_sats = 1_250_000
    before = world.node.rpc("getrawmempool")
    made = world.withdraw("alice", world.addresses["bob"], amount_sats)
    settled = world.await_withdrawal(made["id"], "settled")
    expect(settled["settlement"] == "internal", "settled in the ledger", withdrawal=settled)
    expect(world.node.rpc("getrawmempool") == before, "nothing was broadcast")
    world.btc.balances["alice"] -= amount_sats + world.btc.read(settled["fee"])
    world.btc.balances["bob"] = world.btc.balances.get("bob", 0) + amount_sats
    world.btc.fees_earned += world.btc.read(settled["fee"])
    return {
        "withdrawal": made["id"],
        "amount": world.btc.show(amount_sats),
        "destination": world.addresses["bob"],
        "customer_fee": settled["fee"],
        "balances": world.expect_balances("alice", "bob"),
    }


def statements(world: World) -> dict[str, Any]:
    """Each customer's statement of each asset, replayed from zero, ends at the balance."""
    found: dict[str, Any] = {}
    for asset, books in world.books.items():
        for customer in sorted(books.balances):
            lines = world.statement(customer, asset)
            ends: dict[str, int] = {}
            for line in lines:
                before = ends.get(line["account"], 0)
                expect(books.read(line["balance_before"]) == before, "lines continue each other", line=line)
                ends[line["account"]] = before + books.read(line["amount"])
                expect(books.read(line["balance_after"]) == ends[line["account"]], "lines add up", line=line)
            expect(
                (ends.get("available", 0), ends.get("frozen", 0)) == (books.balances[customer], 0),
                f"the statement of {customer} ends at the balance",
                ends=ends,
            )
            found[f"{customer} {asset}"] = {
                "lines": len(lines),
                "balance": books.show(books.balances[customer]),
            }
    return {"statements": found}


def reconcile(world: World) -> dict[str, Any]:
    """Ledger against chains, to the base unit: by `strongroom reconcile` and by our own sum of what is there."""
    found: dict[str, Any] = {}
    for side in world.chains.values():
        world.native(side).network_fees = {txid: side.fee_wei(txid) for txid in side.sent()}
    for asset, books in world.books.items():
        on_chain = _on_chain(world, asset)
        expect(
            on_chain == books.on_chain,
            f"what is on the chain is what customers have and what the house has earned, in {asset}",
            on_chain=on_chain,
            books=books,
        )
        found[asset] = {
            "on_chain": books.show(on_chain),
            "owed_to_customers": books.show(books.owed),
            "fees_earned": books.show(books.fees_earned),
            "suspense": books.show(books.suspense),
            "network_fees": books.show(sum(books.network_fees.values())),
            "difference": books.show(on_chain - books.on_chain),
        }
    # Workers reconcile, too, and a node scans for one at a time.
    report = world.until(
        world.reconcile, lambda found: not found.get("absent", True), "every chain to be compared"
    )
    expect(report["ok"], "strongroom reconcile finds no difference", report=report)
    reported = Counter[str]()
    for entry in report["wallets"]:
        reported[entry["asset"]] += int(entry["node"])
    for asset, books in world.books.items():
        expect(reported[asset] == books.on_chain, f"it has seen the same {asset}", reported=reported)
    alerts = [a for a in world.operator.items("/v1/alerts") if a["resolved_at"] is None]
    critical = [a for a in alerts if a["severity"] == "critical" and a["id"] not in world.known_alerts]
    expect(not critical, "no critical alert is open but for what the tour provoked", alerts=critical)
    return {"assets": found, "report": report}


def verify(world: World) -> dict[str, Any]:
    """The verifier's second pair of eyes: each ledger replayed, each deposit found on its own nodes, each payment in
    the signer's own log."""
    customers = sorted({customer for books in world.books.values() for customer in books.balances})
    for customer in customers:
        found = world.until(
            partial(world.examine, customer),
            lambda found: found.findings or not found.unknowns,
            f"the verifier to examine {customer}",
        )
        expect(
            not found.findings, "the verifier finds nothing", findings=[str(each) for each in found.findings]
        )
    return {"examined": customers}


def _on_chain(world: World, asset: str) -> int:
    """What the chain's node says that the service's keys and addresses have."""
    entry = world.bundle.asset(asset)
    if entry.chain in world.chains:
        return world.chains[entry.chain].holdings(entry.contract)
    descriptors = [f"wpkh({world.btc_keyset.account}/{branch}/*)" for branch in (0, 1)]
    for vault in world.bundle.vaults:
        if isinstance(vault, BitcoinVault):
            plain = vault.descriptor.partition("#")[0]
            descriptors += [plain.replace("<0;1>", str(branch)) for branch in (0, 1)]
    return world.node.scan_sats(descriptors, 1000)
