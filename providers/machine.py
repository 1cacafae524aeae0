"""What this machine has: processor, memory and GPUs, and how much of them is free now. torch is asked, never imported.

Limits of a container count: cgroup v1 (`memory.limit_in_bytes`) and v2 (`memory.max`), as the kernel's
Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst describe them.
"""

from __future__ import annotations

import contextlib
import csv
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "sve")
NO_LIMIT = 1 << 60  # cgroup v1 writes nearly 2**63 where there is none.
SMI_SECONDS = 5.0
SMI_QUERY = ("nvidia-smi", "--query-gpu=index,name,memory.total,memory.free", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Processor:
    """The processor: cores that this process may use, and the instructions that matter to a model."""

    name: str
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes of memory: all there is for this process, and what it could still take."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class Gpu:
    """A GPU under torch's name; what other programs hold is not free."""

    device: str
    name: str
    memory: Memory


def processor(root: Path = Path("/")) -> Processor:
    """Describe the processor."""
    text = ""
    with contextlib.suppress(OSError):
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    name = fields.get("model name") or platform.processor() or platform.machine()
    return Processor(name, usable_cores(), tuple(feature for feature in CPU_FEATURES if feature in flags))


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(root: Path = Path("/")) -> Memory:
    """Measure the memory, within the limits of the container that this process is in, if any."""
    system = psutil.virtual_memory()
    total, available = int(system.total), int(system.available)
    for limit, used in _limits(root):
        total, available = min(total, limit), min(available, max(0, limit - used))
    return Memory(total, available)


def process_bytes(pid: int | None = None) -> int:
    """Return the memory that a process holds (RSS), this one by default; 0 for one that has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def gpus() -> list[Gpu]:
    """Describe the GPUs: by torch where it is in use, else by NVIDIA's own tool where that is there."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "cuda") or not hasattr(torch, "backends"):  # Not in use, or still being imported.
        return _gpus_of_smi()
    if torch.cuda.is_available():
        return [_torch_gpu(torch.cuda, number) for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        system, most = memory(), int(torch.mps.recommended_max_memory())
        free = min(system.available_bytes, max(0, most - int(torch.mps.driver_allocated_memory())))
        return [Gpu("mps", "Apple GPU", Memory(most, free))]
    return []


def memory_of(device: str) -> Memory:
    """Measure the memory of a device by torch's name, such as `cpu` or `cuda:0`; `auto` spreads over all GPUs."""
    if device == "cpu":
        return memory()
    found = [gpu.memory for gpu in gpus() if device in ("spread", gpu.device) or gpu.device.split(":")[0] == device]
    if device != "spread":
        found = found[:1]
    return Memory(sum(each.total_bytes for each in found), sum(each.available_bytes for each in found))


def _torch_gpu(cuda: Any, number: int) -> Gpu:
    free, total = cuda.mem_get_info(number)
    kept = cuda.memory_reserved(number) - cuda.memory_allocated(number)  # torch's own cache, which it gives again.
    return Gpu(f"cuda:{number}", cuda.get_device_name(number), Memory(int(total), int(free + kept)))


def _gpus_of_smi() -> list[Gpu]:
    try:
        answer = subprocess.run(SMI_QUERY, capture_output=True, text=True, timeout=SMI_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for row in csv.reader(answer.splitlines(), skipinitialspace=True):
        with contextlib.suppress(ValueError):
            number, name, total, free = row
            found.append(Gpu(f"cuda:{number}", name, Memory(int(total) << 20, int(free) << 20)))
    return found


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, used) of each cgroup around this process that limits memory; what can be dropped is not used."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds == "":
                for folder in _upwards(root / "sys/fs/cgroup", path):
                    yield from _limit(folder, "memory.max", "memory.current", "inactive_file")
            elif "memory" in kinds.split(","):
                for folder in _upwards(root / "sys/fs/cgroup/memory", path):
                    yield from _limit(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a cgroup and those above it; within a container only the top may be there."""
    folder = top / path.strip("/")
    if ".." in folder.parts:
        folder = top
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _limit(folder: Path, limit_file: str, used_file: str, droppable: str) -> Iterator[tuple[int, int]]:
    with contextlib.suppress(OSError, ValueError):
        limit = int((folder / limit_file).read_text(encoding="ascii"))  # "max" where v2 has none.
        if limit >= NO_LIMIT:
            return
        used = int((folder / used_file).read_text(encoding="ascii"))
        rows = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        yield limit, used - sum(int(row[1]) for row in rows if row[0] == droppable)
