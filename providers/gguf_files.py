"""Where GGUF files lie: in the product's folders, those that the configuration names, and other programs' stores."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from providers.gguf_metadata import GgufMetadata, read_metadata

SUFFIX = ".gguf"
MAGIC = b"GGUF"
LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")
FIRST_PART = re.compile(r"-00001-of-(\d{5})$")
DIGEST = re.compile(r"sha256:[0-9a-f]{1,64}")
OLLAMA_MODEL = "application/vnd.ollama.image.model"
OLLAMA_OF_THE_SYSTEM = Path("/usr/share/ollama/.ollama/models")
MOST_FILES = 2_000


@dataclass(frozen=True)
class GgufFile:
    """A model in one file, or in several of which this is the first; it is used where it lies."""

    name: str
    path: Path
    source: str

    @property
    def size_bytes(self) -> int:
        """The size of all its parts."""
        return sum(part.stat().st_size for part in self.parts())

    @property
    def metadata(self) -> GgufMetadata:
        """What it says of itself."""
        return read_metadata(self.path)

    def parts(self) -> Iterable[Path]:
        """Return its files, in order."""
        found = FIRST_PART.search(self.path.stem)
        if not found:
            return [self.path]
        stem = self.path.stem[: found.start()]
        return sorted(self.path.parent.glob(f"{stem}-*-of-{found[1]}{SUFFIX}"))


def gguf_files(
    bundled: Path, models_dir: Path, folders: Iterable[Path], home: Path, hub_cache: Path
) -> dict[str, GgufFile]:
    """Find the files by name; where two have one name, that of the first place counts."""
    places = [
        *_under(bundled, "bundled"),
        *_under(models_dir, "folder"),
        *(file for folder in folders for file in _under(folder, "folder")),
        *_in_hub_cache(hub_cache),
        *_under(home / ".lmstudio" / "models", "lm_studio"),
        *_under(home / ".cache" / "lm-studio" / "models", "lm_studio"),
        *_in_ollama_store(home / ".ollama" / "models"),
        *_in_ollama_store(OLLAMA_OF_THE_SYSTEM),
    ]
    files: dict[str, GgufFile] = {}
    for file in places:
        files.setdefault(file.name, file)
    return files


def is_gguf(path: Path) -> bool:
    """Say whether a file begins as GGUF files do."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _under(folder: Path, source: str) -> Iterator[GgufFile]:
    for number, path in enumerate(sorted(folder.rglob(f"*{SUFFIX}"))):
        if number == MOST_FILES:
            return
        if path.name.startswith("mmproj") or LATER_PART.search(path.stem) or not path.is_file():
            continue
        yield GgufFile(_name(path.relative_to(folder).with_suffix(""), source), path, source)


def _name(path: PurePath, source: str) -> str:
    """Return a file's name below its place; a bundled one that repeats its folder's name is called as the folder."""
    folder = path.parent
    if source == "bundled" and path.name.startswith(f"{folder.name}-") and folder.name:
        return folder.as_posix()
    return path.as_posix()


def _in_hub_cache(folder: Path) -> Iterator[GgufFile]:
    for repository in sorted(folder.glob("models--*")):
        owner_and_name = repository.name.removeprefix("models--").replace("--", "/")
        snapshots = sorted((repository / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for snapshot in snapshots[:1]:
            for file in _under(snapshot, "cache"):
                yield GgufFile(f"{owner_and_name}/{file.name}", file.path, "cache")


def _in_ollama_store(folder: Path) -> Iterator[GgufFile]:
    """Read the manifests of Ollama's store, whose layers are files named by their digest."""
    manifests = folder / "manifests"
    if not os.access(manifests, os.R_OK | os.X_OK):  # A system's own store is often its user's alone.
        return
    for manifest in sorted(manifests.glob("*/*/*/*")):
        try:
            layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
            digest = next(layer["digest"] for layer in layers if layer["mediaType"] == OLLAMA_MODEL)
            blob = folder / "blobs" / str(digest).replace(":", "-")
            is_there = DIGEST.fullmatch(str(digest)) and blob.is_file()
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            continue
        if is_there:
            _, owner, model, tag = manifest.relative_to(manifests).parts
            name = f"{model}:{tag}" if owner == "library" else f"{owner}/{model}:{tag}"
            yield GgufFile(name, blob, "ollama")
