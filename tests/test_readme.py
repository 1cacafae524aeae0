"""What the README tells people to paste works as it stands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.configuration import read_configuration, read_file
from core.provider_table import provider_table
from core.settings import ROOT

EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
ADDRESS = "http://127.0.0.1:7860"


def examples(readme: Path) -> list[str]:
    return [block for block in EXAMPLE.findall(readme.read_text(encoding="utf-8")) if f'Client("{ADDRESS}")' in block]


@pytest.mark.trains
@pytest.mark.timeout(400)  # One of them trains.
@pytest.mark.parametrize("name", ["README.md", "README.es.md"])
def test_the_api_example_runs(name: str, app_url: str, tmp_path: Path) -> None:
    blocks = examples(ROOT / name)
    if name == "README.md":
        assert blocks, "the README has no example of the API"
    for block in blocks:
        script = tmp_path / "example.py"
        script.write_text(block.replace(ADDRESS, app_url), encoding="utf-8")
        child = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, cwd=tmp_path)

        assert child.returncode == 0, child.stderr
        assert len(child.stdout) > 50


def test_the_front_matter_is_that_of_a_gradio_space() -> None:
    front = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    values = dict(line.split(":", 1) for line in front.strip().splitlines() if ":" in line)
    pinned = re.search(r"^gradio==(.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)

    assert pinned is not None
    assert values["sdk"].strip() == "gradio"
    assert values["app_file"].strip() == "app.py"
    assert json.loads(f'"{values["sdk_version"].strip()}"') == pinned[1]


def test_the_variables_in_the_example_environment_are_read() -> None:
    named = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    settings = "".join((ROOT / "core" / f"{name}.py").read_text() for name in ("settings", "configuration"))

    assert named
    assert [name for name in named if f'"{name}"' not in settings] == []


def test_the_table_of_providers_is_what_the_code_says() -> None:
    assert provider_table() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_of_models_of_ones_own_can_be_read(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    file = tmp_path / "config.json"
    file.write_text(re.findall(r"```json\n(.*?)```", readme, re.DOTALL)[1], encoding="utf-8")
    mistral, gpt = read_file(file).models

    assert mistral.model_id.endswith("Q4_K_M.gguf")
    assert mistral.model_id.startswith("llama_cpp/")
    assert gpt.model_id == "openai/gpt-4o"


def test_the_example_of_a_configuration_can_be_read(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```json\n(.*?)```", readme, re.DOTALL)
    assert example
    file = tmp_path / "models.json"
    file.write_text(example[1], encoding="utf-8")

    assert read_configuration([file], {}).pools[0].members == ("vllm/qwen3", "ollama/qwen3:8b")
