"""Runs of fine-tuning: one process at a time, the others wait; what happens in it is read from its folder and kept.

The server only watches. A run goes on when the server ends, and the next server finds it by the lock that it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import func, insert, select, update

from core import tables
from core.database import Database
from core.errors import InvalidRequest, NotFound, StorageFailed
from core.models import Models
from core.openmp import SPINNING
from core.settings import ROOT
from core.users import User, check_may_train
from providers.sentences import Sentence, say
from training.datasets import DatasetStore
from training.recipes import METHODS, Recipe, recipe_from_json, recipe_json
from training.run_folder import DISK_FULL, MAKE_ROOM, TERMINAL, UNTOLD, Event, RunFolder, Spec
from training.run_status import ACTIVE, Run, RunStatus, status_of

POLL_SECONDS = 0.5
IDLE_SECONDS = 5.0
SECONDS_TO_BEGIN = 20.0
RESUMABLE = ("stopped", "failed", "interrupted")
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

log = logging.getLogger(__name__)

SECRETS = re.compile(r"(_API_KEY|_TOKEN|SECRET_KEY|DATABASE_URL|REDIS_URL)$")


@dataclass
class Runs:
    """The runs of one server."""

    database: Database
    datasets: DatasetStore
    models: Models
    folder: Path
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(
        self, user: User, dataset_id: str, base_model: str, recipe: Recipe, method: str = "sft", name: str = ""
    ) -> Run:
        """Queue a run. Raises NotFound, InvalidRequest, NotAllowed, StorageFailed and the errors of providers."""
        check_may_train(user)
        if method not in METHODS:
            raise InvalidRequest(say("method must be one of {methods}.", methods=", ".join(METHODS)))
        dataset = await self.datasets.get(user, dataset_id)
        base = await self.models.training_folder(base_model)
        full_id = self.models.full_id(base_model)
        run = Run(_run_id(name or full_id), dataset.id, full_id, method, recipe, "queued", time.time())
        spec = Spec(
            run_id=run.id,
            base=self.models.split(full_id)[1],
            base_folder=str(base.path.resolve()),
            rows=str(self.datasets.file(dataset.id).resolve()),
            rows_sha256=dataset.sha256,
            recipe=recipe,
            device=self.models.settings.device,
        )
        try:
            await asyncio.to_thread(self.run_folder(run.id).write_spec, spec)
        except OSError as error:
            raise StorageFailed(
                say("The data could not be stored: {reason}.", reason=(error.strerror or "disk error").lower()),
                say("Make room on the disk and allow writing to DATA_DIR, then try again."),
            ) from error
        columns = {key: value for key, value in vars(run).items() if key not in ("error", "hint", "recipe")}
        async with self.database.transaction() as connection:
            await connection.execute(insert(tables.runs).values(owner=user.name, recipe=recipe_json(recipe), **columns))
        self._wake.set()
        return run

    async def stop(self, user: User, run_id: str) -> Run:
        """End a run after the step it is in; what it has learnt until then is kept and can be used."""
        run = await self.get(user, run_id)
        if run.state not in ACTIVE:
            raise InvalidRequest(say("The run {run_id} is not running: it is {state}.", run_id=run.id, state=run.state))
        self.run_folder(run.id).ask_to_stop()
        if run.state == "queued":
            await self._change(run.id, state="stopped", ended_at=time.time())
        else:
            await self._change(run.id, state="stopping")
        self._wake.set()
        return await self.get(user, run_id)

    async def resume(self, user: User, run_id: str) -> Run:
        """Queue a run again that was stopped, failed or cut off; it goes on from its last whole checkpoint."""
        run = await self.get(user, run_id)
        if run.state not in RESUMABLE:
            raise InvalidRequest(
                say("The run {run_id} cannot be resumed: it is {state}.", run_id=run.id, state=run.state)
            )
        self.run_folder(run.id).forget_stop()
        await self._change(run.id, state="queued", ended_at=None, error=None)
        self._wake.set()
        return await self.get(user, run_id)

    async def get(self, user: User, run_id: str) -> Run:
        """Return one run. Raises NotFound."""
        check_may_train(user)
        row = tables.runs
        async with self.database.transaction() as connection:
            found = await connection.execute(select(row).where(row.c.id == run_id, row.c.owner == user.name))
            one = found.one_or_none()
        if one is None:
            raise NotFound(
                say("There is no run {run_id} of yours.", run_id=run_id[:64]),
                say("List your runs to see what there is."),
            )
        return _run(one._mapping)

    async def list(self, user: User) -> Sequence[Run]:
        """List a person's runs, newest first."""
        check_may_train(user)
        query = select(tables.runs).where(tables.runs.c.owner == user.name)
        async with self.database.transaction() as connection:
            found = await connection.execute(query.order_by(tables.runs.c.created_at.desc()))
            return [_run(row._mapping) for row in found]

    async def status(self, user: User, run_id: str) -> RunStatus:
        """Say how far a run is. Raises NotFound."""
        run = await self.get(user, run_id)
        events = tables.run_events
        async with self.database.transaction() as connection:
            found = await connection.execute(
                select(events.c.event).where(events.c.run_id == run.id).order_by(events.c.end)
            )
            return status_of(run, [row.event for row in found])

    def run_folder(self, run_id: str) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(self.folder / run_id)

    async def watch(self) -> None:
        """Begin what waits, keep what happens, and notice what ended; runs until it is cancelled.

        Of several processes on one DATA_DIR one watches; the others take over when it ends.
        """
        lock = FileLock(self.folder / "watch.lock")
        try:
            while True:
                self._wake.clear()
                try:
                    pause = POLL_SECONDS if self._is_watchman(lock) and await self.advance() else IDLE_SECONDS
                except StorageFailed as error:
                    log.error("Runs cannot be watched: %s", error)
                    pause = IDLE_SECONDS
                except Exception:
                    log.exception("Runs cannot be watched")  # The next look may succeed; without one no run would end.
                    pause = IDLE_SECONDS
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
        finally:
            lock.release()
            for process in self._processes.values():
                process.returncode = process.poll() or 0  # It outlives this server; Popen would warn that it does.

    def _is_watchman(self, lock: FileLock) -> bool:
        if lock.is_locked:
            return True
        with contextlib.suppress(Timeout, OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        return bool(lock.is_locked)

    async def follow(self, user: User, run_id: str) -> AsyncIterator[RunStatus]:
        """Yield how far a run is whenever that changes, until it has ended; somebody must watch."""
        before: RunStatus | None = None
        while before is None or before.is_active:
            status = await self.status(user, run_id)
            if status != before:
                yield status
            before = status
            await asyncio.sleep(POLL_SECONDS)

    async def advance(self) -> bool:
        """Do what `watch` does, once; say whether a run waits or trains."""
        row = tables.runs
        async with self.database.transaction() as connection:
            found = await connection.execute(select(row).where(row.c.state.in_(ACTIVE)).order_by(row.c.created_at))
            active = [(_run(each._mapping), each.owner) for each in found]
        training = [await self._keep_events(run, owner) for run, owner in active if run.state != "queued"]
        waiting = [run for run, _ in active if run.state == "queued"]
        self._forget_ended({run.id for run, _ in active})
        if waiting and not any(training) and not self._lives(waiting[0].id):
            await self._launch(waiting[0])
        return bool(waiting or self._processes) or any(training)

    async def _keep_events(self, run: Run, owner: str) -> bool:
        """Keep what a run tells, and how it ended when it has; say whether it still trains."""
        alive = await asyncio.to_thread(self._is_alive, run)
        events = tables.run_events
        async with self.database.transaction() as connection:
            known = select(func.max(events.c.end)).where(events.c.run_id == run.id)
            after = (await connection.execute(known)).scalar_one() or 0
            new = await asyncio.to_thread(lambda: list(self.run_folder(run.id).events(after)))
            if new:
                rows = [{"run_id": run.id, "end": each.end, "owner": owner, "event": each.data} for each in new]
                await connection.execute(insert(events), rows)
            if changes := _end_of(new, alive, self._exit_status(run.id)):
                await connection.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(**changes))
        return alive or bool(new)

    def _is_alive(self, run: Run) -> bool:
        if run.id in self._processes:
            return self._lives(run.id)
        folder, begun = self.run_folder(run.id), run.started_at or 0
        if folder.is_alive():
            return True
        return time.time() - begun < SECONDS_TO_BEGIN and not _has_begun(folder, begun)

    def _lives(self, run_id: str) -> bool:
        return run_id in self._processes and self._exit_status(run_id) is None

    def _exit_status(self, run_id: str) -> int | None:
        """Return how a process of this server ended; `None` while it lives, and for those of earlier servers."""
        process = self._processes.get(run_id)
        return process.poll() if process else None

    def _forget_ended(self, active: Collection[str]) -> None:
        """Let go of the processes that have ended: until they are asked for their status the system keeps them."""
        for run_id, process in list(self._processes.items()):
            if process.poll() is not None and run_id not in active:
                del self._processes[run_id]

    async def _launch(self, run: Run) -> None:
        await self._change(run.id, state="running", started_at=time.time())
        folder = self.run_folder(run.id)
        try:
            self._processes[run.id] = await asyncio.to_thread(_begin, folder)
        except OSError as error:
            reason = say("The training process could not be started: {reason}.", reason=error.strerror or "error")
            await self._change(run.id, state="failed", ended_at=time.time(), error={"message": reason.to_json()})

    async def _change(self, run_id: str, **values: Any) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(update(tables.runs).where(tables.runs.c.id == run_id).values(**values))


def _begin(folder: RunFolder) -> subprocess.Popen[bytes]:
    """Start the run's process in a session of its own, without the server's keys.

    Its threads may spin: those that sleep at once cost a run a tenth, and a chat takes their place anyway.
    """
    environment = {
        name: value for name, value in os.environ.items() if not SECRETS.search(name) and name not in SPINNING
    }
    with folder.log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "training.worker", str(folder.path.resolve())],
            cwd=ROOT,
            env=environment | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _has_begun(folder: RunFolder, since: float) -> bool:
    """Say whether a process has told something after this time."""
    return any(event.data.get("time", 0) >= since for event in folder.events())


def _end_of(new: Sequence[Event], alive: bool, exit_status: int | None) -> dict[str, Any]:
    """Return the columns that change when a run has ended; nothing while it trains."""
    ends = [event.data for event in new if event.data.get("kind") in TERMINAL]
    if ends:
        last = ends[-1]
        failed = last["kind"] == "failed"
        return {
            "state": last["kind"],
            "ended_at": last["time"],
            "error": {"message": last["message"], "hint": last["hint"]} if failed else None,
        }
    if alive or new:
        return {}
    reason = say("The training process ended unexpectedly.")
    hint = say("Press Resume: the run goes on from its last checkpoint.")
    if exit_status == UNTOLD:
        reason, hint = DISK_FULL, MAKE_ROOM
    return {
        "state": "interrupted",
        "ended_at": time.time(),
        "error": {"message": reason.to_json(), "hint": hint.to_json()},
    }


def _run(row: Any) -> Run:
    columns = {key: value for key, value in row.items() if key not in ("owner", "error", "recipe")}
    error = row["error"] or {}
    return Run(
        **columns,
        recipe=recipe_from_json(row["recipe"]),
        error=Sentence.from_json(error["message"]) if error.get("message") else None,
        hint=Sentence.from_json(error["hint"]) if error.get("hint") else None,
    )


def _run_id(name: str) -> str:
    """Return a name that is unique, readable, and good for a folder: letters, digits and hyphens."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.rpartition("/")[2].lower()).strip("-")[:40] or "run"
    return f"{readable}-{uuid.uuid4().hex[:6]}"
