"""Models of the Hugging Face Hub: looked at without being fetched, and fetched so that a cut download goes on later.

`huggingface_hub` 2.4 begins a cut file anew, so the parts are kept here: each in a file named by its content, in
`.downloads` beside the models, which are listed only when they are whole. Safetensors, configuration and tokenizer
are fetched, never pickles or code.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from providers.errors import Cancelled, ModelNotFound, ProviderError, Unreachable
from providers.local_folders import HUB_FILES, MAX_CONFIG_BYTES
from providers.sentences import Sentence, say
from providers.weight_headers import Tensor

PARTS = ".downloads"
ROOM_BYTES = 200_000_000
LOOK_SECONDS = 10.0
NOT_GIVEN = (401, 403, 404)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class HubFile:
    """A file of a model: its name, its size in bytes, what identifies its content, and its SHA-256 where known."""

    name: str
    size_bytes: int
    content_id: str
    sha256: str | None


@dataclass(frozen=True)
class HubModel:
    """A model on the Hub as it is at one revision."""

    name: str
    revision: str
    files: tuple[HubFile, ...]

    @property
    def size_bytes(self) -> int:
        """What has to be fetched."""
        return sum(file.size_bytes for file in self.files)


def look_at(name: str, token: str | None) -> HubModel:
    """List what would be fetched of a model. Raises ModelNotFound or Unreachable."""
    from huggingface_hub import HfApi

    with telling_errors(name):
        info = HfApi(token=token).model_info(name, files_metadata=True, timeout=LOOK_SECONDS)
        listed = [file for file in info.siblings or () if _is_wanted(file.rfilename)]
    whole = any(file.rfilename == "model.safetensors" for file in listed)
    files = []
    for file in listed:
        twice = file.rfilename.startswith("consolidated") or (whole and file.rfilename.startswith("model-"))
        if not twice and file.size is not None and "/" not in file.rfilename:
            sha256 = file.lfs.sha256 if file.lfs else None
            files.append(HubFile(file.rfilename, file.size, sha256 or file.blob_id, sha256))
    if not any(file.name.endswith(".safetensors") for file in files):
        raise ModelNotFound(
            say("The model {name} has no safetensors weights on the Hub.", name=name),
            provider="transformers",
            hint=say("Choose one that has them: pickles can run foreign code, and are not read here."),
        )
    return HubModel(name, info.sha, tuple(files))


def headers_of(name: str, token: str | None) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
    """Return config.json and the tensors of a model on the Hub, unfetched. Raises ModelNotFound or Unreachable."""
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    try:
        with telling_errors(name):
            response = get_session().get(
                hf_hub_url(name, "config.json"),
                headers=build_hf_headers(token=token),
                timeout=LOOK_SECONDS,
                follow_redirects=True,
            )
            hf_raise_for_status(response)
            if len(response.content) > MAX_CONFIG_BYTES:
                raise ValueError("config.json is too large")
            config = json.loads(response.content)
            found = HfApi(token=token).get_safetensors_metadata(name)
        tensors = [
            Tensor(tensor_name, tensor.dtype, tuple(tensor.shape))
            for file in found.files_metadata.values()
            for tensor_name, tensor in file.tensors.items()
        ]
        return config, tuple(tensors)
    except (NotASafetensorsRepoError, SafetensorsParsingError, ValueError, RecursionError) as error:
        raise ModelNotFound(
            say("The model {name} has no safetensors weights on the Hub.", name=name),
            provider="transformers",
            hint=say("Choose one that has them: pickles can run foreign code, and are not read here."),
        ) from error


def fetch(model: HubModel, models_dir: Path, token: str | None, report: Report, cancelled: threading.Event) -> Path:
    """Fetch a model into `models_dir` and return its folder; `report` is told (bytes done, bytes in all).

    Raises Cancelled, Unreachable, and ProviderError where the disk is full.
    """
    parts = parts_of(models_dir, model.name)
    try:
        parts.mkdir(parents=True, exist_ok=True)
        _check_room(model, parts)
        done = 0
        for file in model.files:
            _fetch_file(model, file, parts, token, partial(_tell, report, done, model.size_bytes), cancelled)
            done += file.size_bytes
        return _put_in_place(model, parts, models_dir / model.name)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise disk_full(model.name) from error
        raise _cut(model.name) from error


def _tell(report: Report, before: int, total: int, size: int) -> None:
    report(before + size, total)


def parts_of(models_dir: Path, name: str) -> Path:
    """Return where the parts of a download lie."""
    return models_dir / PARTS / name.replace("/", "--")


def disk_full(name: str, needed: str = "", free: str = "") -> ProviderError:
    """Return the error for a model that does not fit onto the disk."""
    message: Sentence = say("The disk is full: {name} was not downloaded.", name=name)
    if needed:
        message = say("{name} needs {needed} on the disk, and {free} are free.", name=name, needed=needed, free=free)
    return ProviderError(
        message, provider="transformers", hint=say("Delete a model in the Models tab, or make room in another way.")
    )


def _check_room(model: HubModel, parts: Path) -> None:
    there = sum(min(_size(parts / file.content_id), file.size_bytes) for file in model.files)
    needed, free = model.size_bytes - there, shutil.disk_usage(parts).free
    if needed + ROOM_BYTES > free:
        raise disk_full(model.name, f"{needed / 1e9:.1f} GB", f"{free / 1e9:.1f} GB")


def _fetch_file(
    model: HubModel,
    file: HubFile,
    parts: Path,
    token: str | None,
    tell: Callable[[int], None],
    cancelled: threading.Event,
) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    part = parts / file.content_id
    if (there := _size(part)) > file.size_bytes:
        part.unlink()
        there = 0
    tell(there)
    if there < file.size_bytes:
        with telling_errors(model.name), part.open("ab") as stream:
            http_get(
                hf_hub_url(model.name, file.name, revision=model.revision),
                stream,
                resume_size=there,
                headers=build_hf_headers(token=token),
                expected_size=file.size_bytes,
                tqdm_class=_progress_bar(there, tell, cancelled),
            )
    if cancelled.is_set():
        raise _cancelled()
    if file.sha256 and _sha256(part) != file.sha256:
        part.unlink()
        raise _cut(model.name)


def _progress_bar(there: int, tell: Callable[[int], None], cancelled: threading.Event) -> Any:
    """Return a class of progress bars that shows nothing, tells how far it is, and ends a cancelled download."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        done = there

        def __init__(self, *_: Any, **options: Any) -> None:
            super().__init__(disable=True, total=options.get("total"))

        def update(self, n: float | None = 1) -> None:
            if cancelled.is_set():
                raise _cancelled()
            self.done += int(n or 0)
            tell(self.done)

    return Bar


def _put_in_place(model: HubModel, parts: Path, folder: Path) -> Path:
    whole = parts / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    placed: dict[str, Path] = {}
    for file in model.files:
        if file.content_id in placed:
            shutil.copyfile(placed[file.content_id], whole / file.name)
        else:
            placed[file.content_id] = (parts / file.content_id).rename(whole / file.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    whole.rename(folder)
    shutil.rmtree(parts, ignore_errors=True)
    return folder


def _is_wanted(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in HUB_FILES)


def _size(file: Path) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_size
    return 0


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def telling_errors(name: str) -> Iterator[None]:
    """Turn what `huggingface_hub` raises into errors of `providers.errors`."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        if error.response.status_code not in NOT_GIVEN:
            raise Unreachable(
                say("The Hugging Face Hub answered with {status}.", status=error.response.status_code),
                provider="transformers",
                hint=say("Try again in a moment."),
            ) from error
        raise ModelNotFound(
            say("There is no model {name} here, and the Hugging Face Hub does not give one out.", name=name),
            provider="transformers",
            hint=say("Check the name; a gated model needs HF_TOKEN and its licence accepted on its page."),
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError, httpx2.HTTPError) as error:
        raise _unreachable(name) from error
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise _unreachable(name) from error


def _cancelled() -> Cancelled:
    return Cancelled(
        say("The download was cancelled."),
        provider="transformers",
        hint=say("Start it again to go on from where it was."),
    )


def _unreachable(name: str) -> Unreachable:
    return Unreachable(
        say("The model {name} is not on this machine, and the Hugging Face Hub cannot be reached.", name=name),
        provider="transformers",
        hint=say("Check the name, or connect to the internet once to download it."),
    )


def _cut(name: str) -> Unreachable:
    return Unreachable(
        say("The download of {name} was cut off.", name=name),
        provider="transformers",
        hint=say("Start it again to go on from where it was."),
    )
