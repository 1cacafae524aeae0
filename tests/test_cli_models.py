"""The machine and its models in a terminal, as a person runs the commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
import cli_models
from providers.errors import ProviderError, Rejected
from tests.tiny_models import make_chat_model


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = tmp_path / "data"
    make_chat_model(data / "models" / "tiny")
    monkeypatch.setenv("DATA_DIR", str(data))
    monkeypatch.setenv("DEVICE", "cpu")
    return data


def run(*arguments: str) -> str:
    """Return what a command prints."""
    outcome = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    return outcome.output


def test_models_are_listed_estimated_made_default_and_deleted(data_dir: Path) -> None:
    assert re.search(r"transformers/tiny\tfolder\t0\.\d MB\t2048", run("models", "list"))
    estimate = run("models", "estimate", "tiny", "--precision", "bf16", "--context-length", "512")
    assert re.search(r"^fits: [\d.]+ MB of [\d.]+ GB free on cpu \(bfloat16, none, 512 tokens\)", estimate)
    assert "Precision bf16, as chosen." in estimate
    assert run("models", "default", "tiny") == "transformers/tiny\n"
    assert json.loads((data_dir / "config.json").read_text())["selected_model"] == "transformers/tiny"
    with pytest.raises(Rejected, match="default model"):
        run("models", "delete", "tiny", "--yes")
    run("models", "default", "starter")
    run("models", "delete", "tiny", "--yes")
    assert not (data_dir / "models" / "tiny").exists()


def test_the_catalogue_is_printed(data_dir: Path) -> None:
    assert "ollama/mistral:7b\t7.25 B\tapache-2.0" in run("models", "catalogue")


def test_what_is_not_there_says_so(data_dir: Path) -> None:
    with pytest.raises(ProviderError, match="There is no folder"):
        run("models", "estimate", "/nowhere")


def test_the_doctor_looks_at_everything(data_dir: Path) -> None:
    told = run("doctor")

    for word in ("Python 3", "cores", "memory: ", "disk of ", "torch ", "default model: transformers/starter"):
        assert word in told
    assert re.search(r"\d+ models can be asked", told)


def test_the_doctor_says_what_is_missing_and_what_to_do(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("# one\nno-such-package==1.2\ngradio==0.1\n")
    monkeypatch.setattr(cli_models, "ROOT", tmp_path)
    monkeypatch.setenv("DEFAULT_MODEL", "/nowhere")
    outcome = CliRunner().invoke(cli.app, ["doctor"])

    assert outcome.exit_code == 1
    assert "! no-such-package 1.2 is needed, none is there: pip install no-such-package==1.2" in outcome.output
    assert "! gradio 0.1 is needed" in outcome.output
    assert "! The default model cannot be used. There is no folder nowhere." in outcome.output
    assert "Something is missing, see above." in outcome.output
