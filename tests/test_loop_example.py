"""The loop as the README shows it, on a fresh DATA_DIR: it must teach the bundled model, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import ROOT
from tests.conftest import free_port, serving_in_child, wait_for_page

pytestmark = pytest.mark.trains


@pytest.mark.timeout(420)
def test_the_loop_teaches_the_bundled_model_what_was_corrected(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving_in_child(port, DATA_DIR=str(tmp_path)) as server:
        wait_for_page(url, server)
        loop = subprocess.run(
            [sys.executable, "examples/loop.py", url],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=360,
            check=False,
        )

    assert loop.returncode == 0, loop.stdout + loop.stderr
    assert "The model learnt what it was taught." in loop.stdout
    assert "exactly as before" in loop.stdout
