"""How far a run is, folded from what its process told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from training.recipes import Recipe
from training.run_status import ACTIVE, CURVE_POINTS, Run, status_of

RUN = Run("tea-1", "d1", "transformers/starter", "sft", Recipe(), "running", created_at=1.0)


def started(resumed_from: int = 0, **facts: Any) -> dict[str, Any]:
    return {"kind": "started", "time": 1.0, "steps": 80, "resumed_from": resumed_from, **facts}


def progress(step: int, loss: float | None = 1.0) -> dict[str, Any]:
    return {
        "kind": "progress",
        "time": 2.0,
        "step": step,
        "steps": 80,
        "loss": loss,
        "tokens_per_second": 100.0,
        "eta_seconds": 80.0 - step,
    }


def evaluated(step: int, loss: float | None) -> dict[str, Any]:
    return {"kind": "evaluated", "time": 2.0, "step": step, "loss": loss}


def test_a_run_that_told_nothing_is_at_its_beginning() -> None:
    status = status_of(RUN, [])

    assert (status.step, status.steps, status.loss, status.curve, status.held_out) == (0, 0, None, (), ())
    assert (status.model, dict(status.facts)) == ("", {})


def test_the_last_progress_is_how_far_it_is() -> None:
    status = status_of(RUN, [started(rows=3), progress(1, 2.5), progress(2, 1.5)])

    assert (status.step, status.steps, status.loss) == (2, 80, 1.5)
    assert (status.tokens_per_second, status.eta_seconds) == (100.0, 78.0)
    assert status.curve == ((1, 2.5), (2, 1.5))
    assert status.facts == {"steps": 80, "resumed_from": 0, "rows": 3}


def test_before_the_first_step_the_number_of_steps_is_known() -> None:
    assert (status_of(RUN, [started()]).step, status_of(RUN, [started()]).steps) == (0, 80)


@pytest.mark.parametrize("state", ["finished", "stopped", "failed", "interrupted", *ACTIVE])
def test_only_a_run_that_goes_on_has_time_left(state: str) -> None:
    status = status_of(replace(RUN, state=state), [progress(1)])

    assert status.is_active == (state in ACTIVE)
    assert (status.eta_seconds is not None) == (state in ACTIVE)


def test_steps_that_were_lost_are_told_anew() -> None:
    events = [
        started(),
        *(progress(step, 1.0) for step in range(1, 6)),
        started(resumed_from=3),
        progress(4, 0.5),
    ]

    assert status_of(RUN, events).curve == ((1, 1.0), (2, 1.0), (3, 1.0), (4, 0.5))
    assert status_of(RUN, events[:-1]).curve == ((1, 1.0), (2, 1.0), (3, 1.0))
    assert status_of(RUN, events).facts["resumed_from"] == 3


def test_a_run_that_begins_again_from_nothing_has_a_new_curve() -> None:
    assert status_of(RUN, [started(), progress(1, 9.0), started(), progress(1, 8.0)]).curve == ((1, 8.0),)


def test_a_loss_that_is_no_number_is_no_point() -> None:
    status = status_of(RUN, [progress(1), progress(2, None), evaluated(0, None), evaluated(2, 0.5)])

    assert status.curve == ((1, 1.0),)
    assert status.held_out == ((2, 0.5),)
    assert status.loss is None


def test_the_held_out_loss_is_known_before_and_after() -> None:
    assert status_of(RUN, [evaluated(80, 0.5), evaluated(0, 3.0)]).held_out == ((0, 3.0), (80, 0.5))


def test_the_tuned_model_is_there_once_there_is_an_adapter() -> None:
    stopped = {"kind": "stopped", "time": 3.0, "step": 5, "steps": 80, "adapter": "adapter-5"}

    assert status_of(RUN, [started(), progress(5)]).model == ""
    assert status_of(RUN, [started(), progress(5), stopped]).model == "tuned/tea-1"
    assert status_of(RUN, [stopped, started(5), {"kind": "failed", "time": 4.0}]).model == "tuned/tea-1"


@pytest.mark.parametrize("steps", [1, 2, 399, 400, 401, 799, 800, 801, 1199, 5000, 100_000])
def test_a_long_curve_is_thinned_evenly_and_ends_with_the_last_step(steps: int) -> None:
    curve = status_of(RUN, [progress(step) for step in range(1, steps + 1)]).curve
    gaps = {after[0] - before[0] for before, after in zip(curve, curve[1:-1], strict=False)}

    assert len(curve) <= CURVE_POINTS
    assert len(curve) == steps or len(curve) > CURVE_POINTS / 2
    assert (curve[0][0], curve[-1][0]) == (1, steps)
    assert len(gaps) <= 1
