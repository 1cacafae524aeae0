"""Watching the engine itself: how many layers the models of this process compute, whoever asked."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

QUIET_SECONDS = 0.8


class EngineWatch:
    """Counts decoder layers as they begin; a token takes as many as the model has.

    `work` counts each layer once for every token in it, so that it does not matter in how many pieces a prompt is read.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.layers = 0
        self.work = 0

    def __enter__(self) -> EngineWatch:
        from torch.nn.modules.module import register_module_forward_pre_hook

        self._hook = register_module_forward_pre_hook(self._count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.remove()

    def wait_until_busy(self, layers: int = 1, seconds: float = 60) -> None:
        """Return once the engine has computed `layers` more; fails after `seconds`."""
        with self._changed:
            goal = self.layers + layers
            assert self._changed.wait_for(lambda: self.layers >= goal, seconds), "the engine did not start"

    def layers_until_quiet(self, seconds: float = 20) -> int:
        """Return how many more layers the engine computed until it rested; fails when it does not within `seconds`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            first = self.layers
            while self._changed.wait(QUIET_SECONDS):
                assert time.monotonic() < deadline, "the engine goes on"
            return self.layers - first

    def _count(self, module: Any, inputs: Any) -> None:
        if type(module).__name__ == "LlamaDecoderLayer":
            with self._changed:
                self.layers += 1
                self.work += inputs[0].shape[0] * inputs[0].shape[1]
                self._changed.notify_all()
