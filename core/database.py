"""The database: SQLite under DATA_DIR, brought up to date before its first use, with a copy of what was there.

What a transaction wrote is on the disk when it ends (`synchronous=FULL`), whatever happens to the process after.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from core.errors import HalfACharacter, StorageFailed
from core.settings import ROOT
from providers.sentences import say

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

MIGRATIONS = ROOT / "migrations"
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON")
FULL = ("disk is full", "disk i/o error", "readonly", "unable to open", "locked")


class Database:
    """The connections of one server to its database."""

    def __init__(self, data_dir: Path) -> None:
        """Open nothing yet: the first transaction creates or migrates the file."""
        self.file = data_dir / "simpleia.db"
        self._engine: AsyncEngine | None = None
        self._opening = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def transaction(self, alone: bool = False) -> AsyncIterator[AsyncConnection]:
        """Give a connection whose work is kept whole when the block ends, or not at all.

        `alone` lets nobody write meanwhile, for a block that reads what it then changes. Raises StorageFailed where
        the file cannot be opened, migrated, read or written, and InvalidRequest for text that is not Unicode.
        """
        with _as_sentences():
            async with (await self.open()).begin() as connection:
                if alone:
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection

    async def open(self) -> AsyncEngine:
        """Migrate the file, once, and return the engine. Raises StorageFailed."""
        from sqlalchemy.ext.asyncio import create_async_engine  # Takes a fiftieth of the server's start.

        async with self._opening:
            if self._engine is None:
                with _as_sentences():
                    await asyncio.to_thread(migrate, self.file)
                self._engine = create_async_engine(f"sqlite+aiosqlite:///{self.file}", json_serializer=_to_json)
                event.listen(self._engine.sync_engine, "connect", _set_pragmas)
        return self._engine

    async def aclose(self) -> None:
        """Close every connection; the next transaction opens the file again."""
        async with self._opening:
            if self._engine is not None:
                await self._engine.dispose()
                self._engine = None


def migrate(file: Path) -> None:
    """Bring the file to the newest revision; what was there is copied to `simpleia-<revision>.backup.db` before.

    Raises StorageFailed for a file that a newer simpleIA wrote, and SQLAlchemy's errors for one that cannot be used.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", MIGRATIONS.as_posix())
    scripts = ScriptDirectory.from_config(config)
    file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    event.listen(engine, "connect", _set_pragmas)
    with FileLock(file.with_suffix(".lock")), engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current == scripts.get_current_head():
            return
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise StorageFailed(
                say("The database {file} was written by a newer simpleIA.", file=file.name),
                say("Update simpleIA, or set DATA_DIR to another folder."),
            )
        if current is not None:
            _back_up(connection, file.with_name(f"{file.stem}-{current}.backup.db"))
        config.attributes["connection"] = connection
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")  # Rebuilding a table would delete what refers to it.
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python begins no transaction for CREATE and ALTER.
        command.upgrade(config, "head")
        connection.commit()


def _back_up(connection: Connection, copy: Path) -> None:
    """Write a whole copy beside the file, by SQLite's own backup, and let it appear by rename."""
    part = copy.with_suffix(".part")
    part.unlink(missing_ok=True)
    source: Any = connection.connection.driver_connection
    with contextlib.closing(sqlite3.connect(part)) as target:
        source.backup(target)
    part.replace(copy)


def _to_json(value: object) -> str:
    """Write text as it is, so that it can be searched."""
    return json.dumps(value, ensure_ascii=False)


def _set_pragmas(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    connection.create_function("casefold", 1, _casefold)  # SQLite's own lower() knows only ASCII.


def _casefold(text: str | None) -> str | None:
    return text.casefold() if text else text


@contextlib.contextmanager
def _as_sentences() -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise HalfACharacter from error
    except (DatabaseError, sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, OSError):
            reason = (error.strerror or "disk error").lower()
        else:
            reason = str(getattr(error, "orig", error)).lower()
        if isinstance(error, OSError) or any(words in reason for words in FULL):
            raise StorageFailed(
                say("The data could not be stored: {reason}.", reason=reason.rstrip(".")),
                say("Make room on the disk and allow writing to DATA_DIR, then try again."),
            ) from error
        if "not a database" in reason or "malformed" in reason:
            raise StorageFailed(
                say("The database file is damaged."),
                say("Stop simpleIA and put a backup in the place of simpleia.db in DATA_DIR."),
            ) from error
        raise
