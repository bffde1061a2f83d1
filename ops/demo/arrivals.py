"""The tour's first half: customers, attested addresses, and three deposits of which two arrive."""

from __future__ import annotations

from typing import Any

import msgspec

from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from ops.demo.record import expect
from ops.demo.world import CONFIRMATIONS, World
from ops.stack.listing import ASSET
from policies.canonical import verify_ed25519
from policies.intent import Attestation
from signers.ports import SignedAttestation

CUSTOMERS = ("alice", "bob", "carol")
ALICE_SATS, BOB_SATS, CAROL_SATS = 50_000_000, 30_000_000, 25_000_000


def service(world: World) -> dict[str, Any]:
    """The service is ready and says what it offers; the outside world has money."""
    parts = world.until(world.ready, lambda found: found is not None, "the service to be ready")
    expect("verifier" in (parts or {}), "the verifier is seen to be at work", parts=parts)
    asset = world.api.asset(ASSET)
    tiers = world.api.get("/v1/tiers")
    world.note("the miner mines 101 blocks, so that somebody outside has coins to spend")
    world.outside.fund()
    world.outside.mine(2)
    world.mine(100)
    world.await_monitor()
    return {
        "ready": parts,
        "bundle_version": tiers["bundle_version"],
        "withdrawal_fee": asset["withdrawal_fee"],
        "hot_tier_pays_below": tiers["items"][0]["payment_below"],
    }


def customers(world: World) -> dict[str, Any]:
    """Three customers are made."""
    for name in CUSTOMERS:
        made = world.api.create_customer(name)
        expect(made["state"] == "active", "a new customer is active", customer=made)
    return {"customers": list(CUSTOMERS)}


def addresses(world: World) -> dict[str, Any]:
    """Each gets an address, which the caller believes only after checking the signer's word and its keys."""
    keyset = world.btc_keyset
    account = AccountKey.parse(keyset.account, NETWORKS["regtest"], keyset.script)
    found: dict[str, Any] = {}
    for name in CUSTOMERS:
        word = attested(world, name, ASSET)
        branch, index = (int(step) for step in word.path.removeprefix(keyset.account_path + "/").split("/"))
        expect(account.address(branch, index) == word.address, "the address derives from the bundle's key")
        world.addresses[name] = word.address
        world.note(f"{name}: {word.address} at {word.path}, attested by the signer, derived again by us")
        found[name] = {"address": word.address, "path": word.path}
    return {"attestation_key": keyset.attestation_key, "addresses": found}


def attested(world: World, customer: str, asset: str) -> Attestation:
    """A new address of a customer, as the signer's attestation has it, which is checked by the bundle's key."""
    chain = world.bundle.asset(asset).chain
    made = world.api.new_address(customer, asset)
    signed = msgspec.convert(made["attestation"], SignedAttestation)
    word = signed.attestation
    verify_ed25519(world.bundle.keyset_for(chain, "hot").attestation_key, word.digest(), signed.signature)
    expect(
        (word.chain, word.asset, word.customer, word.address) == (chain, asset, customer, made["address"]),
        "the attestation is for this customer and address",
        attestation=word,
    )
    return word


def deposit_confirmed(world: World) -> dict[str, Any]:
    """Seen in the mempool, mined, buried under six blocks, credited."""
    txid = world.pay("alice", ALICE_SATS)
    world.note(f"somebody pays alice {world.btc.show(ALICE_SATS)} in {txid}")
    seen = world.await_deposit("alice", txid, "seen")
    expect(world.available("alice") == 0, "an unconfirmed deposit is not in the balance")
    block = world.mine(1)[0]
    world.await_deposit("alice", txid, "confirming")
    world.mine(CONFIRMATIONS - 2)
    early = world.until(
        lambda: world.deposit("alice", txid),
        lambda entry: entry is not None and entry["confirmations"] == CONFIRMATIONS - 1,
        "five confirmations",
    )
    assert early is not None
    expect(early["state"] == "confirming", "five confirmations do not credit", state=early["state"])
    world.mine(1)
    credited = world.await_deposit("alice", txid, "credited")
    expect(
        world.btc.read(credited["amount"]) == ALICE_SATS, "the deposit's amount", amount=credited["amount"]
    )
    world.btc.balances["alice"] = ALICE_SATS
    return {
        "deposit": seen["id"],
        "txid": txid,
        "amount": world.btc.show(ALICE_SATS),
        "block": block,
        "confirmations": CONFIRMATIONS,
        "balances": world.expect_balances("alice"),
    }


def deposit_replaced(world: World) -> dict[str, Any]:
    """Shown to us in the mempool, then double-spent by RBF before any block has it: never credited."""
    txid = world.pay("bob", BOB_SATS)
    world.note(f"somebody pays bob {world.btc.show(BOB_SATS)} in {txid}, replaceable")
    seen = world.await_deposit("bob", txid, "seen")
    replacement = world.double_spend(txid)
    world.note(f"and takes it back with a higher fee in {replacement}")
    world.await_deposit("bob", txid, "orphaned")
    world.mine(CONFIRMATIONS)
    world.await_monitor()
    final = world.await_deposit("bob", txid, "orphaned")
    return {
        "deposit": seen["id"],
        "txid": txid,
        "amount": world.btc.show(BOB_SATS),
        "replaced_by": replacement,
        "state": final["state"],
        "balances": world.expect_balances("bob"),
    }


def deposit_reorganised(world: World) -> dict[str, Any]:
    """Mined, undone by a longer chain without it, mined again: credited once."""
    txid = world.pay("carol", CAROL_SATS)
    world.note(f"somebody pays carol {world.btc.show(CAROL_SATS)} in {txid}")
    first = world.mine(2)
    deposit = world.await_deposit("carol", txid, "confirming")
    world.node.rpc("invalidateblock", first[0])
    world.note("another branch without it is longer: its block is undone")
    branch = [
        world.node.rpc("generateblock", world.miner.address(), [])["hash"] for _ in range(len(first) + 1)
    ]
    world.await_deposit("carol", txid, "seen")
    expect(world.available("carol") == 0, "an undone deposit is not in the balance")
    again = world.mine(CONFIRMATIONS)
    credited = world.await_deposit("carol", txid, "credited")
    lines = world.statement("carol")
    arrived = [line for line in lines if line["type"] == "deposit"]
    expect(len(arrived) == 1, "one line of the statement credits it", lines=lines)
    world.btc.balances["carol"] = CAROL_SATS
    return {
        "deposit": credited["id"],
        "same_deposit": credited["id"] == deposit["id"],
        "txid": txid,
        "amount": world.btc.show(CAROL_SATS),
        "undone_blocks": first,
        "other_branch": branch,
        "mined_again_in": again[0],
        "balances": world.expect_balances("carol"),
    }
