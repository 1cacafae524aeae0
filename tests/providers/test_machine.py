"""What the machine has, within the limits of a container: both kinds of cgroup, written as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from providers.machine import memory, memory_of, process_bytes, processor, usable_cores

GIB = 1 << 30


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_this_machine_has_a_processor_and_memory() -> None:
    found = memory()

    assert processor().name
    assert usable_cores() >= 1
    assert 0 < found.available_bytes <= found.total_bytes <= psutil.virtual_memory().total
    assert memory_of("cpu").total_bytes == found.total_bytes
    assert memory_of("cuda:7").total_bytes == 0
    assert process_bytes() > 10_000_000
    assert process_bytes(2**22 + 1) == 0


def test_a_limit_of_cgroup_v2_counts_without_what_can_be_dropped(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/pods/one\n")
    write(tmp_path / "sys/fs/cgroup/pods/one/memory.max", f"{GIB}\n")
    write(tmp_path / "sys/fs/cgroup/pods/one/memory.current", f"{GIB // 2}\n")
    write(tmp_path / "sys/fs/cgroup/pods/one/memory.stat", f"anon 5\ninactive_file {GIB // 4}\n")

    assert memory(tmp_path).total_bytes == GIB
    assert memory(tmp_path).available_bytes == GIB - GIB // 4


def test_the_tightest_of_nested_limits_counts(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/pods/one\n")
    for folder, limit in (("pods/one", "max"), ("pods", str(GIB // 2)), ("", str(GIB))):
        write(tmp_path / "sys/fs/cgroup" / folder / "memory.max", limit)
        write(tmp_path / "sys/fs/cgroup" / folder / "memory.current", "0")
        write(tmp_path / "sys/fs/cgroup" / folder / "memory.stat", "")

    assert memory(tmp_path).total_bytes == GIB // 2


@pytest.mark.parametrize("folder", ["docker/abc", ""])  # Within a container only the top may be there.
def test_a_limit_of_cgroup_v1_counts(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/abc\n0::/\n")
    place = tmp_path / "sys/fs/cgroup/memory" / folder
    write(place / "memory.limit_in_bytes", str(GIB))
    write(place / "memory.usage_in_bytes", str(GIB // 2))
    write(place / "memory.stat", "total_inactive_file 0\n")

    assert memory(tmp_path).available_bytes == GIB // 2


def test_no_limit_and_nonsense_are_no_limit(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "4:memory:/../../etc\n")
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", str(2**63 - 4096))

    assert memory(tmp_path).total_bytes == psutil.virtual_memory().total
