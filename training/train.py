"""Lines of text in, a tuned model out: `train(model_name, lines)`, and the same for a dataset that is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from core.database import Database
from core.errors import RequestRefused
from core.models import Models
from core.settings import Settings
from core.users import LOCAL
from providers.sentences import say
from training.recipes import Recipe
from training.run_status import RunStatus
from training.workshop import Workshop


def train(
    model_name: str,
    lines: Sequence[str],
    recipe: Recipe | None = None,
    settings: Settings | None = None,
    tell: Callable[[RunStatus], None] = lambda _: None,
) -> str:
    """Fine-tune a transformers model on lines of text; return the id of the tuned model, as in `tuned/gpt2-1a2b3c`.

    A line is plain text, or JSON as in {"prompt": ..., "completion": ...}; all of one kind. Blocks until the run has
    ended; `tell` is called as it goes on. Raises InvalidRequest, StorageFailed, the errors of the model's provider, and
    RequestRefused where the run did not finish.
    """
    content = "\n".join(line.replace("\n", " ") for line in lines).encode("utf-8")

    async def work() -> str:
        async with workshop_of(settings or Settings.from_env(os.environ)) as workshop:
            dataset = await workshop.datasets.import_file(LOCAL, "lines", content)
            run = await workshop.runs.start(LOCAL, dataset.id, model_name, recipe or Recipe())
            status = await follow_to_end(workshop, run.id, tell)
            if status.run.state != "finished":
                raise RequestRefused(
                    status.run.error or say("The run ended as {state}.", state=status.run.state), status.run.hint
                )
            return status.model

    return asyncio.run(work())


@asynccontextmanager
async def workshop_of(settings: Settings) -> AsyncIterator[Workshop]:
    """Open the services of a DATA_DIR without a server, and watch its runs meanwhile."""
    models = Models(settings)
    database = Database(settings.data_dir)
    workshop = Workshop.on(database, models)
    watch = asyncio.create_task(workshop.runs.watch())
    try:
        yield workshop
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await models.aclose()
        await database.aclose()


async def follow_to_end(workshop: Workshop, run_id: str, tell: Callable[[RunStatus], None]) -> RunStatus:
    """Tell how far a run is until it has ended, and return how."""
    status = await workshop.runs.status(LOCAL, run_id)
    async for status in workshop.runs.follow(LOCAL, run_id):
        tell(status)
    return status
