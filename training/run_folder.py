"""The folder of a run, through which its process and the server speak: a spec, events, a wish to stop, an adapter."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from providers.sentences import say
from training.recipes import Recipe, recipe_from_json

TERMINAL = ("finished", "stopped", "failed")
UNTOLD = 3  # The exit status of a process that could not even write why it ended.
DISK_FULL = say("The disk is full.")
MAKE_ROOM = say("Make room and press Resume: the run goes on from its last checkpoint.")


@dataclass(frozen=True)
class Spec:
    """What a run's process is told: `base` is the model's name, `base_folder` where it is, `rows` the data."""

    run_id: str
    base: str
    base_folder: str
    rows: str
    rows_sha256: str
    recipe: Recipe
    device: str = "auto"


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, and the byte of the events file at which it ends."""

    end: int
    data: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its state."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self.path / "worker.log"

    def write_spec(self, spec: Spec) -> None:
        """Make the folder and tell the process what to do."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / "spec.json", json.dumps(asdict(spec), indent=2, ensure_ascii=False))

    def spec(self) -> Spec:
        """Read what the process is told."""
        data = json.loads((self.path / "spec.json").read_text(encoding="utf-8"))
        return Spec(**data | {"recipe": recipe_from_json(data["recipe"])})

    def lock(self) -> FileLock:
        """Return the lock that the process holds while it lives; the system frees it, however the process ends."""
        return FileLock(self.path / "process.lock")

    def is_alive(self) -> bool:
        """Say whether the run's process lives."""
        try:
            with self.lock().acquire(timeout=0):
                return False
        except (Timeout, OSError):
            return self.path.is_dir()

    def ask_to_stop(self) -> None:
        """Let the process end after the step it is in."""
        (self.path / "STOP").touch()

    def forget_stop(self) -> None:
        """Take the wish to stop back."""
        (self.path / "STOP").unlink(missing_ok=True)

    def shall_stop(self) -> bool:
        """Say whether the process should end."""
        return (self.path / "STOP").exists()

    def append(self, kind: str, **data: Any) -> None:
        """Tell what happened; a line is written whole, and after a broken one begins anew."""
        line = json.dumps({"kind": kind, "time": time.time(), **data}, ensure_ascii=False) + "\n"
        with (self.path / "events.jsonl").open("a+b") as events:
            if events.tell():
                events.seek(-1, os.SEEK_END)
                line = line if events.read() == b"\n" else f"\n{line}"
            events.write(line.encode("utf-8"))
            events.flush()
            if kind != "progress":  # Steps may be told again; waiting for the disk at each slows the training.
                os.fsync(events.fileno())

    def events(self, after: int = 0) -> Iterator[Event]:
        """Read the events that end after this byte; a line that is not whole yet is left for later."""
        with contextlib.suppress(FileNotFoundError), (self.path / "events.jsonl").open("rb") as file:
            file.seek(after)
            end = after
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                with contextlib.suppress(ValueError):
                    yield Event(end, json.loads(line))


def write_whole(file: Path, text: str) -> None:
    """Write a text; the file appears when it is whole and on the disk."""
    part = file.with_name(f"{file.name}.part")
    with part.open("w", encoding="utf-8") as writing:
        writing.write(text)
        writing.flush()
        os.fsync(writing.fileno())
    part.replace(file)


def last_good_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was saved whole: the trainer writes its state last, and not by rename."""

    def step(path: Path) -> int:
        return int(path.name.rpartition("-")[2])

    for path in sorted(folder.glob("checkpoint-*"), key=step, reverse=True):
        with contextlib.suppress(OSError, ValueError):
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return path
    return None
