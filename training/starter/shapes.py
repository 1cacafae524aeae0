"""Which shape learns most of the same text: each is trained from nothing for a while, with the whole schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from training.starter.train import Progress, TrainingPlan, train
from training.starter.weights import Shape

SHAPES = {
    "deep and narrow": Shape(layers=11, hidden=192, intermediate=576, heads=3, kv_heads=1),
    "as shipped": Shape(),
    "shallow and wide": Shape(layers=3, hidden=384, intermediate=1024, heads=6, kv_heads=2),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What one shape reached; `loss` is weighted, on conversations of another seed."""

    name: str
    shape: Shape
    parameters: int
    tokens_per_second: float
    loss: float


def compare(steps: int, threads: int, seed: int, scale: int = 1, processes: int = 0) -> Iterator[Trial]:
    """Train each shape for so many steps on the same batches."""
    for name, shape in SHAPES.items():
        with TemporaryDirectory() as folder:
            result = train(
                TrainingPlan(
                    output=Path(folder) / "model",
                    work=Path(folder),
                    steps=steps,
                    threads=threads,
                    seed=seed,
                    shape=shape,
                    scale=scale,
                    processes=processes,
                )
            )
        yield Trial(name, shape, result.parameters, _speed(result.curve), result.validation_loss)


def _speed(curve: Sequence[Progress]) -> float:
    """Compute the tokens per second of the second half: in the first a GPU records what a step launches."""
    points = (Progress(0, 0.0, 0, 0.0), *curve)
    middle, last = points[(len(points) - 1) // 2], points[-1]
    return (last.tokens - middle.tokens) / (last.seconds - middle.seconds)


def trials_table(trials: list[Trial]) -> str:
    """Render trials as a Markdown table."""
    lines = ["| Shape | Layers | Hidden size | Parameters | Tokens/s | Loss |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {each.name} | {each.shape.layers} | {each.shape.hidden} | {each.parameters:,} "
        f"| {each.tokens_per_second:,.0f} | {each.loss:.3f} |"
        for each in trials
    ]
    return "\n".join(lines)
