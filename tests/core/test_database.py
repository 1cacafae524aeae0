"""The database: brought up to date with a copy of what was there, whole transactions, sentences for what fails."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from core import database as database_module
from core import tables
from core.database import MIGRATIONS, Database, migrate
from core.errors import InvalidRequest, StorageFailed
from core.feedback import FeedbackStore, Opinion
from core.settings import ROOT
from core.turns import record
from core.users import LOCAL
from tests.core.test_turns import kept_turns, some_turn

ADD_A_COLUMN = """
    with op.batch_alter_table("turns", recreate="always") as turns:
        turns.add_column(sa.Column("mood", sa.Text(), nullable=True))
"""
BREAK_OFF = """
    op.create_table("half", sa.Column("id", sa.Integer()))
    op.execute("UPDATE turns SET answer = 'lost'")
    raise RuntimeError("the power failed")
"""


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write files beyond so many bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "data")
    yield database
    await database.aclose()


@pytest.fixture
def newer_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the product one revision newer than its databases."""

    def make(upgrade: str, revision: str = "0002") -> None:
        folder = tmp_path / "migrations"
        shutil.copytree(MIGRATIONS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "versions" / f"{revision}_newer.py").write_text(
            "import sqlalchemy as sa\nfrom alembic import op\n\n"
            f'revision = "{revision}"\ndown_revision = "0001"\nbranch_labels = None\ndepends_on = None\n\n'
            f"def upgrade() -> None:{upgrade}\n"
        )
        monkeypatch.setattr(database_module, "MIGRATIONS", folder)

    return make


def read(file: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix not in (".db-shm", ".db-wal", ".lock"))


async def count_turns(database: Database) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(select(func.count()).select_from(tables.turns))).scalar_one())


def test_a_fresh_file_has_the_tables_of_the_product(tmp_path: Path) -> None:
    migrate(tmp_path / "data" / "simpleia.db")
    engine = create_engine(f"sqlite:///{tmp_path}/data/simpleia.db", poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "render_as_batch": True})

        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == "0001"
    assert names(tmp_path / "data") == ["simpleia.db"]


def test_the_cascades_are_those_of_the_tables(tmp_path: Path) -> None:
    """`compare_metadata` sees no ON DELETE of SQLite's."""
    migrate(tmp_path / "simpleia.db")
    for table in tables.metadata.sorted_tables:
        kept = {row[3]: row[6] for row in read(tmp_path / "simpleia.db", f"PRAGMA foreign_key_list({table.name})")}

        assert kept == {key.parent.name: key.ondelete or "NO ACTION" for key in table.foreign_keys}


async def test_every_connection_writes_to_the_disk_and_checks_references(database: Database) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}

    async def pragmas() -> dict[str, Any]:
        async with database.transaction() as connection:
            await asyncio.sleep(0.05)
            return {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in wanted}

    assert await asyncio.gather(*(pragmas() for _ in range(4))) == [wanted] * 4


async def test_a_transaction_that_fails_keeps_nothing(database: Database) -> None:
    await record(database, some_turn("before"))

    async def change() -> None:
        async with database.transaction() as connection:
            await connection.exec_driver_sql("UPDATE turns SET answer = 'changed'")
            await connection.exec_driver_sql("DELETE FROM turns WHERE id = 'none'")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await change()

    assert [turn.answer for turn in await kept_turns(database)] == ["A drink."]


async def test_a_transaction_that_is_cancelled_keeps_nothing(database: Database) -> None:
    await record(database, some_turn())
    begun = asyncio.Event()

    async def change() -> None:
        async with database.transaction() as connection:
            await connection.exec_driver_sql("DELETE FROM turns")
            begun.set()
            await asyncio.sleep(60)

    changing = asyncio.create_task(change())
    await begun.wait()
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing

    assert await count_turns(database) == 1


async def test_what_is_kept_is_there_for_the_next_server(database: Database) -> None:
    await record(database, some_turn())
    other = Database(database.file.parent)

    assert await count_turns(other) == 1
    await other.aclose()
    await database.aclose()
    assert await count_turns(database) == 1


async def test_a_block_alone_sees_what_the_one_before_wrote(database: Database) -> None:
    await record(database, some_turn(answer=""))

    async def append(letter: str) -> None:
        async with database.transaction(alone=True) as connection:
            answer = (await connection.exec_driver_sql("SELECT answer FROM turns")).scalar_one()
            await asyncio.sleep(0.01)
            await connection.exec_driver_sql("UPDATE turns SET answer = ?", (answer + letter,))

    await asyncio.gather(*map(append, "abcd"))

    assert sorted((await kept_turns(database))[0].answer) == ["a", "b", "c", "d"]


async def test_an_older_database_is_migrated_and_a_copy_of_it_stays(database: Database, newer_revision: Any) -> None:
    await record(database, some_turn())
    await database.aclose()
    newer_revision(ADD_A_COLUMN)
    copy = database.file.with_name("simpleia-0001.backup.db")

    async with database.transaction() as connection:
        row = (await connection.exec_driver_sql("SELECT id, mood FROM turns")).one()
    assert tuple(row) == ("t1", None)
    assert names(database.file.parent) == ["simpleia-0001.backup.db", "simpleia.db"]
    assert read(copy, "SELECT id, answer FROM turns") == [("t1", "A drink.")]
    assert read(copy, "SELECT version_num FROM alembic_version") == [("0001",)]
    assert read(copy, "PRAGMA integrity_check") == [("ok",)]


async def test_the_copy_holds_what_was_written_last(database: Database, newer_revision: Any) -> None:
    """Rows that are still in the write-ahead log of a server that was killed are not lost."""
    await record(database, some_turn("first"))
    with contextlib.closing(sqlite3.connect(database.file)) as reader:
        reader.execute("BEGIN").execute("SELECT * FROM turns")
        await record(database, some_turn("last"))
        await database.aclose()
        newer_revision("\n    pass")
        await asyncio.to_thread(migrate, database.file)

    copy = database.file.with_name("simpleia-0001.backup.db")
    assert read(copy, "SELECT id FROM turns ORDER BY id") == [("first",), ("last",)]


async def test_rebuilding_a_table_keeps_what_refers_to_it(database: Database, newer_revision: Any) -> None:
    await record(database, some_turn())
    await FeedbackStore(database).submit(LOCAL, "t1", Opinion(rating="up"))
    await database.aclose()
    newer_revision(ADD_A_COLUMN)
    await asyncio.to_thread(migrate, database.file)

    assert read(database.file, "SELECT turn_id, rating FROM feedback") == [("t1", "up")]
    assert read(database.file, "PRAGMA foreign_key_check") == []


async def test_a_migration_that_breaks_off_changes_nothing_and_can_be_done_again(
    database: Database, newer_revision: Any
) -> None:
    await record(database, some_turn())
    await database.aclose()
    newer_revision(BREAK_OFF)
    with pytest.raises(RuntimeError, match="the power failed"):
        await count_turns(database)

    assert read(database.file, "SELECT answer FROM turns") == [("A drink.",)]
    assert read(database.file, "SELECT name FROM sqlite_master WHERE name = 'half'") == []
    newer_revision(BREAK_OFF.replace("raise", "pass  #"))
    assert await count_turns(database) == 1
    assert read(database.file, "SELECT version_num FROM alembic_version") == [("0002",)]
    assert read(database.file.with_name("simpleia-0001.backup.db"), "SELECT answer FROM turns") == [("A drink.",)]


def test_migrating_twice_does_nothing(tmp_path: Path) -> None:
    migrate(tmp_path / "simpleia.db")
    migrate(tmp_path / "simpleia.db")

    assert names(tmp_path) == ["simpleia.db"]


async def test_a_database_of_a_newer_product_is_refused_and_left_as_it_is(database: Database) -> None:
    await record(database, some_turn())
    await database.aclose()
    with contextlib.closing(sqlite3.connect(database.file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageFailed) as refused:
        await count_turns(database)

    assert str(refused.value) == (
        "The database simpleia.db was written by a newer simpleIA. Update simpleIA, or set DATA_DIR to another folder."
    )
    assert read(database.file, "SELECT id FROM turns") == [("t1",)]
    assert names(database.file.parent) == ["simpleia.db"]


def test_threads_and_processes_may_migrate_at_once(tmp_path: Path) -> None:
    file = tmp_path / "simpleia.db"
    code = "import sys, pathlib, core.database as database; database.migrate(pathlib.Path(sys.argv[1]))"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(file)], cwd=ROOT) for _ in range(2)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate, [file] * 8))

    assert [process.wait(60) for process in processes] == [0, 0]
    assert read(file, "SELECT version_num FROM alembic_version") == [("0001",)]


async def test_many_first_transactions_at_once_migrate_once(database: Database) -> None:
    assert await asyncio.gather(*(count_turns(database) for _ in range(8))) == [0] * 8


async def test_a_damaged_file_gets_a_sentence(database: Database) -> None:
    database.file.parent.mkdir()
    database.file.write_bytes(b"This is no database.\n" * 500)
    with pytest.raises(StorageFailed) as failed:
        await count_turns(database)

    assert str(failed.value).startswith("The database file is damaged. Stop simpleIA and put a backup in the place of")


async def test_a_file_with_damaged_pages_gets_a_sentence(database: Database) -> None:
    for number in range(50):
        await record(database, some_turn(f"t{number}", answer="x" * 2000))
    await database.aclose()
    content = database.file.read_bytes()
    database.file.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StorageFailed, match="The database file is damaged"):
        await kept_turns(database)


@pytest.mark.parametrize("place", ["file", "file/below"])
async def test_a_data_folder_that_cannot_be_made_gets_a_sentence_without_its_path(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed) as failed:
        await count_turns(Database(tmp_path / place))

    assert str(failed.value).startswith("The data could not be stored: ")
    assert str(failed.value).endswith(". Make room on the disk and allow writing to DATA_DIR, then try again.")
    assert str(tmp_path) not in str(failed.value)


async def test_a_file_that_cannot_be_opened_gets_a_sentence(database: Database) -> None:
    database.file.mkdir(parents=True)
    with pytest.raises(StorageFailed, match="The data could not be stored: unable to open database file"):
        await count_turns(database)


async def test_a_full_disk_gets_a_sentence_and_once_there_is_room_it_goes_on(database: Database) -> None:
    await record(database, some_turn("before"))
    large = some_turn("large", answer="x" * 2_000_000)
    with files_of_at_most(300_000), pytest.raises(StorageFailed) as failed:
        await record(database, large)
    await record(database, large)

    assert str(failed.value).startswith("The data could not be stored: disk i/o error. Make room on the disk")
    assert [turn.id for turn in await kept_turns(database)] == ["before", "large"]


async def test_a_disk_that_is_full_from_the_start_gets_a_sentence(database: Database) -> None:
    with files_of_at_most(2_000), pytest.raises(StorageFailed, match="The data could not be stored"):
        await count_turns(database)

    assert await count_turns(database) == 0


async def test_a_database_that_another_program_holds_gets_a_sentence(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "PRAGMAS", ("busy_timeout=50", "foreign_keys=ON"))
    await count_turns(database)
    with contextlib.closing(sqlite3.connect(database.file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageFailed, match="The data could not be stored: database is locked"):
            await record(database, some_turn())


async def test_text_that_is_no_unicode_is_refused_with_a_sentence(database: Database) -> None:
    with pytest.raises(InvalidRequest, match="half of a character"):
        await record(database, some_turn(answer="\ud800"))

    assert await count_turns(database) == 0


async def test_a_mistake_in_a_statement_is_not_called_a_full_disk(database: Database) -> None:
    with pytest.raises(OperationalError, match="no such table"):
        async with database.transaction() as connection:
            await connection.exec_driver_sql("SELECT * FROM no_such_table")
