"""The foundation: executes `custody/storage/sql/0001_foundation.sql`."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parents[2] / "sql" / "0001_foundation.sql"


def upgrade() -> None:
    # Through the driver, without parameters: then the server takes the whole file as one script.
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    connection.execute(_SQL.read_bytes())
