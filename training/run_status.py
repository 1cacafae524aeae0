"""What is known of a run: what was asked, and how far it is, folded from the events that its process told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from providers.sentences import Sentence
from training.recipes import Recipe

CURVE_POINTS = 400
ACTIVE = ("queued", "running", "stopping")


@dataclass(frozen=True)
class Run:
    """A run as it is kept. `state` is queued, running, stopping, finished, stopped, failed or interrupted."""

    id: str
    dataset_id: str
    base_model: str
    method: str
    recipe: Recipe
    state: str
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    error: Sentence | None = None
    hint: Sentence | None = None


@dataclass(frozen=True)
class RunStatus:
    """A run and how far it is. Curves are (step, loss); `model` is the tuned model's id once there is an adapter."""

    run: Run
    step: int = 0
    steps: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    curve: tuple[tuple[int, float], ...] = ()
    held_out: tuple[tuple[int, float], ...] = ()
    model: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        """Whether it waits or trains."""
        return self.run.state in ACTIVE


def status_of(run: Run, events: Sequence[Mapping[str, Any]]) -> RunStatus:
    """Fold a run's events. After a resume, steps lost with their checkpoint are told twice: the later one holds."""
    losses: dict[int, float] = {}
    held_out: dict[int, float] = {}
    last: Mapping[str, Any] = {}
    facts: dict[str, Any] = {}
    model = ""
    for event in events:
        kind = event["kind"]
        if kind == "started":
            facts = {key: value for key, value in event.items() if key not in ("kind", "time")}
            losses = {step: loss for step, loss in losses.items() if step <= event["resumed_from"]}
        elif kind == "progress":
            last = event
            if event["loss"] is not None:
                losses[event["step"]] = event["loss"]
        elif kind == "evaluated" and event["loss"] is not None:
            held_out[event["step"]] = event["loss"]
        model = f"tuned/{run.id}" if event.get("adapter") else model
    active = run.state in ACTIVE
    return RunStatus(
        run=run,
        step=last.get("step", 0),
        steps=last.get("steps", 0) or facts.get("steps", 0),
        loss=last.get("loss"),
        tokens_per_second=last.get("tokens_per_second"),
        eta_seconds=last.get("eta_seconds") if active else None,
        curve=_thinned(sorted(losses.items())),
        held_out=tuple(sorted(held_out.items())),
        model=model,
        facts=facts,
    )


def _thinned(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Return at most `CURVE_POINTS` of the points, evenly, the last one always."""
    every = max(1, math.ceil((len(points) - 1) / (CURVE_POINTS - 1)))
    return tuple(points[: len(points) - 1 : every]) + tuple(points[-1:])
