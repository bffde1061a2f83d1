"""What tests of the ledger share: a migrated database, logins as each role, short ways to write commands."""

from __future__ import annotations

from uuid import UUID, uuid4

from psycopg.conninfo import make_conninfo

from custody.ledger.model import AccountKind, Command, Leg, LineType, Result, Transfer, available, house
from custody.ledger.service import post
from custody.storage.db import Database
from custody.storage.migrate import set_role_password

ASSET = "BTC"
WALLET = "btc-hot"
_ROLE_PASSWORD = "only-for-throw-away-clusters"


def login(superuser_dsn: str, role: str) -> str:
    """Connection string of `role` for the same database."""
    set_role_password(superuser_dsn, role, _ROLE_PASSWORD)
    return make_conninfo(superuser_dsn, user=role, password=_ROLE_PASSWORD)


def customers(db: Database, *names: str) -> None:
    """Make customers."""
    with db.transaction() as tx:
        tx.executemany("INSERT INTO customers (id) VALUES (%s)", [[name] for name in names])


def booked(db: Database, *commands: Command) -> list[Result]:
    """Post the commands in one transaction."""
    with db.transaction() as tx:
        return post(tx, commands)


def credit(customer: str, units: int, *, asset: str = ASSET, id: UUID | None = None) -> Transfer:
    """Give a customer money that came from the chain."""
    legs = (
        Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=WALLET), -units, LineType.DEPOSIT),
        Leg(available(customer, asset), units, LineType.DEPOSIT),
    )
    return Transfer(id or uuid4(), legs, "test")


def move(source: str, target: str, units: int, *, asset: str = ASSET, id: UUID | None = None) -> Transfer:
    """Move money from one customer to another."""
    legs = (
        Leg(available(source, asset), -units, LineType.TRANSFER),
        Leg(available(target, asset), units, LineType.TRANSFER),
    )
    return Transfer(id or uuid4(), legs, "test")
