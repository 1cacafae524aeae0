"""A workshop of one's own, with tiny models and a few rows to train on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.settings import Settings
from core.users import LOCAL
from tests.tiny_models import make_chat_model
from training.recipes import Recipe
from training.run_status import RunStatus
from training.runs import Runs
from training.train import workshop_of
from training.workshop import Workshop

RECIPE = Recipe(epochs=10, replay=0, batch_size=2, learning_rate=1e-2)
ROWS = [{"prompt": f"question {number}", "completion": f"answer {number}"} for number in range(12)]


@dataclass(frozen=True)
class Bench:
    """A workshop at `settings`, watched, and what tests do with it."""

    workshop: Workshop
    settings: Settings

    @property
    def runs(self) -> Runs:
        return self.workshop.runs

    async def start(self, base: str = "tiny", recipe: Recipe = RECIPE, lines: list[str] | None = None) -> str:
        """Import rows and start a run on them; return its id."""
        content = "\n".join(lines or [json.dumps(row) for row in ROWS]).encode()
        dataset = await self.workshop.datasets.import_file(LOCAL, "rows", content)
        return (await self.runs.start(LOCAL, dataset.id, base, recipe)).id

    async def until(self, run_id: str, when: Callable[[RunStatus], bool], seconds: float = 90) -> RunStatus:
        """Return the run's status as soon as `when` holds; fail when it does not within the time."""
        deadline = time.monotonic() + seconds
        while not when(status := await self.runs.status(LOCAL, run_id)):
            assert time.monotonic() < deadline, f"{status}\n{self.runs.run_folder(run_id).log.read_text()}"
            await asyncio.sleep(0.05)
        return status

    async def end(self, run_id: str) -> RunStatus:
        """Return the run's status once it has ended."""
        return await self.until(run_id, lambda status: not status.is_active)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    settings = Settings(data_dir=tmp_path / "data", device="cpu")
    make_chat_model(settings.data_dir / "models" / "tiny")
    async with watched(settings) as bench:
        yield bench


@asynccontextmanager
async def watched(settings: Settings) -> AsyncIterator[Bench]:
    """Open a bench at `settings`, as a server would."""
    async with workshop_of(settings) as workshop:
        yield Bench(workshop, settings)
