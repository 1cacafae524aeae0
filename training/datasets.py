"""Datasets: made from feedback or from a file, kept as normalised JSON Lines with their sha256."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from core import tables
from core.database import Database
from core.errors import InvalidRequest, NotFound, StorageFailed
from core.feedback import FeedbackFilter, FeedbackStore
from core.feedback_files import RowError
from core.users import User, check_may_train
from providers.sentences import Sentence, say
from training.rows import Row, RowReport, from_feedback, from_file, from_line, prepare, to_line

MAX_NAME = 200


@dataclass(frozen=True)
class Dataset:
    """A dataset as it is kept. `kind` is "chat" or "text"; `source` is "feedback" or "file"."""

    id: str
    name: str
    source: str
    kind: str
    train_rows: int
    held_out_rows: int
    sha256: str
    report: RowReport
    created_at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class DatasetStore:
    """Keeps datasets. A person sees only their own."""

    database: Database
    feedback: FeedbackStore
    folder: Path

    async def build(
        self, user: User, name: str = "", wanted: FeedbackFilter | None = None, with_thumbs_up: bool = False
    ) -> Dataset:
        """Make a dataset of a person's corrections, and of what they rated up, if wanted.

        Raises InvalidRequest where that leaves no row, NotAllowed and StorageFailed.
        """
        check_may_train(user)
        given = await self.feedback.list(user, wanted, limit=100_000)
        rows = from_feedback(given, with_thumbs_up)
        return await self._keep(user, name or "feedback", "feedback", *prepare(rows, len(rows)))

    async def import_file(self, user: User, name: str, content: bytes) -> Dataset:
        """Make a dataset of a file's rows; those that cannot be read are reported and left out.

        Raises InvalidRequest where no row can be read, NotAllowed and StorageFailed.
        """
        check_may_train(user)
        rows, errors = await asyncio.to_thread(from_file, content)
        return await self._keep(user, name or "file", "file", *prepare(rows, len(rows) + len(errors), errors))

    async def list(self, user: User) -> list[Dataset]:
        """List a person's datasets, newest first."""
        check_may_train(user)
        query = select(tables.datasets).where(tables.datasets.c.owner == user.name)
        async with self.database.transaction() as connection:
            found = await connection.execute(query.order_by(tables.datasets.c.created_at.desc()))
            return [_dataset(row._mapping) for row in found]

    async def get(self, user: User, dataset_id: str) -> Dataset:
        """Return one dataset. Raises NotFound."""
        check_may_train(user)
        row = tables.datasets
        async with self.database.transaction() as connection:
            found = await connection.execute(select(row).where(row.c.id == dataset_id, row.c.owner == user.name))
            one = found.one_or_none()
        if one is None:
            raise NotFound(
                say("There is no dataset {dataset_id} of yours.", dataset_id=dataset_id[:64]),
                say("Choose one of the list, or build one."),
            )
        return _dataset(one._mapping)

    async def rows(self, user: User, dataset_id: str) -> Sequence[Row]:
        """Read a dataset's rows. Raises NotFound, and StorageFailed where the file is gone or was changed."""
        dataset = await self.get(user, dataset_id)
        return await asyncio.to_thread(read_rows, self.file(dataset_id), dataset.sha256)

    def file(self, dataset_id: str) -> Path:
        """Return where the rows of a dataset are."""
        return self.folder / f"{dataset_id}.jsonl"

    async def _keep(self, user: User, name: str, source: str, rows: Sequence[Row], report: RowReport) -> Dataset:
        if len(name) > MAX_NAME:
            raise InvalidRequest(say("A name has at most {limit} characters.", limit=MAX_NAME))
        held_out = sum(row.held_out for row in rows)
        dataset_id = uuid.uuid4().hex[:12]
        sha256 = await asyncio.to_thread(_write, self.file(dataset_id), rows)
        kind = "chat" if any(row.messages for row in rows) else "text"
        dataset = Dataset(dataset_id, name, source, kind, len(rows) - held_out, held_out, sha256, report)
        columns = {key: value for key, value in vars(dataset).items() if key != "report"}
        async with self.database.transaction() as connection:
            await connection.execute(
                insert(tables.datasets).values(owner=user.name, report=_report_json(report), **columns)
            )
        return dataset


def read_rows(file: Path, sha256: str = "") -> list[Row]:
    """Read normalised rows. Raises StorageFailed where the file is gone or not the one with this sha256."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StorageFailed(say("The dataset's file {file} cannot be read.", file=file.name)) from error
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise StorageFailed(
            say("The dataset's file {file} was changed after it was made.", file=file.name), say("Build it again.")
        )
    return [from_line(line) for line in content.decode("utf-8").split("\n") if line]


def _write(file: Path, rows: Sequence[Row]) -> str:
    """Write rows, let the file appear when it is whole, and return its sha256."""
    content = "".join(map(to_line, rows)).encode("utf-8")
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as writing:
            writing.write(content)
            writing.flush()
            os.fsync(writing.fileno())
        part.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise StorageFailed(
            say("The data could not be stored: {reason}.", reason=(error.strerror or "disk error").lower()),
            say("Make room on the disk and allow writing to DATA_DIR, then try again."),
        ) from error
    return hashlib.sha256(content).hexdigest()


def _dataset(row: Any) -> Dataset:
    columns = {key: value for key, value in row.items() if key not in ("owner", "report")}
    return Dataset(**columns, report=_report(row["report"]))


def _report_json(report: RowReport) -> dict[str, Any]:
    return {
        "given": report.given,
        "duplicates": report.duplicates,
        "errors": [{"row": error.row, "reason": error.reason.to_json()} for error in report.errors[:1000]],
        "warnings": [warning.to_json() for warning in report.warnings],
    }


def _report(data: dict[str, Any]) -> RowReport:
    return RowReport(
        data["given"],
        data["duplicates"],
        tuple(RowError(error["row"], Sentence.from_json(error["reason"])) for error in data["errors"]),
        tuple(Sentence.from_json(warning) for warning in data["warnings"]),
    )
