"""What officers have signed, on the online side: the same times for bundles as at signers, and nothing but signatures
believed, whoever has written into the tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from chains.errors import InvalidValue
from custody.errors import DatabaseUnavailable
from custody.officers import service, standing
from custody.officers.standing import Standing
from custody.officers.statements import Signed
from custody.storage import halts
from custody.storage.db import Database
from policies.bundle import Bundle, SignedBundle, UntrustedBundle
from policies.canonical import BadSignature
from policies.keys import SigningKey, sign_freeze, sign_lowering, sign_veto
from policies.statements import Freeze, Lowering, Veto
from tests.fakes.api import as_role
from tests.fakes.signing import CHAIN, DAY, SoftKeys, World

HOUR = 3600
ALL = ("olga", "felix", "sanna")
BELOW = "cap:hot:BTC:payment_below"


class Installation:
    """A database, a bundle's file, and processes with roles of their own."""

    def __init__(self, dsn: str, directory: Path) -> None:
        self.dsn, self.path = dsn, directory / "bundle.json"
        self.world = World(SoftKeys.make().record, now=int(time.time()))
        self.now = self.world.now
        self.databases: list[Database] = []
        self.publish(1)

    def bundle(self, version: int, **changes: Any) -> Bundle:
        officers = tuple(
            msgspec.structs.replace(officer, not_after=self.world.now + 9 * DAY)
            for officer in self.world.people()["officers"]
        )
        return self.world.bundle(version, **({"veto_seconds": DAY, "officers": officers} | changes))

    def publish(
        self, version: int, names: tuple[str, ...] = ("olga", "felix"), **changes: Any
    ) -> SignedBundle:
        signed = self.world.signed(self.bundle(version, **changes), names)
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(signed.encode())
        fresh.replace(self.path)
        return signed

    def process(self, role: str = "worker") -> tuple[Standing, Database]:
        """A process that has just started."""
        made = Standing(self.path, self.world.root, lambda: self.now, lambda: database)
        database = Database(
            as_role(self.dsn, f"strongroom_{role}"), application=role, pool_size=2, frozen=made.frozen
        )
        self.databases.append(database)
        return made, database

    def take(self, signed: Signed) -> bool:
        """Hand a statement in, as the API does."""
        made, database = self.process("api")
        with database.transaction() as tx:
            return service.take(tx, signed, made(), self.world.root)

    def execute(self, text: str, *params: Any, role: str | None = None) -> None:
        """SQL of somebody who has taken a role; None: the superuser."""
        dsn = self.dsn if role is None else as_role(self.dsn, f"strongroom_{role}")
        with psycopg.connect(dsn) as connection:
            connection.execute(text.encode(), params)

    def freeze(self, scope: str, key: SigningKey | None = None, **changes: Any) -> Signed:
        fields: dict[str, Any] = {"scope": scope, "bundle_version": 1}
        made = Freeze(**(self._fields() | fields | changes))
        return sign_freeze(made, key or self.world.officers[made.officer])

    def lowering(self, value: int, key: SigningKey | None = None, **changes: Any) -> Signed:
        fields: dict[str, Any] = {"target": BELOW, "value": str(value), "bundle_version": 1}
        made = Lowering(**(self._fields() | fields | changes))
        return sign_lowering(made, key or self.world.officers[made.officer])

    def veto(self, signed: SignedBundle, **changes: Any) -> Signed:
        made = Veto(**(self._fields() | {"bundle": signed.bundle.digest_hex()} | changes))
        return sign_veto(made, self.world.officers[made.officer])

    def _fields(self) -> dict[str, Any]:
        return {"v": 1, "officer": "sanna", "reason": "odd", "issued_at": self.now}


@pytest.fixture
def here(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(standing, "REFRESH_SECONDS", 0.0)
    made = Installation(database, tmp_path)
    yield made
    for each in made.databases:
        each.close()


# Bundles.


def test_a_new_bundle_waits_for_everybody_and_also_for_who_starts_meanwhile(here: Installation) -> None:
    worker, _ = here.process()
    assert worker().version == 1
    here.publish(2)
    assert worker().version == 1
    assert worker.waiting is not None
    assert worker.waiting.acts_from == here.now + DAY
    here.now += DAY - 1
    monitor, _ = here.process("monitor")
    api, _ = here.process("api")
    assert [monitor().version, api().version, worker().version] == [1, 1, 1], "though the file has version 2"
    here.now += 1
    assert [api().version, monitor().version, worker().version] == [2, 2, 2]
    assert worker.waiting is None
    late, database = here.process()
    assert late().version == 2
    with database.snapshot() as tx:
        kept = service.once_in_force(tx, 1, here.world.root)
        assert kept == here.bundle(1), "old ones are kept, so that decisions can be replayed"
        assert service.once_in_force(tx, 3, here.world.root) is None


def test_signatures_of_all_officers_make_it_act_at_once(here: Installation) -> None:
    worker, _ = here.process()
    worker()
    here.publish(2)
    assert worker().version == 1
    here.publish(2, ALL)
    assert worker().version == 2


def test_a_veto_keeps_it_out_for_good(here: Installation) -> None:
    worker, _ = here.process()
    worker()
    signed = here.publish(2)
    assert worker().version == 1
    assert here.take(here.veto(signed))
    assert not here.take(here.veto(signed)), "again changes nothing"
    here.now += 2 * DAY
    assert worker().version == 1
    assert here.process()[0]().version == 1
    here.publish(3)
    assert worker().version == 1
    here.now += DAY
    assert worker().version == 3


def test_an_older_bundle_in_the_file_changes_nothing(here: Installation) -> None:
    worker, _ = here.process()
    worker()
    here.publish(3, ALL)
    assert worker().version == 3
    here.publish(2, ALL)
    assert worker().version == 3
    assert here.process()[0]().version == 3


def test_a_file_that_cannot_be_believed_or_is_gone_leaves_the_bundle_in_force(here: Installation) -> None:
    worker, _ = here.process()
    before = worker()
    here.publish(2, ("olga",))
    assert worker() is before
    here.path.write_text("{}")
    assert worker() is before
    here.path.unlink()
    assert worker() is before
    assert here.process()[0]() == before, "the database still knows it"
    here.publish(2, ALL)
    assert worker().version == 2


def test_without_a_database_a_process_starts_with_what_the_file_says(here: Installation) -> None:
    def away() -> Database:
        raise DatabaseUnavailable("away")

    made = Standing(here.path, here.world.root, lambda: here.now, away)
    assert made().version == 1
    assert made.frozen() == ()


def test_a_bundle_that_has_expired_is_not_given_out(here: Installation) -> None:
    worker, _ = here.process()
    worker()
    here.now += 31 * DAY
    with pytest.raises(UntrustedBundle, match="expired"):
        worker()
    with pytest.raises(UntrustedBundle, match="expired"):
        here.process()[0]()


# Freezes and lower numbers.


def test_a_freeze_stops_what_it_names_in_every_process_until_a_higher_bundle(here: Installation) -> None:
    worker, database = here.process()
    worker()
    for scope in ("customer:alice", "asset:BTC", f"chain:{CHAIN}", "tier:warm", "wallet:btc-hot", "all"):
        assert here.take(here.freeze(scope))
    assert worker.frozen() == (
        "all", "asset:BTC", f"chain:{CHAIN}", "customer:alice", "tier:warm", "wallet:btc-hot",
    )  # fmt: skip
    with database.snapshot() as tx:
        assert halts.halted(tx, "another") == "an officer has frozen all"
        assert {row["scope"] for row in halts.in_force(tx)} == set(worker.frozen())
    here.publish(2, ALL)
    worker()
    assert worker.frozen() == ()
    with database.snapshot() as tx:
        assert halts.halted(tx, CHAIN) is None


def test_what_touches_nothing_frozen_goes_on(here: Installation) -> None:
    worker, database = here.process()
    worker()
    for scope in ("customer:alice", "tier:warm", "wallet:btc-hot"):
        here.take(here.freeze(scope))
    with database.snapshot() as tx:
        assert halts.halted(tx, CHAIN, "BTC", customer="bob", tier="hot") is None
        assert halts.halted(tx, CHAIN, "BTC", customer="alice") == "an officer has frozen customer:alice"
        assert halts.halted(tx, CHAIN, tier="warm") == "an officer has frozen tier:warm"
        assert halts.halted(tx, CHAIN, wallet="btc-hot", tier="hot") == "an officer has frozen wallet:btc-hot"


def test_a_lower_number_is_in_the_bundle_that_everybody_gets_and_other_objects_stay_the_same(
    here: Installation,
) -> None:
    worker, _ = here.process()
    first = worker()
    assert worker() is first
    here.take(here.lowering(5_000_000))
    here.take(here.lowering(3_000_000, officer="olga"))
    bundle = worker()
    assert bundle.cap("hot", "BTC").payment_below == "3000000"
    assert bundle.version == 1
    assert worker() is bundle
    assert here.process()[0]().cap("hot", "BTC").payment_below == "3000000"
    with pytest.raises(InvalidValue, match="not lower"):
        here.take(here.lowering(4_000_000))
    here.publish(2, ALL)
    assert worker().cap("hot", "BTC").payment_below == first.cap("hot", "BTC").payment_below
    with pytest.raises(InvalidValue, match="version 2 is in force"):
        here.take(here.lowering(1))


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda here: here.freeze("customer:alice", SigningKey.generate()), BadSignature, "signature"),
        (
            lambda here: here.freeze("all", SigningKey.generate(), officer="mallory"),
            InvalidValue,
            "no officer",
        ),
        (lambda here: here.freeze("chain:bitcoin"), InvalidValue, "no chain:bitcoin"),
        (lambda here: here.freeze("all", bundle_version=5_000), InvalidValue, "at most 1000 above"),
        (lambda here: here.freeze("all", issued_at=here.now + 20 * DAY), InvalidValue, "ended"),
        (lambda here: here.lowering(10**12), InvalidValue, "not lower"),
        (lambda here: here.lowering(1, bundle_version=2), InvalidValue, "version 1 is in force"),
        (lambda here: here.veto(here.world.signed(here.bundle(1))), InvalidValue, "too late"),
    ],
)
def test_what_no_signer_takes_is_refused(
    here: Installation, make: Callable[[Installation], Signed], error: type[Exception], told: str
) -> None:
    worker, _ = here.process()
    before = worker()
    with pytest.raises(error, match=told):
        here.take(make(here))
    assert (worker(), worker.frozen()) == (before, ())


# Attacks.


def forged(here: Installation) -> list[tuple[str, int | None, bytes]]:
    """Rows for `statements` that no officer has signed so."""
    olga, stranger = here.world.officers["olga"], SigningKey.generate()
    other = here.freeze("all")
    return [
        ("freeze", 1, b"{}"),
        ("freeze", 1, b"\xff\x00"),
        ("freeze", 1, msgspec.json.encode(here.freeze("all", stranger))),
        ("freeze", 1, msgspec.json.encode(here.freeze("all", olga))),  # sanna's name
        ("freeze", 1, msgspec.json.encode(here.freeze("all", stranger, officer="mallory"))),
        ("freeze", 1, msgspec.json.encode(other).replace(b'"all"', b'"tier:hot"')),
        ("freeze", 10**6, msgspec.json.encode(here.lowering(1))),
        ("lowering", 1, msgspec.json.encode(other)),
        ("lowering", 1, msgspec.json.encode(here.lowering(1, stranger))),
        ("lowering", 1, msgspec.json.encode(here.lowering(10**15))),
        ("lowering", 1, msgspec.json.encode(here.lowering(1, bundle_version=7))),
        ("veto", None, msgspec.json.encode(here.freeze("all"))),
    ]


@pytest.mark.parametrize("role", ["api", "worker"])
def test_statements_that_somebody_with_a_role_has_invented_count_for_nothing(
    here: Installation, role: str
) -> None:
    worker, _ = here.process()
    before = worker()
    for row in forged(here):
        here.execute(
            "INSERT INTO statements (kind, bundle_version, document) VALUES (%s, %s, %s)", *row, role=role
        )
    assert worker() is before
    assert worker.frozen() == ()
    assert here.process()[0]() == before
    assert here.take(here.freeze("customer:alice")), "and they keep no officer from being heard"
    assert here.take(here.freeze("all")), "nor a word of his that somebody has written down as another"
    worker()
    assert worker.frozen() == ("all", "customer:alice")


def test_who_writes_a_bundle_down_with_false_columns_does_not_keep_it_out(here: Installation) -> None:
    worker, _ = here.process()
    worker()
    signed = here.world.signed(here.bundle(2), ALL)
    for version, seen in ((1, 1), (2, here.now + 900 * DAY)):
        here.execute(
            "INSERT INTO bundles (version, digest, document, seen_at) VALUES (%s, %s, %s, to_timestamp(%s))",
            version, "ab" * 32, signed.encode(), seen, role="worker",
        )  # fmt: skip
    here.publish(2, ALL)
    assert worker().version == 2


@pytest.mark.parametrize("role", ["api", "worker", "monitor", "read"])
@pytest.mark.parametrize("table", ["statements", "bundles", "bundle_adoptions"])
def test_no_role_takes_back_what_an_officer_has_said_or_what_was_in_force(
    here: Installation, role: str, table: str
) -> None:
    here.process()[0]()
    here.take(here.freeze("all"))
    column = "adopted_at" if table == "bundle_adoptions" else "document"
    for text in (
        f"DELETE FROM {table}",
        f"TRUNCATE {table} CASCADE",
        f"UPDATE {table} SET {column} = {column}",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            here.execute(text, role=role)
    if role in ("monitor", "read"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            here.execute(
                "INSERT INTO statements (kind, bundle_version, document) VALUES ('freeze', 1, '')", role=role
            )


def test_a_bundle_that_the_quorum_has_not_signed_is_never_in_force_whatever_the_tables_say(
    here: Installation,
) -> None:
    worker, _ = here.process()
    before = worker()
    stranger = SigningKey.generate()
    alone = here.world.signed(here.bundle(5), ("olga",))
    for document in (
        b"{}",
        alone.encode(),
        msgspec.json.encode(SignedBundle(bundle=here.bundle(6), signatures=())),
        here.world.signed(here.bundle(7)).encode().replace(b'"version":7', b'"version":8'),
    ):
        here.execute(
            "INSERT INTO bundles (version, digest, document, seen_at) VALUES (9, %s, %s, to_timestamp(1))",
            stranger.public_hex,
            document,
            role="api",
        )
        here.execute(
            "INSERT INTO bundle_adoptions VALUES (sha256(%s::bytea), to_timestamp(1))",
            document,
            role="worker",
        )
    assert worker() is before
    assert here.process()[0]() == before


def test_a_stolen_api_brings_no_waiting_bundle_into_force_and_spares_it_no_time(here: Installation) -> None:
    worker, _ = here.process()
    worker()
    waiting = here.publish(2)
    document = waiting.encode()
    for role in ("api", "monitor"):
        here.execute(
            "INSERT INTO bundles (version, digest, document, seen_at) VALUES (2, %s, %s, to_timestamp(1))",
            waiting.bundle.digest_hex(), document, role=role,
        )  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            here.execute(
                "INSERT INTO bundle_adoptions VALUES (sha256(%s::bytea), to_timestamp(1))",
                document,
                role=role,
            )
    here.now += DAY - 2 * HOUR
    assert (worker().version, here.process("api")[0]().version) == (1, 1)
    here.take(here.veto(waiting))
    here.now += DAY
    assert (worker().version, here.process("api")[0]().version) == (1, 1)


def test_lower_numbers_of_an_old_bundle_do_not_come_back_with_the_next(here: Installation) -> None:
    worker, _ = here.process()
    worker()
    old = here.lowering(1)
    here.take(old)
    here.publish(2, ALL)
    bundle = worker()
    here.execute(
        "INSERT INTO statements (kind, bundle_version, document) VALUES ('lowering', 2, %s)",
        msgspec.json.encode(old) + b" ",
        role="api",
    )
    assert worker() is bundle


def test_what_a_removed_officer_says_counts_no_more(here: Installation) -> None:
    worker, _ = here.process()
    officers = tuple(each for each in here.bundle(1).officers if each.id != "sanna")
    worker()
    here.take(here.freeze("all", bundle_version=500))
    worker()
    assert worker.frozen() == ("all",)
    here.publish(2, ALL, officers=officers)
    worker()
    assert worker.frozen() == ()
    with pytest.raises(InvalidValue, match="no officer 'sanna'"):
        here.take(here.freeze("all", bundle_version=2))


def test_an_officer_whom_the_bundle_names_but_the_pinned_root_does_not_is_not_heard(
    here: Installation,
) -> None:
    worker, _ = here.process()
    worker()
    stranger = SigningKey.generate()
    sanna = msgspec.structs.replace(here.bundle(1).officer("sanna"), key=stranger.public_hex)
    here.publish(2, ALL, officers=(sanna,))
    worker()
    with pytest.raises(InvalidValue, match="pinned root"):
        here.take(here.freeze("all", stranger, bundle_version=2))
