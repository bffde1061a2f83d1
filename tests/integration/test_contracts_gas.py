"""What a sweep costs in batches of 100, beside an EOA's top-up and transfer (DESIGN section 11)."""

from __future__ import annotations

from collections.abc import Callable

from chains.eth.contracts import artifact
from ops.devnet.anvil import Anvil
from tests.support.evm import Contract, deploy, gas_used, mined, outside_artifact, salt

BATCH = 100
CEILING_KNOWN, CEILING_NEW = 0.21, 1.0


def test_a_token_deposit_costs_a_fifth_when_its_forwarder_is_known_and_less_than_one_when_it_is_new(
    fresh_anvil: Callable[..., Anvil],
) -> None:
    node = fresh_anvil()
    payer, admin, *_ = node.accounts()
    treasury = "0x" + "7e" * 20
    token = deploy(node, payer, outside_artifact("Token"), "USDX", "USDX", 6)
    token.do(payer, "mint", treasury, 1)
    factory = deploy(node, payer, artifact("ForwarderFactory"), treasury, admin)
    own = top_up_and_transfer(node, token, treasury)
    new = sweep(factory, token) / BATCH / own
    known = sweep(factory, token) / BATCH / own
    print(f"gas of a token deposit: EOA {own}; new {new:.4f}, known {known:.4f} of it")
    assert new < CEILING_NEW
    assert known <= CEILING_KNOWN
    assert token.call("balanceOf", treasury) == 1 + 1_000_000 + 2 * BATCH * 1_000_000


def top_up_and_transfer(node: Anvil, token: Contract, treasury: str) -> int:
    """Gas of the usual way: the deposit address has a key, so it must be given ETH before it can pay."""
    payer, address = node.accounts()[0], "0x" + "e0" * 20
    token.do(payer, "mint", address, 1_000_000)
    top_up = mined(node, node.transact(payer, address, value_wei=10**18, gas=21_000))
    return gas_used(top_up) + gas_used(token.do(address, "transfer", treasury, 1_000_000))


def sweep(factory: Contract, token: Contract) -> int:
    """Gas of one transaction that empties 100 forwarders of a deposit each."""
    node, payer = factory.node, factory.node.accounts()[0]
    salts = [salt(10_000 + n) for n in range(BATCH)]
    forwarders = [factory.call("forwarderOf", one) for one in salts]
    for forwarder in forwarders:
        node.transact(payer, token.address, token.data("mint", forwarder, 1_000_000), gas=100_000)
    node.mine()
    receipt = factory.do(payer, "flush", salts, [token.address])
    assert all(token.call("balanceOf", forwarder) == 0 for forwarder in forwarders)
    return gas_used(receipt)
