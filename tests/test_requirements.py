"""What `requirements.txt` installs is enough: the tests' own packages must not hide one that is missing there."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, distribution, distributions, packages_distributions
from pathlib import Path

import pytest
from gradio_client import Client
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from core.settings import ROOT
from tests.conftest import free_port, serving_in_child, wait_for_page


@pytest.mark.trains
def test_chat_feedback_and_training_need_nothing_of_the_tests(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    hidden = modules_of(installed() - installed_by(ROOT / "requirements.txt"))
    assert "pytest" in hidden
    assert not hidden & {"torch", "gradio"}
    environment = {"PYTHONPATH": str(ROOT / "tests" / "runtime_only"), "WITHOUT_MODULES": ",".join(hidden)}
    with serving_in_child(port, DATA_DIR=str(tmp_path), **environment) as server:
        wait_for_page(url, server)
        client = Client(url, verbose=False, analytics_enabled=False)
        answer = client.predict(message="Hello", max_tokens=5, temperature=0, api_name="/chat")
        client.predict(turn_id=answer["turn_id"], correction="Good morning.", api_name="/submit_feedback")
        dataset = client.predict(api_name="/build_dataset")
        recipe = {"epochs": 1, "replay": 0}
        run = client.predict(dataset_id=dataset["dataset_id"], recipe=recipe, api_name="/start_training")
        while run["state"] in ("queued", "running"):
            time.sleep(1)
            run = client.predict(run_id=run["run_id"], api_name="/training_status")
        client.close()

    assert answer["notices"] == []
    assert run["state"] == "finished", run["error"]


def installed_by(file: Path) -> set[str]:
    """Return the distributions that a file of requirements brings, with all that they need themselves."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    waiting = [Requirement(line) for line in lines if line and not line.startswith("#")]
    extras: dict[str, set[str]] = {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in extras and requirement.extras <= extras[name]:
            continue
        extras.setdefault(name, {""}).update(requirement.extras)
        try:
            needed = [Requirement(each) for each in distribution(name).requires or ()]
        except PackageNotFoundError:
            continue
        waiting += [
            each
            for each in needed
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras[name])
        ]
    return set(extras)


def installed() -> set[str]:
    """Return all distributions of this environment."""
    return {canonicalize_name(each.metadata["Name"]) for each in distributions()}


def modules_of(names: set[str]) -> set[str]:
    """Return the top-level modules that no other distribution than these brings."""
    return {
        module
        for module, owners in packages_distributions().items()
        if all(canonicalize_name(owner) in names for owner in owners)
    }
