"""Load options as people and programs give them: checked, and with a sentence for what cannot be."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BeforeValidator

from core.errors import InvalidRequest
from providers.sentences import say
from providers.types import ATTENTIONS, DEVICES, PRECISIONS, QUANTIZATIONS, LoadOptions

WRITTEN = ("device", "precision", "quantization", "context_length", "attention")
CONTEXTS = (64, 10_000_000)
NUMBERED = re.compile(r"cuda:\d{1,2}", re.ASCII)


def parse_options(
    device: Any = "auto",
    precision: Any = "auto",
    quantization: Any = "auto",
    context_length: Any = None,
    attention: Any = "auto",
) -> LoadOptions:
    """Return the options. Raises InvalidRequest."""
    if not (isinstance(device, str) and NUMBERED.fullmatch(device)):
        _check("device", device, DEVICES)
    _check("precision", precision, PRECISIONS)
    _check("quantization", quantization, QUANTIZATIONS)
    _check("attention", attention, ATTENTIONS)
    if context_length in (0, ""):
        context_length = None
    least, most = CONTEXTS
    if isinstance(context_length, float) and context_length.is_integer():
        context_length = int(context_length)
    if context_length is not None and not (type(context_length) is int and least <= context_length <= most):
        raise InvalidRequest(
            say("context_length is a whole number of tokens from {least} to {most}.", least=least, most=most),
            say("Leave it out for what the model and the memory allow."),
        )
    return LoadOptions(
        device=device,
        context_length=context_length,
        precision=precision,
        quantization=quantization,
        attention=attention,
    )


def chosen(options: LoadOptions) -> dict[str, Any]:
    """Return the options that differ from the automatic ones, as `parse_options` takes them."""
    automatic, values = asdict(LoadOptions()), asdict(options)
    return {name: values[name] for name in WRITTEN if values[name] != automatic[name]}


def _written(value: Any) -> LoadOptions:
    try:
        return parse_options(**value)
    except (InvalidRequest, TypeError) as error:
        raise ValueError(str(error)) from error


WrittenOptions = Annotated[LoadOptions, BeforeValidator(_written)]


def _check(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidRequest(
            say("{name} is not one that there is.", name=name),
            say("Choose one of {choices}.", choices=", ".join(choices)),
        )
