"""Addresses are given out once: attested, checked, and their index is used up whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from chains.errors import InvalidValue
from custody.deposits.addresses import allocate
from custody.deposits.attestation import AddressNotOurs, verify_row
from custody.errors import UnknownCustomer
from custody.storage.db import Database
from signers.ports import AttestRequest, SignedAttestation, SignerUnavailable
from tests.fakes.chain import FakeChain
from tests.fakes.desk import ASSET, Desk, Keys, as_role, open_desk


@pytest.fixture
def desk(database: str) -> Iterator[Desk]:
    with open_desk(database, FakeChain()) as desk:
        yield desk


class Lying(Keys):
    """Attests the address of another index."""

    def attest(self, request: AttestRequest) -> SignedAttestation:
        return super().attest(
            AttestRequest(
                chain=request.chain,
                keyset=request.keyset,
                customer=request.customer,
                asset=request.asset,
                branch=request.branch,
                index=request.index + 1,
            )
        )


class Silent(Keys):
    """Does not answer."""

    def attest(self, request: AttestRequest) -> SignedAttestation:
        raise SignerUnavailable("down")


def test_an_address_is_attested_checked_and_stored(desk: Desk) -> None:
    row = desk.address(desk.customer("alice"))
    verify_row(row, desk.bundle)
    assert (row.customer, row.branch, row.index) == ("alice", 0, 0)
    [event] = desk.query("SELECT type, subject FROM events")
    assert (event["type"], event["subject"]) == ("address.created", row.address)


def test_many_at_once_get_different_indexes(desk: Desk) -> None:
    alice = desk.customer("alice")
    database = Database(as_role(desk.dsn, "strongroom_api"), application="api", pool_size=8)
    with database as api, ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda _: allocate(api, desk.keys, desk.bundle, alice, ASSET), range(40)))
    assert sorted(row.index for row in rows) == list(range(40))
    assert len({row.address for row in rows}) == 40


@pytest.mark.parametrize(("signer", "error"), [(Lying, AddressNotOurs), (Silent, SignerUnavailable)])
def test_a_signer_that_lies_or_fails_burns_the_index_and_stores_nothing(
    desk: Desk, signer: type[Keys], error: type[Exception]
) -> None:
    alice = desk.customer("alice")
    with pytest.raises(error):
        allocate(desk.admin, signer(desk.keys.seed, desk.keys.attestation), desk.bundle, alice, ASSET)
    assert desk.query("SELECT * FROM addresses") == []
    assert desk.address(alice).index == 1


def test_nobody_gets_no_address_and_an_unknown_asset_has_none(desk: Desk) -> None:
    with pytest.raises(UnknownCustomer):
        desk.address("nobody")
    with pytest.raises(InvalidValue):
        allocate(desk.admin, desk.keys, desk.bundle, desk.customer("alice"), "DOGE")
    assert desk.query("SELECT * FROM address_indexes") == []
