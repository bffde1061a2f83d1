"""FAULTS row 46, for two EVM networks side by side: what is signed for one is worth nothing on the other."""

from __future__ import annotations

from ops.demo import arrivals, ethereum, evm_payments
from ops.demo.ethereum import ETH_WEI
from ops.demo.evm import EvmSide
from ops.demo.world import World
from ops.devnet.anvil import AnvilRefused
from ops.stack.networks import ETHEREUM, POLYGON


def refuses(side: EvmSide, raw: str) -> bool:
    try:
        side.node.send_raw(raw)
    except AnvilRefused as refusal:
        return "chain" in refusal.message.lower()
    return False


def test_fault_46_transactions_of_two_evm_networks_never_cross(world: World) -> None:
    arrivals.customers(world)
    ethereum.gas(world)
    ethereum.addresses(world)
    evm_payments.second_network(world)
    first, second = world.chains[ETHEREUM.chain], world.chains[POLYGON.chain]

    # Each network has a key, a factory and addresses of its own; one address is not believed on the other.
    assert first.keyset.address != second.keyset.address
    assert first.keyset.attestation_key != second.keyset.attestation_key
    assert not set(first.forwarders) & set(second.forwarders)

    # Money sent to the right address on the wrong network is no deposit there, and stops nobody.
    first.pay(second.addresses["carol"], ETH_WEI)
    second.pay(first.addresses["alice"], ETH_WEI)
    known = {entry["id"] for entry in world.api.deposits()}
    for side in (first, second):
        side.node.finalize()
        world.await_monitor(side.network.chain)
    assert {entry["id"] for entry in world.api.deposits()} == known

    # Whatever either key has signed names its network, and the other network's node refuses the bytes.
    first.pay(first.addresses["alice"], ETH_WEI)
    first.node.finalize()
    ethereum.await_swept(world, first)
    for side, other in ((first, second), (second, first)):
        sent = side.sent()
        assert sent
        for txid in sent:
            assert int(side.transaction(txid)["chainId"], 16) == side.network.chain_id
            assert refuses(other, side.node.rpc("eth_getRawTransactionByHash", f"0x{txid}"))
            assert not other.mined(txid)

    world.until(world.reconcile, lambda report: report["exit_code"] == 0, "nothing to differ")
