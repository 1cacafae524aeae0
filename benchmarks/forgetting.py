"""What twenty corrections cost: how much of the starter's table is lost, and how long the run takes.

`points_lost` is the loss in the share of all held-out questions, in points; `worst_row_points_lost` that of the skill
that lost most; `taught_share` how many other wordings of what was corrected get the new answer. Run as
`python -m benchmarks.forgetting`; `--learning-rate` and `--replay` try other recipes than the default one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import Spread
from benchmarks.training import STARTER, run_worker
from examples.loop import TAUGHT, UNSEEN
from training.recipes import Recipe
from training.rows import from_file, prepare, to_line
from training.run_folder import RunFolder, Spec
from training.starter.evaluate import Report, Speaker, evaluate
from training.starter.questions import GOALS

GOALS_HERE = {"run_seconds": "<= 180", "taught_share": ">= 0.8", "points_lost": "<= 2", "worst_row_points_lost": ""}


def measure(rounds: int, recipe: Recipe) -> dict[str, Any]:
    """Teach the same corrections with other seeds."""
    machine, others = report.machine(), report.OtherPrograms()
    before = evaluate(STARTER)
    width = json.loads((STARTER / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    measured: dict[str, list[float]] = {key: [] for key in GOALS_HERE}
    lost: list[dict[str, float]] = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as path:
            started = time.monotonic()
            adapter = _teach(Path(path), replace(recipe, seed=number))
            measured["run_seconds"].append(time.monotonic() - started)
            measured["taught_share"].append(_taught_share(Speaker(STARTER, adapter)))
            after = evaluate(STARTER, adapter=adapter)
        lost.append({row: 100 * (before.share(row) - after.share(row)) for row in GOALS})
        measured["points_lost"].append(100 * (_share_of_all(before) - _share_of_all(after)))
        measured["worst_row_points_lost"].append(max(lost[-1].values()))
        report.progress(f"{number + 1}: " + ", ".join(f"{key} {values[-1]:.2f}" for key, values in measured.items()))
    spreads = {key: Spread.of(values) for key, values in measured.items()}
    return {
        **{key: spread.median for key, spread in spreads.items()},
        "spreads": spreads,
        "rows_points_lost": {row: Spread.of([each[row] for each in lost]) for row in GOALS},
        "recipe": {"learning_rate": recipe.rate(width), "replay": recipe.replay},
        "rounds": rounds,
        "other_programs_percent": others.percent(),
        "machine": machine,
    }


def _teach(path: Path, recipe: Recipe) -> Path:
    """Fine-tune the starter on the loop's corrections as the app does; return the adapter."""
    lines = [
        json.dumps({"prompt": question, "completion": wanted})
        for wanted, questions in TAUGHT.items()
        for question in questions
    ]
    rows, _ = prepare(from_file("\n".join(lines).encode())[0], len(lines))
    file = path / "rows.jsonl"
    file.write_text("".join(map(to_line, rows)), encoding="utf-8")
    folder = RunFolder(path / "run")
    folder.write_spec(Spec("run", "starter", str(STARTER), str(file), "", recipe, "cpu"))
    run_worker(folder)
    tuned = json.loads((folder.path / "tuned.json").read_text(encoding="utf-8"))
    return folder.path / str(tuned["adapter"])


def _taught_share(speaker: Speaker) -> float:
    right = [
        speaker.answer([{"role": "user", "content": question}]).text == wanted
        for wanted, questions in UNSEEN.items()
        for question in questions
    ]
    return sum(right) / len(right)


def _share_of_all(table: Report) -> float:
    rates = [rate for rate in table.rates if rate.row in GOALS]
    return sum(rate.passed for rate in rates) / sum(rate.total for rate in rates)


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", action="store_true", help="also write it into benchmarks/results")
    parser.add_argument("--rounds", type=int, default=3, help="how many runs, with a seed each (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=None, help="peak rate of the recipe")
    parser.add_argument(
        "--replay", type=float, default=Recipe.replay, help="share of the model's own answers (%(default)s)"
    )
    options = parser.parse_args()
    result = measure(options.rounds, Recipe(learning_rate=options.learning_rate, replay=options.replay))
    table = [("", f"median [min..max] of {options.rounds} runs", "goal")]
    table += [(key, str(spread), GOALS_HERE[key]) for key, spread in result["spreads"].items()]
    table += [(f"lost: {row}", str(spread), "") for row, spread in result["rows_points_lost"].items()]
    report.finish("forgetting", result, table, options)


if __name__ == "__main__":
    main()
