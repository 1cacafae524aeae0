"""How a run trains: few settings, and defaults that learn on a processor without a GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from core.errors import InvalidRequest
from core.parameters import ParameterSpec, parse_number
from providers.sentences import say

METHODS = ("sft",)
FEWEST_STEPS = 140
DEFAULT_EPOCHS = 3
FEW_ROWS_WORD_DROPOUT = 0.15


@dataclass(frozen=True)
class Recipe:
    """Settings of a run; `None` is chosen for the model and the data.

    `replay` is the share of rows that are the base model's own answers, which keep it from forgetting them.
    `dropout` is the share of the adapter's inputs that each step leaves out, so that few rows are not learnt by rote;
    0.1 is what QLoRA takes for models of up to 13 billion parameters (Dettmers et al. 2023, arXiv:2305.14314).
    `word_dropout` is the share of a question's words that are left out when it is read again; by default only of rows
    so few that each is read more than `DEFAULT_EPOCHS` times.
    """

    epochs: float | None = None
    learning_rate: float | None = None
    rank: int = 16
    dropout: float = 0.1
    word_dropout: float | None = None
    batch_size: int = 10
    max_length: int = 1024
    replay: float = 0.7
    seed: int = 0

    def steps(self, rows: int) -> int:
        """Return the optimizer steps for so many training rows; few rows are seen more often."""
        own = max(1, self.rows_in_batch)
        per_epoch = math.ceil(rows / own)
        if self.epochs is None:
            return max(FEWEST_STEPS, DEFAULT_EPOCHS * per_epoch)
        return max(1, math.ceil(self.epochs * rows / own))

    def share_left_out(self, rows: int) -> float:
        """Return the share of a question's words to leave out, for so many training rows."""
        if self.word_dropout is not None:
            return self.word_dropout
        return FEW_ROWS_WORD_DROPOUT if self.epochs is None and self.steps(rows) == FEWEST_STEPS else 0.0

    @property
    def rows_in_batch(self) -> int:
        """How many rows of a batch are the dataset's."""
        return max(1, round(self.batch_size * (1 - self.replay)))

    def rate(self, hidden_size: int) -> float:
        """Return the peak learning rate; without one, half of what suits LoRA on a Llama of this width.

        A few rows are learnt as well with half, and less is forgotten (`benchmarks.forgetting`). Source: "LoRA Without
        Regret" (Schulman and Thinking Machines, 2025), whose fit is 10 x 5e-5 x (2000 / width) ^ 0.775 for Llama at
        alpha 32, whatever the rank.
        """
        return self.learning_rate or 5 * 5e-5 * (2000 / hidden_size) ** 0.775


SPECS = {
    spec.name: spec
    for spec in (
        ParameterSpec("epochs", "float", 0.01, 1000, 1),
        ParameterSpec("learning_rate", "float", 1e-7, 1, 1e-4),
        ParameterSpec("rank", "int", 1, 512, 1, default=Recipe.rank),
        ParameterSpec("dropout", "float", 0, 0.9, 0.05, default=Recipe.dropout),
        ParameterSpec("word_dropout", "float", 0, 0.9, 0.05),
        ParameterSpec("batch_size", "int", 1, 256, 1, default=Recipe.batch_size),
        ParameterSpec("max_length", "int", 16, 131_072, 1, default=Recipe.max_length),
        ParameterSpec("replay", "float", 0, 0.9, 0.05, default=Recipe.replay),
        ParameterSpec("seed", "int", 0, 2**31 - 1, 1, default=Recipe.seed),
    )
}


def parse_recipe(values: Mapping[str, Any] | None) -> Recipe:
    """Check settings from a door; `None` takes the default. Raises InvalidRequest."""
    if values is not None and not isinstance(values, Mapping):
        raise InvalidRequest(say("The recipe must be an object of settings."))
    for name in values or {}:
        if name not in SPECS:
            raise InvalidRequest(
                say("There is no setting {name}.", name=str(name)[:50]),
                say("The settings are: {names}.", names=", ".join(SPECS)),
            )
    checked = {name: parse_number(spec, (values or {}).get(name)) for name, spec in SPECS.items()}
    return Recipe(**checked)  # type: ignore[arg-type]  # The specs know which are whole numbers.


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as JSON."""
    return asdict(recipe)


def recipe_from_json(data: Mapping[str, Any]) -> Recipe:
    """Return the recipe that was kept, without settings that are no more."""
    known = {field.name for field in fields(Recipe)}
    return Recipe(**{name: value for name, value in data.items() if name in known})
