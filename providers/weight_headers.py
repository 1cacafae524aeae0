"""What a model's files say of its weights before any is read: the headers of safetensors and GGUF files.

The formats are those of https://github.com/huggingface/safetensors#format and
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A header is read as hostile: lengths are bounded, and what
does not add up is a ValueError.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeGuard

MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 1_000_000
MAX_KEY_BYTES = 65_535
MAX_DIMENSIONS = 8
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
FLOATING = frozenset(name for name in BITS if name[0] in "FB" and name != "BOOL")
GGUF_MAGIC = b"GGUF"
GGUF_STRING, GGUF_ARRAY = 8, 9
GGUF_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}

Fact = int | float | bool | str


@dataclass(frozen=True)
class Tensor:
    """A tensor of a safetensors file: its name, its number format as the file writes it, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """What it takes in its file."""
        return -(-self.numbers * BITS[self.dtype] // 8)


def safetensors_header(files: Iterable[Path]) -> tuple[Tensor, ...]:
    """Read which tensors the files hold. Raises ValueError where a file is cut off or no safetensors file."""
    return tuple(tensor for file in files for tensor in _tensors(file))


def _tensors(file: Path) -> Iterable[Tensor]:
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        (length,) = struct.unpack("<Q", _take(stream, 8))
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"{file.name} is cut off, or no safetensors file")
        try:
            header = json.loads(_take(stream, length).decode("utf-8"))
        except RecursionError as error:
            raise ValueError(f"the header of {file.name} is nested too deeply") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise ValueError(f"the header of {file.name} is no table of tensors")
    rows = [(name, row) for name, row in header.items() if name != "__metadata__"]
    spans = []
    for name, row in rows:
        tensor, start, end = _tensor(name, row)
        if end - start != tensor.size_bytes or end > size - 8 - length:
            raise ValueError(f"the tensor {name[:60]} in {file.name} is not whole")
        spans.append((start, end, tensor))
    spans.sort(key=lambda span: span[:2])
    if any(before[1] > after[0] for before, after in zip(spans, spans[1:], strict=False)):
        raise ValueError(f"tensors in {file.name} lie on each other")
    return [tensor for _, _, tensor in spans]


def _tensor(name: str, row: object) -> tuple[Tensor, int, int]:
    if not isinstance(row, Mapping):
        raise ValueError(f"the tensor {name[:60]} is not described")
    dtype, shape, span = row.get("dtype"), row.get("shape"), row.get("data_offsets")
    if dtype not in BITS or not _are_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"the tensor {name[:60]} has no form that is known")
    if not _are_numbers(span) or len(span) != 2 or span[0] > span[1]:
        raise ValueError(f"the tensor {name[:60]} has no place in its file")
    return Tensor(name, dtype, tuple(shape)), span[0], span[1]


def _are_numbers(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def gguf_header(file: Path, until: str = "") -> dict[str, Fact]:
    """Read the facts of a GGUF file: its scalars and texts by key, without arrays such as the vocabulary.

    With `until`, no further than to the first key that begins so.

    Raises ValueError where it is cut off or no GGUF file.
    """
    with file.open("rb") as stream:
        if _take(stream, 4) != GGUF_MAGIC:
            raise ValueError(f"{file.name} is no GGUF file")
        version, tensors, count = struct.unpack("<IQQ", _take(stream, 20))
        if not 2 <= version <= 3 or tensors > MAX_TENSORS or count > MAX_TENSORS:
            raise ValueError(f"the header of {file.name} is none that is known")
        reader = _Gguf(stream, os.fstat(stream.fileno()).st_size)
        facts: dict[str, Fact] = {}
        for _ in range(count):
            key = reader.key()
            if until and key.startswith(until):
                break
            if (value := reader.value()) is not None:
                facts[key] = value
        return facts


class _Gguf:
    """Reads key and value pairs, and no further than the file goes."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size

    def key(self) -> str:
        """Return the key of the next pair."""
        return self._text(MAX_KEY_BYTES)

    def value(self) -> Fact | None:
        """Return the value of the pair; `None` for an array, which is passed over."""
        (kind,) = struct.unpack("<I", _take(self._stream, 4))
        if kind in GGUF_SCALARS:
            return self._scalar(kind)
        if kind == GGUF_STRING:
            return self._text(MAX_HEADER_BYTES)
        if kind != GGUF_ARRAY:
            raise ValueError(f"a value of kind {kind} is none that is known")
        self._skip_array()
        return None

    def _scalar(self, kind: int) -> int | float | bool:
        form = GGUF_SCALARS[kind]
        value: int | float | bool = struct.unpack(form, _take(self._stream, struct.calcsize(form)))[0]
        return value

    def _text(self, most: int) -> str:
        (length,) = struct.unpack("<Q", _take(self._stream, 8))
        if length > most:
            raise ValueError("a text of the header is too long")
        return _take(self._stream, length).decode("utf-8", errors="replace")

    def _skip_array(self) -> None:
        kind, count = struct.unpack("<IQ", _take(self._stream, 12))
        if kind in GGUF_SCALARS:
            self._skip(count * struct.calcsize(GGUF_SCALARS[kind]))
        elif kind == GGUF_STRING:
            if count * 8 > self._size:
                raise ValueError("an array of the header is longer than the file")
            for _ in range(count):
                (length,) = struct.unpack("<Q", _take(self._stream, 8))
                self._skip(length)
        else:
            raise ValueError(f"an array of kind {kind} is none that is known")

    def _skip(self, length: int) -> None:
        if self._stream.tell() + length > self._size:
            raise ValueError("an array of the header is longer than the file")
        self._stream.seek(length, os.SEEK_CUR)


def _take(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise ValueError("the header is cut off")
    return data
