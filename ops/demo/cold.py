"""The tour's chapter on the cold tier: three of five holders sign, each offline, by pictures of QR codes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from chains.btc.multisig import agreed_multisig_address, parse_multisig
from chains.btc.network import NETWORKS
from chains.pictures import read_series
from ops.demo import ethereum, payments, refills, warm
from ops.demo.offline import OfflineMachine, interfaces, isolation
from ops.demo.record import expect
from ops.demo.world import CONFIRMATIONS, World
from ops.stack.holders import holders_of
from ops.stack.keys import private_directory
from ops.stack.listing import ASSET, BTC_SATS, ETH_WEI
from ops.stack.names import BTC_COLD, BTC_KEYSET, COLD_THRESHOLD
from policies.bundle import BitcoinVault, TrustRoot
from policies.bundle.root import root_fingerprint
from signers.airgap.registering import COMPARED_LETTERS

Kind = Literal["psbt", "json"]
"""Of a request's file."""

EVA: Final = "eva"
EVA_SATS: Final = 15 * BTC_SATS
LARGE_SATS: Final = 12 * BTC_SATS
EVA_WEI: Final = 210 * ETH_WEI
LARGE_WEI: Final = 205 * ETH_WEI
SAFE_BEGINS_WEI: Final = 300 * ETH_WEI
TRIED_IN: Final = "0.00100000"
"""What may go to a cold vault that nobody has tried out."""
TRIED_OUT: Final = "0.00050000"
TREASURERS: Final = ("ada", "ben", "cleo")
PRESENT: Final = ("ines", "kira", "mona")
"""Three of the five holders; the others sleep."""


def funds(world: World) -> dict[str, Any]:
    """eva pays in more than hot and warm together may hold: the excess goes straight to cold, once two agree."""
    warm.new_customer(world, EVA)
    txid = world.pay(EVA, EVA_SATS)
    world.await_pending(txid)
    world.mine(CONFIRMATIONS)
    world.await_deposit(EVA, txid, "credited")
    world.btc.credit(EVA, EVA_SATS)
    moved = refills.move(world, BTC_KEYSET, BTC_COLD, ASSET, warm.TREASURERS)
    warm.fund_safe(world, world.safe("cold"), SAFE_BEGINS_WEI)
    return {"refill": moved, "tiers": world.tiers(ASSET), "balances": world.expect_balances(EVA)}


def register(world: World) -> dict[str, Any]:
    """Each holder takes in the signed bundle offline: compares the quorum, the vault's and the Safe's addresses."""
    root = world.terminal.directory / "trust-root.json"
    quorum = root_fingerprint(msgspec.json.decode(root.read_bytes(), type=TrustRoot))
    vault, safe = _vault(world), world.safe("cold")
    answers = (
        (r"record of the ceremony says it:|ceremony's paper says it:", quorum),
        (r"of address 0/0, as another holder reads them:", _address(vault)[-COMPARED_LETTERS:]),
        (r"of its address, as another holder reads them:", safe.address[-COMPARED_LETTERS:]),
    )
    bundle = world.terminal.directory / "bundle.json"
    if isolation():
        expect(interfaces() == ["lo"], "the holders' processes see no network card", seen=interfaces())
        world.note("each holder's process has a network namespace of its own, with no interface in it")
    else:
        world.note(
            "this machine allows no network namespaces: the holders' program gives up the network itself"
        )
    with ThreadPoolExecutor() as together:
        shown = list(
            together.map(
                lambda machine: machine.run("register", str(bundle), "--root", str(root), answers=answers),
                _machines(world),
            )
        )
    expect(all("Registered." in each for each in shown), "what was compared is registered", shown=shown)
    return {"holders": list(PRESENT), "quorum": quorum, "vault": vault.descriptor, "safe": safe.address}


def prove(world: World) -> dict[str, Any]:
    """Before real money goes to the cold vault: a little goes in, and three holders sign a part of it out."""
    readings = [
        word
        for name in PRESENT
        for word in ("--read", f"{name}={_address(_vault(world))[-COMPARED_LETTERS:]}")
    ]
    before = world.terminal.run("cold", "prove", BTC_COLD)
    expect(before.returncode == 1, "nothing is proven yet", said=before.stdout)
    # So little asks nobody.
    came = refills.confirm(world, refills.ask(world, BTC_KEYSET, BTC_COLD, TRIED_IN))
    # Straight to hot: a way on which the treasury has nothing under way itself.
    went = refills.ask(world, BTC_COLD, BTC_KEYSET, TRIED_OUT)
    refills.approve(world, went, TREASURERS)
    signed = sign_request(world, await_request(world, BTC_COLD), "psbt", amount=TRIED_OUT)
    went = refills.confirm(world, went)
    proven = world.terminal.json("cold", "prove", BTC_COLD, *readings)
    for step in proven["steps"]:
        world.note(f"{step['step']}: {step['told']}")
    return {"in": came, "out": went, "signed": signed, "proven": proven}


def bitcoin(world: World) -> dict[str, Any]:
    """12 BTC: three people agree, three of five holders sign offline, and what they bring is combined and sent."""
    address = world.outside.address()
    made = world.withdraw_as(warm.ORDERS_AND_APPROVES, world.order(EVA, address, LARGE_SATS))
    warm.agree(world, made["id"], TREASURERS)
    signed = _sign_offline(world, made["id"], BTC_COLD, "psbt", amount="12")
    sent = world.await_withdrawal(made["id"], "broadcast")
    world.await_pending(sent["txids"][-1])
    world.mine(CONFIRMATIONS)
    settled = world.await_withdrawal(made["id"], "settled")
    world.paid(EVA, settled, address, LARGE_SATS)
    return {
        "withdrawal": made["id"],
        "amount": world.btc.show(LARGE_SATS),
        "approved": list(TREASURERS),
        "signed": signed,
        "txid": settled["confirmed_txid"],
        "balances": world.expect_balances(EVA),
    }


def safe(world: World) -> dict[str, Any]:
    """205 ETH out of the Safe: the same three sign what they read, and the gas payer carries it out."""
    side, payee, vault = world.ethereum, world.ethereum.stranger(), world.safe("cold")
    ethereum.new_address(world, side, EVA)
    txid = side.pay(side.addresses[EVA], EVA_WEI)
    side.node.finalize()
    world.await_deposit(EVA, txid, "credited")
    world.books["ETH"].credit(EVA, EVA_WEI)
    made = world.withdraw_as(warm.ORDERS_AND_APPROVES, world.order(EVA, payee, LARGE_WEI, "ETH"))
    warm.agree(world, made["id"], TREASURERS)
    signed = _sign_offline(world, made["id"], vault.id, "json", amount="205")
    settled = warm.settle_safe(world, made["id"])
    arrived = side.node.balance_wei(payee)
    expect(arrived == LARGE_WEI, "the payee has it, once", arrived=arrived)
    world.book_payment(EVA, settled, LARGE_WEI)
    return {
        "withdrawal": made["id"],
        "amount": world.books["ETH"].show(LARGE_WEI),
        "safe": vault.address,
        "signed": signed,
        "txid": settled["confirmed_txid"],
        "balances": world.expect_balances(EVA, asset="ETH"),
        "reconciled": payments.reconcile(world)["assets"],
        "verified": payments.verify(world)["examined"],
    }


def _sign_offline(world: World, withdrawal: str, wallet: str, kind: Kind, *, amount: str) -> dict[str, Any]:
    """Hands a request out as pictures, has three holders sign it offline, and brings back what they show."""
    request = await_request(world, wallet)
    expect(request["needed"].startswith(f"{COLD_THRESHOLD} of "), "three must sign", request=request)
    return sign_request(world, request, kind, amount=amount)


def await_request(world: World, wallet: str) -> dict[str, Any]:
    """Waits until something of a cold vault waits for signatures, and returns it."""
    found = world.until(
        lambda: [each for each in world.terminal.json("cold", "list") if each["wallet"] == wallet],
        bool,
        f"a request for the holders of {wallet}",
    )
    world.note(f"for the holders of {wallet}: {'; '.join(found[0]['does'])}")
    return dict(found[0])


def sign_request(world: World, request: dict[str, Any], kind: Kind, *, amount: str) -> dict[str, Any]:
    """The same for a request that is known.

    Args:
        world: ours.
        request: as `strongroom cold list` shows it.
        kind: of its file.
        amount: what the holders type, having read it.
    """
    folder = private_directory(world.terminal.directory / "handed" / request["id"])
    ending = f".{kind}"
    names = [word for name in PRESENT for word in ("--holder", name)]
    codes = private_directory(folder / "codes")
    answers = ((r"first digits will do\):", amount), (r"Type  yes  to sign:", "yes"))
    out = folder / f"request{ending}"
    handed = world.terminal.json(
        "cold", "export", request["id"], *names, "--out", str(out), "--png", str(codes)
    )
    pictures = handed["pictures"]
    world.note(f"the request leaves as {len(pictures)} pictures of QR codes")

    def sign(machine: OfflineMachine) -> Path:
        back = private_directory(folder / f"from-{machine.holder.name}")
        to = machine.holder.folder / f"{request['id']}{ending}"
        machine.run(
            "sign",
            str(codes),
            "--to",
            str(to),
            "--png",
            str(back),
            answers=answers,
        )
        brought = folder / f"{machine.holder.name}{ending}"
        brought.write_bytes(read_series([back], lambda _: None).data)
        return brought

    with ThreadPoolExecutor() as together:
        brought = list(together.map(sign, _machines(world)))
    world.note(
        f"{', '.join(PRESENT)} have read and signed it, each offline; their signatures come back as pictures"
    )
    taken = world.terminal.json("cold", "import", *map(str, brought))
    last = taken[-1]
    expect(last["state"] == "complete", "three signatures make it complete", taken=taken)
    return {
        "request": request["id"],
        "does": request["does"],
        "holders": last["signed"],
        "pictures": len(pictures),
    }


def _machines(world: World) -> Sequence[OfflineMachine]:
    holders = {holder.name: holder for holder in holders_of(world.terminal.directory)}
    return [OfflineMachine(holders[name]) for name in PRESENT]


def _vault(world: World) -> BitcoinVault:
    vault = world.bundle.wallet(BTC_COLD)
    assert isinstance(vault, BitcoinVault)
    return vault


def _address(vault: BitcoinVault) -> str:
    members = [(each.origin, each.account) for each in vault.cosigners]
    return agreed_multisig_address(parse_multisig(vault.threshold, members, NETWORKS["regtest"]), 0, 0)
