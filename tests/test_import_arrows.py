"""Who may import whom: section 1 of the design, held over the whole tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import ROOT

HOUSE = (
    "app",
    "cli",
    "cli_loop",
    "cli_models",
    "components",
    "routes",
    "core",
    "providers",
    "training",
    "benchmarks",
    "tests",
    "migrations",
)
PUBLIC_PROVIDERS = ("providers.types", "providers.errors", "providers.sentences")
MAY_IMPORT = {
    "components": ("components", "core", "training", *PUBLIC_PROVIDERS),
    "routes": ("routes", "core", "training", *PUBLIC_PROVIDERS),
    "cli": ("cli_loop", "cli_models", "core", "training", *PUBLIC_PROVIDERS),
    "cli_loop": ("core", "training", *PUBLIC_PROVIDERS),
    "cli_models": ("core", *PUBLIC_PROVIDERS),
    "core": ("core", "providers"),
    "training": (
        "training",
        "core",
        *PUBLIC_PROVIDERS,
        "providers.chat_templates",
        "providers.local_folders",
        "providers.precision",
    ),
    "providers": ("providers",),
}
DOORS_ARE_IMPORTED_BY = ("app", "cli", "cli_loop", "cli_models", "tests", "benchmarks")
TABS = ("chat", "parameters", "models", "compare", "feedback", "finetune", "monitor", "account")
SEEN_BY_OTHER_TABS = {
    ("chat", "models"): {"ModelPicker"},
    ("chat", "parameters"): {"ParametersPanel", "ParametersTab", "build_panel", "in_force", "to_values"},
    ("models", "parameters"): {"ParametersTab", "for_capabilities"},
    ("finetune", "models"): {"ModelPicker", "ModelsTab", "choose_on"},
    ("finetune", "parameters"): {"ParametersTab"},
}
HEAVY = ("torch", "transformers", "bitsandbytes", "accelerate", "openai", "anthropic", "peft", "trl", "datasets")


def modules_of(part: str) -> list[Path]:
    file = ROOT / f"{part}.py"
    return [file] if file.is_file() else sorted((ROOT / part).rglob("*.py"))


def imports_of(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) for every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                whole = (ROOT / Path(*module.split("."))).with_suffix(".py").is_file()
                yield (module, "") if whole else (node.module, alias.name)


def is_within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_each_part_imports_only_what_it_may(part: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in modules_of(part)
        for module, _ in imports_of(file)
        if is_within(module, HOUSE) and not is_within(module, MAY_IMPORT[part])
    ]

    assert wrong == []


def test_nobody_imports_a_door_but_the_application() -> None:
    for part in ("core", "providers", "training"):
        for file in modules_of(part):
            assert not [module for module, _ in imports_of(file) if is_within(module, ("app", "components", "routes"))]


def test_the_core_knows_no_web_framework_and_no_vendor() -> None:
    foreign = ("gradio", "fastapi", "starlette", "torch", "transformers", "openai", "anthropic", "typer")
    for part in ("core", "providers"):
        for file in modules_of(part):
            known = {module.split(".")[0] for module, _ in imports_of(file)}
            assert not known & set(foreign[:3]), file
            assert part == "providers" or not known & set(foreign), file


def test_tabs_see_of_each_other_only_what_is_listed_here() -> None:
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for file in modules_of("components"):
        if file.stem in TABS:
            for module, name in imports_of(file):
                other = module.removeprefix("components.")
                if module.startswith("components.") and other in TABS:
                    seen[file.stem, other].add(name)

    assert dict(seen) == SEEN_BY_OTHER_TABS


def test_what_tabs_share_imports_no_tab() -> None:
    for file in modules_of("components"):
        if file.stem not in TABS:
            assert not [
                module
                for module, _ in imports_of(file)
                if is_within(module, tuple(f"components.{tab}" for tab in TABS))
            ]


def test_nothing_is_imported_relatively() -> None:
    for part in HOUSE:
        for file in modules_of(part):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                assert not (isinstance(node, ast.ImportFrom) and node.level), file


def test_names_say_what_is_inside() -> None:
    names = {file.stem for part in HOUSE for file in modules_of(part)}

    assert not names & {"utils", "helpers", "manager", "common", "misc", "base_utils"}


@pytest.mark.parametrize(
    "use", ["import app; app.create_app(app.Settings())", "import cli, providers.transformers_local"]
)
def test_nothing_heavy_is_imported_before_it_is_used(use: str) -> None:
    script = f"{use}; import sys; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert child.stdout.split() == []
