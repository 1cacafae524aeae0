"""What is suggested, what a person wrote down, and the default: from two files, read again when they changed."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.configuration import ConfigurationError, ConfigurationFile, read_file
from core.errors import InvalidRequest, StorageFailed
from core.load_options import chosen
from core.model_entries import ModelEntry
from providers.sentences import say
from providers.types import LoadOptions

log = logging.getLogger(__name__)


@dataclass
class Library:
    """The catalogue, and `DATA_DIR/config.json`, which may be edited while the server runs."""

    data_dir: Path
    catalogue_file: Path
    _read: dict[Path, tuple[int, ConfigurationFile]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def file(self) -> Path:
        """The person's own file."""
        return self.data_dir / "config.json"

    @property
    def selected(self) -> str | None:
        """The model that the person made the default."""
        return self._contents(self.file).selected_model

    def catalogue(self) -> tuple[ModelEntry, ...]:
        """Return what is suggested."""
        return self._contents(self.catalogue_file).models

    def own(self) -> tuple[ModelEntry, ...]:
        """Return what the person wrote down."""
        return self._contents(self.file).models

    def options(self, model_id: str) -> LoadOptions | None:
        """Return how a model was loaded last; None where nothing was chosen."""
        return self._contents(self.file).load_options.get(model_id)

    def keep_options(self, model_id: str, options: LoadOptions) -> None:
        """Keep how a model is loaded from now on. Raises InvalidRequest and StorageFailed as `select` does."""
        if options == (self.options(model_id) or LoadOptions()):
            return

        def changed(before: dict[str, Any]) -> dict[str, Any]:
            kept = {name: each for name, each in before.get("load_options", {}).items() if name != model_id}
            return {"load_options": kept | ({model_id: chosen(options)} if chosen(options) else {})}

        self._change(changed)

    def select(self, model_id: str) -> None:
        """Keep the default. Raises InvalidRequest for a broken file, StorageFailed where it cannot be written."""
        self._change(lambda _: {"selected_model": model_id})

    def _contents(self, file: Path) -> ConfigurationFile:
        """Return what a file says; what it said before, while somebody is at it and it cannot be read."""
        try:
            changed = file.stat().st_mtime_ns
        except OSError:
            return ConfigurationFile()
        known = self._read.get(file)
        if known is None or known[0] != changed:
            try:
                known = changed, read_file(file)
            except ConfigurationError as error:
                log.warning("What it said before goes on: %s", error)
                known = changed, known[1] if known else ConfigurationFile()
            self._read[file] = known
        return known[1]

    def _change(self, values: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        with self._lock:
            try:
                before = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
                read_file(self.file) if before else None
            except (OSError, ValueError, ConfigurationError) as error:
                raise InvalidRequest(
                    say("{file} cannot be read: {reason}", file=self.file.name, reason=str(error)),
                    say("Mend it, or move it away."),
                ) from error
            written = self.file.with_suffix(".new")
            try:
                self.data_dir.mkdir(parents=True, exist_ok=True)
                with written.open("w", encoding="utf-8") as stream:
                    stream.write(json.dumps(before | values(before), indent=2, ensure_ascii=False) + "\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                written.replace(self.file)
            except OSError as error:
                raise StorageFailed(say("{file} cannot be written.", file=self.file.name)) from error
