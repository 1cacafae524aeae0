"""The sampling does what its formulas say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from providers.sampling import GumbelNoise, PresenceAndFrequencyPenalty, logits_processors
from providers.types import Parameters

CPU = torch.device("cpu")
LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5]])
NO_TOKENS = torch.zeros((1, 0), dtype=torch.long)
DRAWS = 20_000


def shares(parameters: Parameters, draws: int = DRAWS, logits: torch.Tensor = LOGITS) -> list[float]:
    """Return how often each token is drawn."""
    processors = logits_processors(parameters, 0, CPU)
    counts = Counter(int(processors(NO_TOKENS, logits.clone()).argmax()) for _ in range(draws))
    return [counts[token] / draws for token in range(logits.shape[1])]


def support(parameters: Parameters) -> set[int]:
    return {token for token, share in enumerate(shares(parameters, 400)) if share}


def test_gumbel_noise_draws_from_the_softmax() -> None:
    expected = torch.softmax(LOGITS[0], dim=-1).tolist()

    assert shares(Parameters(seed=1)) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_temperature_divides_the_logits(temperature: float) -> None:
    expected = torch.softmax(LOGITS[0] / temperature, dim=-1).tolist()

    assert shares(Parameters(seed=1, temperature=temperature)) == pytest.approx(expected, abs=0.012)


def test_draws_of_half_precision_logits_are_not_coarse() -> None:
    logits = torch.zeros((1, 8), dtype=torch.bfloat16)

    assert shares(Parameters(seed=1), logits=logits) == pytest.approx([1 / 8] * 8, abs=0.012)


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])

    assert shares(Parameters(seed=3), 2000, logits)[1] == 0
    assert not GumbelNoise(0, CPU)(NO_TOKENS, logits).isnan().any()


def test_temperature_0_is_greedy_and_draws_nothing() -> None:
    processors = logits_processors(Parameters(temperature=0, seed=1, top_k=3, top_p=0.5), 0, CPU)

    assert len(processors) == 0


def test_nothing_given_shapes_nothing_but_draws() -> None:
    assert [type(processor) for processor in logits_processors(Parameters(), 0, CPU)] == [GumbelNoise]


@pytest.mark.parametrize(
    ("parameters", "tokens"),
    [
        (Parameters(), {0, 1, 2, 3, 4}),
        (Parameters(top_k=2), {0, 1}),
        (Parameters(top_k=1), {0}),
        (Parameters(top_p=0.75), {0, 1}),
        (Parameters(top_p=0.01), {0}),
        (Parameters(min_p=0.2), {0, 1, 4}),
        (Parameters(top_k=3, temperature=2.0), {0, 1, 4}),
        (Parameters(min_p=1.0), {0}),
    ],
    ids=str,
)
def test_what_is_cut_is_never_drawn(parameters: Parameters, tokens: set[int]) -> None:
    assert support(replace(parameters, seed=5)) == tokens


def test_the_same_seed_draws_the_same() -> None:
    def draw(seed: int | None) -> list[int]:
        processors = logits_processors(Parameters(seed=seed), 0, CPU)
        return [int(processors(NO_TOKENS, LOGITS.clone()).argmax()) for _ in range(50)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    assert draw(None) != draw(None)
    assert draw(2**63 - 1) == draw(2**63 - 1)


def test_other_randomness_in_the_process_changes_nothing() -> None:
    def draw(others: int) -> list[int]:
        processors = logits_processors(Parameters(seed=1), 0, CPU)
        torch.manual_seed(others)
        return [int(processors(NO_TOKENS, LOGITS.clone() + 0 * torch.rand(1)).argmax()) for _ in range(20)]

    before = torch.random.get_rng_state()
    assert draw(1) == draw(2)
    torch.random.set_rng_state(before)


def test_presence_and_frequency_lower_what_the_answer_holds() -> None:
    penalty = PresenceAndFrequencyPenalty(presence=0.5, frequency=0.25, prompt_length=2)
    tokens = torch.tensor([[3, 3, 0, 1, 1, 1]])

    assert penalty(tokens, LOGITS)[0].tolist() == pytest.approx([2 - 0.75, 1 - 0.5 - 0.75, 0, -1, 0.5])


def test_penalties_do_not_count_the_prompt() -> None:
    penalty = PresenceAndFrequencyPenalty(presence=1, frequency=1, prompt_length=3)

    assert torch.equal(penalty(torch.tensor([[0, 1, 2]]), LOGITS), LOGITS)


@pytest.mark.parametrize(
    "parameters",
    [Parameters(presence_penalty=2.0), Parameters(frequency_penalty=2.0), Parameters(repetition_penalty=2.0)],
)
def test_each_penalty_alone_changes_the_next_token(parameters: Parameters) -> None:
    processors = logits_processors(replace(parameters, temperature=0.0), 0, CPU)

    assert int(processors(torch.tensor([[0]]), torch.tensor([[2.0, 1.5, 0.0]])).argmax()) == 1


def test_negative_penalties_raise() -> None:
    processors = logits_processors(Parameters(presence_penalty=-2.0, temperature=0.0), 0, CPU)

    assert int(processors(torch.tensor([[1]]), LOGITS.clone()).argmax()) == 1
