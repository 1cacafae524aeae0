"""All that fine-tuning needs, on one database: feedback, datasets made of it, and runs on those."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from core.database import Database
from core.feedback import FeedbackStore
from core.models import Models
from core.users import User
from training.datasets import DatasetStore
from training.preview import Preview, preview
from training.runs import Runs


@dataclass(frozen=True)
class Workshop:
    """The services of one server."""

    feedback: FeedbackStore
    datasets: DatasetStore
    runs: Runs

    @classmethod
    def on(cls, database: Database, models: Models) -> Workshop:
        """Make the services for these models, with their files under DATA_DIR."""
        feedback = FeedbackStore(database)
        datasets = DatasetStore(database, feedback, models.settings.data_dir / "datasets")
        return cls(feedback, datasets, Runs(database, datasets, models, models.settings.runs_dir))

    async def preview(self, user: User, dataset_id: str, model: str, max_length: int, sample: int) -> Preview:
        """Show a dataset as `model` sees it. Raises NotFound, InvalidRequest and the errors of the model's provider."""
        rows = await self.datasets.rows(user, dataset_id)
        folder = await self.runs.models.training_folder(model)
        return await asyncio.to_thread(preview, rows, folder, max_length, sample)
