"""Read by every Python that has this folder in PYTHONPATH: hides the modules that WITHOUT_MODULES names."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

HIDDEN = frozenset(os.environ["WITHOUT_MODULES"].split(","))


class Hidden(MetaPathFinder):
    """Says of a hidden module what Python says of one that is not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raise ModuleNotFoundError for a hidden module, and leave any other to the finders that follow."""
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Hidden())
