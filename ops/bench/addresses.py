"""Deposit addresses from an account key, beside embit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ops.bench.compare import Row, Side, interleave

_COUNT = 2_000


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """P2WPKH addresses by index; embit gets the branch key derived once, as we cache it."""
    from embit import bip32, script
    from embit.networks import NETWORKS as EMBIT_NETWORKS

    from chains.btc.hd import AccountKey
    from chains.btc.network import NETWORKS

    progress("addresses: deriving")
    master = bip32.HDKey.from_seed(bytes(range(64)), version=EMBIT_NETWORKS["regtest"]["xprv"])
    account = master.derive("m/84h/1h/0h").to_public()
    key = AccountKey.parse(account.to_base58(), NETWORKS["regtest"])
    branch = account.child(0)

    def ours(start: int) -> list[str]:
        return key.addresses(0, start, _COUNT)

    def peer(start: int) -> list[str]:
        network = EMBIT_NETWORKS["regtest"]
        return [script.p2wpkh(branch.child(index)).address(network) for index in range(start, start + _COUNT)]

    if ours(0) != peer(0):
        raise AssertionError("the two derive different addresses: nothing to compare")
    fresh = iter(range(0, 2**31 - _COUNT, _COUNT))  # no index twice: a cache of addresses would not count
    ours_rate, peer_rate = interleave(
        Side(lambda: ours(next(fresh)), _COUNT), Side(lambda: peer(next(fresh)), _COUNT), repeats=7
    )
    yield Row("addresses", ours_rate, peer_rate, "embit: child key to P2WPKH address", "addresses/s")
