"""The sampling parameters in one table: the page's controls, the API's bounds and the CLI's options come from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from core.errors import InvalidRequest
from providers.sentences import say
from providers.types import Parameters

MAX_STOP_SEQUENCES = 16
MAX_STOP_LENGTH = 200
MAX_SCHEMA_LENGTH = 20_000


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter: its bounds, both inclusive, and the value at which it changes nothing (`neutral`)."""

    name: str
    kind: Literal["int", "float", "texts", "schema"]
    minimum: float = 0
    maximum: float = 0
    step: float = 1
    default: float | None = None
    neutral: float | None = None
    prominent: bool = False

    @property
    def shown(self) -> float | None:
        """The value that a control shows at first; `None` is an empty field."""
        return self.neutral if self.default is None else self.default


PARAMETERS = (
    ParameterSpec("temperature", "float", 0, 2, 0.05, default=0.7, prominent=True),
    ParameterSpec("max_tokens", "int", 1, 131_072, 1, default=2048, prominent=True),
    ParameterSpec("top_p", "float", 0.01, 1, 0.01, neutral=1, prominent=True),
    ParameterSpec("top_k", "int", 0, 1000, 1, neutral=0),
    ParameterSpec("min_p", "float", 0, 1, 0.01, neutral=0),
    ParameterSpec("repetition_penalty", "float", 0.5, 2, 0.01, neutral=1),
    ParameterSpec("presence_penalty", "float", -2, 2, 0.05, neutral=0),
    ParameterSpec("frequency_penalty", "float", -2, 2, 0.05, neutral=0),
    ParameterSpec("seed", "int", 0, 2**63 - 1, 1),
    ParameterSpec("stop", "texts"),
    ParameterSpec("logprobs", "int", 0, 20, 1),
    ParameterSpec("json_schema", "schema"),
)

SPECS: Mapping[str, ParameterSpec] = MappingProxyType({spec.name: spec for spec in PARAMETERS})


def parse_parameters(values: Mapping[str, Any]) -> Parameters:
    """Check values from a door and add the defaults; `None` means not given, a neutral value is not sent.

    Raises InvalidRequest for an unknown name, a wrong type, NaN, or a value out of range.
    """
    for name in values:
        if name not in SPECS:
            raise InvalidRequest(
                say("There is no parameter {name}.", name=str(name)[:50]),
                say("The parameters are: {names}.", names=", ".join(SPECS)),
            )
    checked = {spec.name: _parse(spec, values.get(spec.name)) for spec in PARAMETERS}
    return Parameters(**checked)


def _parse(spec: ParameterSpec, value: Any) -> Any:
    if spec.kind == "texts":
        return _texts(value)
    return _schema(value) if spec.kind == "schema" else parse_number(spec, value)


def parse_number(spec: ParameterSpec, value: Any) -> float | int | None:
    """Check one number; `None` gives the default, a neutral value gives `None`. Raises InvalidRequest."""
    if value is None:
        value = spec.default
    if value is None or value == spec.neutral and not isinstance(value, bool):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise _refused(spec, value)
    if not spec.minimum <= value <= spec.maximum or (spec.kind == "int" and value != int(value)):
        raise _refused(spec, value)
    return int(value) if spec.kind == "int" else float(value)


def _refused(spec: ParameterSpec, value: Any) -> InvalidRequest:
    shown = str(value)[:40] if isinstance(value, int | float) else type(value).__name__
    bounds = {"name": spec.name, "minimum": spec.minimum, "maximum": spec.maximum, "value": shown}
    if spec.kind == "int":
        return InvalidRequest(
            say("{name} must be a whole number from {minimum:g} to {maximum}, not {value}.", **bounds)
        )
    return InvalidRequest(say("{name} must be a number from {minimum:g} to {maximum:g}, not {value}.", **bounds))


def _schema(value: Any) -> dict[str, Any] | None:
    """Check a JSON schema, given as an object or as its text."""
    if value is None or value == "":
        return None
    try:
        schema = json.loads(value) if isinstance(value, str) else value
        length = len(json.dumps(schema))
    except (ValueError, TypeError, RecursionError):
        schema, length = None, 0
    if not isinstance(schema, dict):
        raise InvalidRequest(say("json_schema must be a JSON schema: an object, or its text."))
    if length > MAX_SCHEMA_LENGTH:
        raise InvalidRequest(say("json_schema has at most {length} characters.", length=MAX_SCHEMA_LENGTH))
    return schema


def _texts(value: Any) -> tuple[str, ...]:
    texts = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(say("stop must be a list of texts."))
    texts = tuple(text for text in texts if text)
    if len(texts) > MAX_STOP_SEQUENCES or any(len(text) > MAX_STOP_LENGTH for text in texts):
        raise InvalidRequest(
            say(
                "stop takes at most {count} texts of at most {length} characters.",
                count=MAX_STOP_SEQUENCES,
                length=MAX_STOP_LENGTH,
            )
        )
    return texts
