"""The tour on Ethereum, arrivals: gas, attested addresses, deposits real and pretended, a reorg, ten in one sweep."""

from __future__ import annotations

from typing import Any

from chains.eth.forwarder import agreed_forwarder, index_of
from ops.demo.arrivals import CUSTOMERS, attested
from ops.demo.evm import EvmSide
from ops.demo.record import expect
from ops.demo.world import World
from ops.stack.networks import GAS_MONEY_WEI, USDX

ETH_WEI = 10**18
USDX_UNITS = 10**6
FORWARDERS = 10


def gas(world: World) -> dict[str, Any]:
    """Operators send each sender its first gas. It is nobody's deposit, so it is booked to suspense.

    Where balances are compared instead of traces, it shows up as a surplus when books and chain are reconciled.
    """
    found: dict[str, Any] = {}
    for chain, side in world.chains.items():
        books = world.native(side)
        txids = side.send_gas()
        side.node.finalize()
        for address in side.senders:
            world.note(f"{chain}: operators send {books.show(GAS_MONEY_WEI)} to {address}")
            books.suspense += GAS_MONEY_WEI
        found[chain] = {"senders": side.senders, "factory": side.keyset.factory, "txids": txids}
        if side.network.native_mode == "trace":
            for address in side.senders:
                world.await_suspense(address, side.network.native_asset, GAS_MONEY_WEI)
    return {"on_suspense": found}


def addresses(world: World) -> dict[str, Any]:
    """One address a customer, for all assets of the chain: a contract to be, which the caller derives again."""
    return {"addresses": {name: new_address(world, world.ethereum, name) for name in CUSTOMERS}}


def new_address(world: World, side: EvmSide, customer: str) -> str:
    """A new forwarder of a customer, believed only after checking the signer's word and deriving it again."""
    keyset, asset = side.keyset, side.network.native_asset
    word = attested(world, customer, asset)
    branch, index = (int(step) for step in word.path.removeprefix(keyset.account_path + "/").split("/"))
    expect(
        (branch, word.address) == (0, agreed_forwarder(keyset.factory, keyset.forwarder, index)),
        "the address follows from the bundle's factory and the salt",
        attestation=word,
    )
    side.forwarders[word.address] = index
    side.addresses[customer] = word.address
    world.note(f"{customer}: {word.address}, salt {index}, attested by the signer, derived again by us")
    return word.address


def deposits(world: World) -> dict[str, Any]:
    """A plain transfer, a contract's 2,300-gas transfer, an internal call and a token: credited when final."""
    side, usdx = world.ethereum, world.contract_of(USDX.asset)
    wallet = side.contract("ContractWallet")
    side.pay(wallet, 2 * ETH_WEI)
    side.node.mine()
    to = side.addresses
    paid = (
        ("alice", "ETH", 3 * ETH_WEI // 2, side.pay(to["alice"], 3 * ETH_WEI // 2), "a plain transfer"),
        (
            "bob",
            "ETH",
            4 * ETH_WEI // 5,
            side.call(wallet, "payByTransfer(address,uint256)", to["bob"], 4 * ETH_WEI // 5),
            "a contract's transfer with 2,300 gas",
        ),
        (
            "carol",
            "ETH",
            3 * ETH_WEI // 5,
            side.call(wallet, "payByCall(address,uint256,bytes)", to["carol"], 3 * ETH_WEI // 5, b""),
            "a contract's internal call",
        ),
        (
            "alice",
            "USDX",
            1_500 * USDX_UNITS,
            side.pay_token(usdx, to["alice"], 1_500 * USDX_UNITS),
            "a token transfer",
        ),
    )
    side.node.mine()
    found = []
    for customer, asset, units, txid, how in paid:
        world.note(f"{customer} gets {world.books[asset].show(units)} by {how}")
        early = world.await_deposit(customer, txid, "confirming")
        expect(early["asset"] == asset, "the asset that was paid", deposit=early)
        expect(world.available(customer, asset) == 0, "what is not final is not in the balance")
        found.append(
            {"how": how, "deposit": early["id"], "txid": txid, "amount": world.books[asset].show(units)}
        )
    side.node.finalize()
    for customer, asset, units, txid, _ in paid:
        # Credited; a sweep may have taken it along before we look.
        world.await_deposit(customer, txid, "credited", "swept")
        world.books[asset].credit(customer, units)
    return {
        "deposits": found,
        "balances": {
            "ETH": world.expect_balances(*CUSTOMERS, asset="ETH"),
            "USDX": world.expect_balances("alice", asset="USDX"),
        },
    }


def fakes(world: World) -> dict[str, Any]:
    """A token of the same name, an event by a liar, a payment that is undone within its transaction, nothing at all."""
    side, victim = world.ethereum, world.ethereum.addresses["alice"]
    known = [entry["id"] for entry in world.api.deposits()]
    fake = side.contract("Token", USDX.name, USDX.asset, USDX.decimals)
    liar, wallet = side.contract("RogueLogs"), side.contract("ContractWallet")
    side.pay(wallet, ETH_WEI)
    side.node.mine()
    tried = {
        "a token that calls itself USDX": side.pay_token(fake, victim, 1_000_000 * USDX_UNITS),
        "a Transfer event by a contract that moves nothing": side.call(
            liar, "pretend(address,address,uint256)", side.payer, victim, 1_000_000 * USDX_UNITS
        ),
        "an internal payment that is undone": side.call(
            wallet, "payInVain(address,uint256)", victim, ETH_WEI // 2
        ),
        "a real transfer of nothing": side.call(
            world.contract_of(USDX.asset), "transfer(address,uint256)", victim, 0
        ),
    }
    side.node.finalize()
    for how, txid in tried.items():
        expect(int(side.receipt(txid)["status"], 16) == 1, f"{how} is in a block, and did not fail")
        world.note(f"{how}: {txid}")
    world.await_monitor(side.network.chain)
    now = [entry["id"] for entry in world.api.deposits()]
    expect(now == known, "no deposit came of it", known=known, now=now)
    return {
        "tried": tried,
        "balances": {
            asset: world.expect_balances("alice", asset=asset)["alice"] for asset in ("ETH", "USDX")
        },
    }


def reorganised(world: World) -> dict[str, Any]:
    """A deposit whose block is replaced is undone; when its transaction is mined again it is credited, once."""
    side, units = world.ethereum, ETH_WEI // 4
    await_swept(world, side)  # so that nothing of ours is in the block that goes away
    before = len(world.statement("bob", "ETH"))
    txid = side.pay(side.addresses["bob"], units)
    first = side.node.mine()[0]
    deposit = world.await_deposit("bob", txid, "confirming")
    [raw] = side.node.reorg(1)
    world.note(f"block {first} is replaced by one without the deposit")
    world.await_deposit("bob", txid, "seen", "orphaned")
    side.node.send_raw(raw)
    side.node.finalize()
    credited = world.await_deposit("bob", txid, "credited", "swept")
    lines = world.statement("bob", "ETH")
    expect(len(lines) == before + 1, "one line of the statement credits it", lines=lines)
    world.books["ETH"].credit("bob", units)
    return {
        "deposit": credited["id"],
        "same_deposit": credited["id"] == deposit["id"],
        "txid": txid,
        "undone_block": first,
        "balances": world.expect_balances("bob", asset="ETH"),
    }


def sweep(world: World) -> dict[str, Any]:
    """Ten forwarders, five with USDX and five with ETH as well, seven not deployed yet: one transaction empties all."""
    side, usdx = world.ethereum, world.contract_of(USDX.asset)
    await_swept(world, side)
    before = side.sent()
    deployed = [address for address in side.addresses.values() if side.deployed(address)]
    expect(deployed, "earlier sweeps have deployed the forwarders that they emptied")
    targets = list(side.addresses.items())
    while len(targets) < FORWARDERS:
        name = CUSTOMERS[len(targets) % len(CUSTOMERS)]
        targets.append((name, new_address(world, side, name)))
    for number, (name, address) in enumerate(targets):
        units = (100 + number) * USDX_UNITS
        side.pay_token(usdx, address, units)
        world.books["USDX"].credit(name, units)
        if number % 2:
            units = ETH_WEI // 10 + number
            side.pay(address, units)
            world.books["ETH"].credit(name, units)
    side.node.finalize()
    swept = await_swept(world, side)
    [txid] = [sent for sent in swept if sent not in before]
    flush = side.flush(txid)
    assert flush is not None
    salts = sorted(index_of(salt) for salt in flush.salts)
    expect(
        salts == sorted(side.forwarders[address] for _, address in targets),
        "one transaction empties all ten",
        salts=salts,
    )
    listed = world.until(
        lambda: next((entry for entry in world.operator.items("/v1/sweeps") if entry["txid"] == txid), None),
        lambda entry: entry is not None and entry["state"] == "confirmed",
        "the API to list the sweep as confirmed",
    )
    assert listed is not None
    expect(listed["addresses"] == FORWARDERS, "the API says so too", sweep=listed)
    left = {a: (side.node.balance_wei(a), side.token_units(usdx, a)) for _, a in targets}
    expect(set(left.values()) == {(0, 0)}, "nothing is left in them", left=left)
    used = int(side.receipt(txid)["gasUsed"], 16)
    world.note(f"{txid} empties {len(salts)} forwarders for {used:,} gas")
    return {
        "sweep": listed["id"],
        "txid": txid,
        "forwarders": [address for _, address in targets],
        "deployed_before": deployed,
        "gas_used": used,
        "fee": world.books["ETH"].show(side.fee_wei(txid)),
        "balances": {asset: world.expect_balances(*CUSTOMERS, asset=asset) for asset in ("ETH", "USDX")},
    }


def await_swept(world: World, side: EvmSide) -> list[str]:
    """Mines what the hot key sends until every credited deposit of the chain is swept; returns all it ever sent."""

    def waiting() -> list[str]:
        if side.unmined():
            side.node.finalize()
        return [
            entry["id"]
            for entry in world.api.deposits(state="credited")
            if entry["chain"] == side.network.chain and entry["customer"] is not None
        ]

    world.await_monitor(side.network.chain)
    world.until(waiting, lambda left: not left and not side.unmined(), "all deposits to be swept")
    return side.sent()
