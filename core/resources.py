"""What the machine has and what is free of it now: for a person before they load a model, and for `doctor`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from providers.machine import Gpu, Memory, Processor, gpus, memory, process_bytes, processor


@dataclass(frozen=True)
class Resources:
    """The machine at one moment: bytes throughout; `own_bytes` is what the server's process holds."""

    processor: Processor
    ram: Memory
    gpus: tuple[Gpu, ...]
    disk: Memory
    own_bytes: int


def measure(data_dir: Path) -> Resources:
    """Measure the machine; takes milliseconds, on a thread of its own where there may be a GPU to ask."""
    folder = next(path for path in (data_dir, *data_dir.absolute().parents) if path.is_dir())
    disk = shutil.disk_usage(folder)
    return Resources(processor(), memory(), tuple(gpus()), Memory(disk.total, disk.free), process_bytes())
