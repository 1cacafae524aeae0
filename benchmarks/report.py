"""What every benchmark tells: the machine, the spread of its figures, a table, and a file when asked for one."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).resolve().parent / "results"
TELLING_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8", "asimd", "sve")


@dataclass(frozen=True)
class Spread:
    """The median of some measurements, the smallest and the largest."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Summarise at least one value."""
        ordered = sorted(values)
        return cls(*(round(value, 5) for value in (statistics.median(ordered), ordered[0], ordered[-1])))

    def __str__(self) -> str:
        return f"{self.median:.4g} [{self.minimum:.4g}..{self.maximum:.4g}]"


class OtherPrograms:
    """How much of the processors other programs take, from when this is made: what spoils a figure."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = _busy_seconds(), _own_seconds(), time.perf_counter()

    def percent(self) -> float:
        """Return their share of all cores so far."""
        seconds = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        available = (time.perf_counter() - self._start) * (os.cpu_count() or 1)
        return round(max(0.0, 100 * seconds / available), 1)


def machine() -> dict[str, Any]:
    """Describe the hardware and how busy it is, without saying which machine it is."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "cpu_features": [name for name in TELLING_FEATURES if name in flags],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": _gpu(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def arguments(description: str | None, rounds: int) -> argparse.Namespace:
    """Read the options that all benchmarks take: `json`, `save` and `rounds`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/<name>.json")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often everything is measured (%(default)s)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that `finally` ends the servers that were started.
    return options


def progress(text: str) -> None:
    """Tell the person who waits how far it is, beside the result."""
    print(text, file=sys.stderr, flush=True)


def finish(name: str, result: dict[str, Any], table: Sequence[tuple[str, str, str]], options: Any) -> None:
    """Print `result` as JSON, or `table` (what, measured, goal); write the JSON where `--save` asks for it."""
    text = json.dumps(result, indent=2, default=asdict)
    if options.json:
        print(text)
    else:
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        for row in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print(f"other programs took {result['other_programs_percent']} % of the processors meanwhile")
        print(f"machine: {json.dumps(result['machine'])}")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0))


def _own_seconds() -> float:
    """Return the processor time of this process, of its descendants, and of the children that have ended."""
    this, ended = psutil.Process(), os.times()
    seconds = ended.children_user + ended.children_system
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds += float(times.user + times.system)
    return seconds


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
