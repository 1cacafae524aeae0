"""Where transformers' models lie: bundled, in the models' folder, elsewhere on the disk, in the cache, on the Hub."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from providers.errors import ModelNotFound
from providers.local_folders import ModelFolder, is_whole, lies_in, model_folders_under, not_ours, remove_folder
from providers.sentences import say

BUNDLED = "starter"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True)
class ModelPlaces:
    """Finds models by their names. A source is "bundled", "folder", "cache" or "hub"."""

    bundled_dir: Path
    models_dir: Path

    def listed(self) -> list[tuple[str, str, Path]]:
        """List what may be models, with their names and sources; of two with one name the first is meant."""
        return [
            (BUNDLED, "bundled", self.bundled_dir / BUNDLED),
            *((name, "folder", path) for name, path in model_folders_under(self.models_dir)),
            *((name, "cache", path) for name, path in _cached_models()),
        ]

    def locate(self, name: str) -> tuple[str, Path | None]:
        """Return a model's source, and its folder unless it is still on the Hub. Raises ModelNotFound."""
        if name == BUNDLED:
            return "bundled", self.bundled_dir / BUNDLED
        if HUB_ID.fullmatch(name) and ".." not in name:
            if (folder := self.models_dir / name).is_dir():
                return "folder", folder
            if cached := _cached_snapshot(name):
                return "cache", cached
            return "hub", None
        if name.startswith(("/", "~", ".")) or Path(name).is_absolute():
            return "folder", _existing_folder(name)
        raise ModelNotFound(
            say("{name} is not the name of a model.", name=name[:100]),
            provider="transformers",
            hint=say("Use a folder, or a Hugging Face id such as HuggingFaceTB/SmolLM2-135M-Instruct."),
        )

    def source_of(self, folder: ModelFolder) -> str:
        """Return the source of a model that was loaded, whose folder may be gone since."""
        if folder.path == self.bundled_dir / BUNDLED:
            return "bundled"
        return "cache" if folder.path.parent.name == "snapshots" else "folder"

    def delete(self, name: str) -> None:
        """Delete a model's files. Raises ModelNotFound, and Rejected where they are not simpleIA's own."""
        source, path = self.locate(name)
        if source == "cache":
            _delete_from_cache(name)
        elif path and source == "folder" and lies_in(path, self.models_dir) and (path / "config.json").is_file():
            remove_folder(path)
        else:
            raise not_ours(name)


def _existing_folder(name: str) -> Path:
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        if (path := Path(name).expanduser()).is_dir():
            return path
    raise ModelNotFound(
        say("There is no folder {folder}.", folder=Path(name).name[:100]),
        provider="transformers",
        hint=say("Check the path; it must be a folder on the machine that runs simpleIA."),
    )


def _cached_models() -> list[tuple[str, Path]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    newest = [
        (repository.repo_id, max(repository.revisions, key=lambda revision: revision.last_modified))
        for repository in repositories
        if repository.repo_type == "model" and repository.revisions
    ]
    return sorted((name, revision.snapshot_path) for name, revision in newest)


def _delete_from_cache(name: str) -> None:
    from huggingface_hub import scan_cache_dir

    cache = scan_cache_dir()
    models = [repository for repository in cache.repos if repository.repo_type == "model"]
    revisions = [each.commit_hash for repo in models if repo.repo_id == name for each in repo.revisions]
    cache.delete_revisions(*revisions).execute()


def _cached_snapshot(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) and is_whole(Path(config).parent) else None
