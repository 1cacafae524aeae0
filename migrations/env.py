"""Alembic's entry: `core.database.migrate` gives the connection; the command line is for writing new revisions."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine

from core.tables import metadata


def run() -> None:
    """Bring the database of the given connection to the wanted revision."""
    connection = context.config.attributes.get("connection")
    if connection is None:
        with create_engine("sqlite:///data/simpleia.db").connect() as connection:
            _migrate(connection)
    else:
        _migrate(connection)


def _migrate(connection: object) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)  # type: ignore[arg-type]
    with context.begin_transaction():
        context.run_migrations()


run()
