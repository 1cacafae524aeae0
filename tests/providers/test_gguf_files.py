"""Where GGUF files are found: our folders, and the stores of other programs."""

from __future__ import annotations

import json
from pathlib import Path

from providers.gguf_files import OLLAMA_MODEL, gguf_files


def put(path: Path, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + b"\0" * (size - 4))
    return path


def found(home: Path, *folders: Path) -> dict[str, tuple[str, int]]:
    files = gguf_files(home / "bundled", home / "models", folders, home, home / "cache")
    return {name: (file.source, file.size_bytes) for name, file in files.items()}


def ollama_model(home: Path, name: str, digest: str) -> None:
    manifest = home / ".ollama" / "models" / "manifests" / "registry.ollama.ai" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [{"mediaType": "application/vnd.ollama.image.params", "digest": "sha256:0"}]
    manifest.write_text(json.dumps({"layers": [*layers, {"mediaType": OLLAMA_MODEL, "digest": digest}]}))


def test_files_are_named_by_their_place(tmp_path: Path) -> None:
    put(tmp_path / "bundled" / "starter" / "q8.gguf")
    put(tmp_path / "bundled" / "small" / "small-q8_0.gguf")
    put(tmp_path / "models" / "own" / "own-q4.gguf")
    put(tmp_path / "models" / "mine.gguf", 20)
    put(tmp_path / "more" / "deep" / "er.gguf")
    put(tmp_path / ".lmstudio" / "models" / "org" / "m" / "f.gguf")
    put(tmp_path / "cache/models--org--name/snapshots/abc/x.gguf")

    assert found(tmp_path, tmp_path / "more") == {
        "starter/q8": ("bundled", 8),
        "small": ("bundled", 8),
        "own/own-q4": ("folder", 8),
        "mine": ("folder", 20),
        "deep/er": ("folder", 8),
        "org/m/f": ("lm_studio", 8),
        "org/name/x": ("cache", 8),
    }


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert found(tmp_path / "nowhere") == {}


def test_a_model_in_parts_is_one_and_projectors_are_none(tmp_path: Path) -> None:
    for part in (1, 2, 3):
        put(tmp_path / "models" / f"big-0000{part}-of-00003.gguf", 10 * part)
    put(tmp_path / "models" / "mmproj-big.gguf")

    assert found(tmp_path) == {"big-00001-of-00003": ("folder", 60)}


def test_the_first_place_counts_for_a_name(tmp_path: Path) -> None:
    put(tmp_path / "bundled" / "same.gguf", 10)
    put(tmp_path / "models" / "same.gguf", 20)

    assert found(tmp_path) == {"same": ("bundled", 10)}


def test_ollamas_store_is_read_by_its_manifests(tmp_path: Path) -> None:
    ollama_model(tmp_path, "library/mistral/7b", "sha256:aa")
    ollama_model(tmp_path, "someone/thing/latest", "sha256:bb")
    ollama_model(tmp_path, "library/gone/1b", "sha256:cc")
    put(tmp_path / ".ollama" / "models" / "blobs" / "sha256-aa", 30)
    put(tmp_path / ".ollama" / "models" / "blobs" / "sha256-bb", 40)

    assert found(tmp_path) == {"mistral:7b": ("ollama", 30), "someone/thing:latest": ("ollama", 40)}


def test_a_hostile_manifest_leads_nowhere(tmp_path: Path) -> None:
    put(tmp_path / "secret.gguf")
    (tmp_path / ".ollama" / "models" / "blobs").mkdir(parents=True)
    for number, digest in enumerate(("../../../secret.gguf", "/etc/passwd", "..", "", "sha256:" + "x" * 300)):
        ollama_model(tmp_path, f"library/bad/{number}", digest)
    broken = tmp_path / ".ollama" / "models" / "manifests" / "registry.ollama.ai" / "library" / "bad" / "broken"
    broken.write_text("{")

    assert found(tmp_path) == {}
