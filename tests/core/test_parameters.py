"""Which sampling parameters are taken, and which are refused with which sentence."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.parameters import MAX_STOP_LENGTH, MAX_STOP_SEQUENCES, PARAMETERS, ParameterSpec, parse_parameters
from providers.types import Parameters

NUMBERS = [spec for spec in PARAMETERS if spec.kind in ("int", "float")]
WHOLE = [spec for spec in NUMBERS if spec.kind == "int"]


def by_name(spec: ParameterSpec) -> str:
    return spec.name


def test_the_table_has_every_parameter_of_the_providers() -> None:
    assert {spec.name for spec in PARAMETERS} == {field.name for field in fields(Parameters)}


def test_nothing_given_is_temperature_and_max_tokens_only() -> None:
    assert parse_parameters({}) == Parameters(temperature=0.7, max_tokens=2048)
    assert parse_parameters({spec.name: None for spec in PARAMETERS}) == parse_parameters({})


@pytest.mark.parametrize("spec", NUMBERS, ids=by_name)
def test_both_bounds_are_taken(spec: ParameterSpec) -> None:
    for value in (spec.minimum, spec.maximum):
        parsed = getattr(parse_parameters({spec.name: value}), spec.name)
        assert parsed == (None if value == spec.neutral else value)


@pytest.mark.parametrize("spec", NUMBERS, ids=by_name)
@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, True, False, "1", "", [], [1], {}, b"1", 10**30, -(10**30), 10**400, 1j],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_number_in_range_is_refused(spec: ParameterSpec, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"^{spec.name} must be a "):
        parse_parameters({spec.name: value})


@pytest.mark.parametrize("spec", NUMBERS, ids=by_name)
def test_just_outside_is_refused_with_the_bounds(spec: ParameterSpec) -> None:
    for value in (spec.minimum - spec.step, spec.maximum + max(spec.step, 1)):
        with pytest.raises(InvalidRequest) as refused:
            parse_parameters({spec.name: int(value) if spec.kind == "int" else value})
        assert f"from {spec.minimum:g} to " in str(refused.value)


@pytest.mark.parametrize("spec", WHOLE, ids=by_name)
def test_whole_numbers_may_come_as_floats_but_have_no_fraction(spec: ParameterSpec) -> None:
    assert getattr(parse_parameters({spec.name: 2.0}), spec.name) == 2
    assert isinstance(getattr(parse_parameters({spec.name: 2.0}), spec.name), int)
    with pytest.raises(InvalidRequest, match="whole number"):
        parse_parameters({spec.name: 2.5})


def test_a_billion_tokens_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="max_tokens must be a whole number from 1 to 131072, not 1000000000"):
        parse_parameters({"max_tokens": 10**9})


@pytest.mark.parametrize("spec", [spec for spec in NUMBERS if spec.neutral is not None], ids=by_name)
def test_a_neutral_value_is_not_sent(spec: ParameterSpec) -> None:
    assert getattr(parse_parameters({spec.name: spec.neutral}), spec.name) is None


def test_the_whole_range_of_seeds_is_exact() -> None:
    assert parse_parameters({"seed": 0}).seed == 0
    assert parse_parameters({"seed": 2**63 - 1}).seed == 2**63 - 1
    with pytest.raises(InvalidRequest):
        parse_parameters({"seed": 2**63})


@pytest.mark.parametrize("name", ["Temperature", "max_new_tokens", "", "stop ", "__class__", "x" * 10_000])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequest, match="There is no parameter") as refused:
        parse_parameters({name: 1})
    assert all(spec.name in str(refused.value) for spec in PARAMETERS)
    assert len(str(refused.value)) < 500


def test_stop_takes_one_text_or_several_and_forgets_empty_ones() -> None:
    assert parse_parameters({"stop": "end"}).stop == ("end",)
    assert parse_parameters({"stop": ["a", "", "b"]}).stop == ("a", "b")
    assert parse_parameters({"stop": []}).stop == ()
    assert parse_parameters({"stop": ""}).stop == ()


@pytest.mark.parametrize("value", [3, 0, False, True, {}, {"a": 1}, [1], [None], [["a"]], 0.0])
def test_stop_refuses_what_is_no_list_of_texts(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="stop must be a list of texts"):
        parse_parameters({"stop": value})


def test_stop_has_bounds() -> None:
    assert len(parse_parameters({"stop": ["x" * MAX_STOP_LENGTH] * MAX_STOP_SEQUENCES}).stop) == MAX_STOP_SEQUENCES
    for value in (["x"] * (MAX_STOP_SEQUENCES + 1), ["x" * (MAX_STOP_LENGTH + 1)]):
        with pytest.raises(InvalidRequest, match="at most 16 texts of at most 200 characters"):
            parse_parameters({"stop": value})


def test_what_controls_show_first_is_what_nothing_given_means() -> None:
    shown = {spec.name: spec.shown for spec in NUMBERS}

    assert asdict(parse_parameters(shown)) == asdict(parse_parameters({}))
