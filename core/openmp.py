"""How long the processor's threads wait for the next piece of work before they sleep."""

from __future__ import annotations

import os

# GNU's OpenMP lets idle threads spin for 300,000 turns: beside a training run, a chat then waits for its own threads,
# up to 0.8 s a word. But where more than one thread begins work, as the engines of two models do, they spin for 100
# turns only, unless the policy is active, and sleep between any two layers: a chat has two thirds of its speed.
SPINNING = {"GOMP_SPINCOUNT": "10000", "OMP_WAIT_POLICY": "active"}


def spin_briefly() -> None:
    """Set what is not set by the person; it counts for what is imported afterwards."""
    for name, value in SPINNING.items():
        os.environ.setdefault(name, value)
