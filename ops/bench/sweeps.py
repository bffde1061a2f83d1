"""Gas to sweep a token deposit in batches of 100 forwarders, beside an EOA that gets its gas and pays it on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from chains.eth.address import checksummed, keccak256, raw_address
from chains.eth.forwarder import agreed_forwarder, flush_calldata, salt_of
from ops.bench.compare import Row
from ops.devnet.anvil import Anvil
from ops.stack.contracts import OUTSIDE, ask, calldata, deploy, mined

_BATCH: Final = 100
_UNITS: Final = 25_000_000
_PEER: Final = "an EOA each: its gas sent to it, its token transfer to the treasury"
_UNIT: Final = "gas a deposit, less is better"


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Gas of one deposit, all transactions counted; the ratio is ours over the EOA's, so below 1 is cheaper."""
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name, Anvil(Path(name)) as node:
        yield from _compare(node, progress)


def _compare(node: Anvil, progress: Callable[[str], None]) -> Iterator[Row]:
    house, treasury, admin, *_ = node.accounts()
    progress("sweep gas: contracts")
    factory = deploy(node, house, "ForwarderFactory", (treasury, admin))
    token = deploy(node, house, "Token", ("Example Dollar", "USDX", 6), directory=OUTSIDE)
    initcode = bytes(ask(node, factory, "initcodeHash()", "bytes32")).hex()
    forwarders = [agreed_forwarder(factory, initcode, index) for index in range(_BATCH)]
    strangers = [checksummed(keccak256(b"eoa%d" % number)[12:]) for number in range(_BATCH)]
    # Both sides pay into a treasury that has some of the token already, as any has but on its first day.
    _deposit(node, house, token, [treasury])
    data = flush_calldata([salt_of(index) for index in range(_BATCH)], [raw_address(token)])

    def swept() -> float:
        _deposit(node, house, token, forwarders)
        gas = _gas(node, node.transact(house, factory, data, gas=16_000_000))
        _expect_swept(node, token, treasury, forwarders)
        return gas / _BATCH

    def topped_up() -> float:
        _deposit(node, house, token, strangers)
        gas = 0
        onward = calldata("transfer(address,uint256)", treasury, _UNITS)
        for stranger in strangers:
            gas += _gas(node, node.send_eth(house, stranger, 10**15))
            gas += _gas(node, node.transact(stranger, token, onward, gas=100_000))
        _expect_swept(node, token, treasury, strangers)
        return gas / _BATCH

    progress(f"sweep gas: {_BATCH} deposits by an EOA each")
    peer = topped_up()
    progress(f"sweep gas: {_BATCH} forwarders that do not exist yet, in one transaction")
    new = swept()
    progress(f"sweep gas: {_BATCH} forwarders that exist, in one transaction")
    known = swept()
    yield Row("sweep-gas-known", known, peer, _PEER, _UNIT)
    yield Row("sweep-gas-new", new, peer, _PEER, _UNIT)


def _deposit(node: Anvil, house: str, token: str, addresses: list[str]) -> None:
    for address in addresses:
        node.transact(house, token, calldata("mint(address,uint256)", address, _UNITS), gas=100_000)
    node.mine()


def _gas(node: Anvil, txid: str) -> int:
    return int(mined(node, txid)["gasUsed"], 16)


def _expect_swept(node: Anvil, token: str, treasury: str, addresses: list[str]) -> None:
    left = [address for address in addresses if ask(node, token, "balanceOf(address)", "uint256", address)]
    if left:
        raise AssertionError(f"{len(left)} of {len(addresses)} deposits did not reach {treasury}")
