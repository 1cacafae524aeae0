"""Tuned models beside their bases: other answers on the same weights, and nothing of one in the other."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import torch

from core.settings import ROOT
from providers.base import Provider
from providers.catalog import create_provider
from providers.errors import ModelNotFound, Rejected
from providers.transformers_local import TransformersProvider
from providers.tuned import TunedProvider
from providers.types import ChatRequest, LoadOptions, Message, Parameters, ProviderSettings, StreamEvent, TextDelta
from tests.engine_watch import EngineWatch
from tests.tiny_models import SLOW_LAYERS, make_adapter

GREETING = (Message("user", "Hola, ¿qué tal?"),)
GREEDY = Parameters(max_tokens=40, temperature=0)
RUNS = {"tiny-1": ("tiny", 0), "tiny-2": ("tiny", 1), "other-1": ("other", 2), "slow-1": ("slow", 3)}


class House:
    """Both providers as the application makes them, over folders that a test may change."""

    def __init__(self, models: Path, runs: Path, resident: int = 2) -> None:
        self.models, self.runs = models, runs
        self._settings = ProviderSettings(
            bundled_dir=ROOT / "models",
            models_dir=models,
            runs_dir=runs,
            load_options=LoadOptions(device="cpu"),
            resident_models=resident,
        )
        self._providers: dict[str, Provider] = {}

    def provider(self, key: str) -> Provider:
        if key not in self._providers:
            self._providers[key] = create_provider(key, self._settings, self.provider)
        return self._providers[key]

    @property
    def engine(self) -> TransformersProvider:
        engine = self.provider("transformers")
        assert isinstance(engine, TransformersProvider)
        return engine

    @property
    def tuned(self) -> TunedProvider:
        tuned = self.provider("tuned")
        assert isinstance(tuned, TunedProvider)
        return tuned

    async def ask(
        self, model: str, messages: tuple[Message, ...] = GREETING, parameters: Parameters = GREEDY
    ) -> list[StreamEvent]:
        """Return the events of an answer; a run's name is a tuned model."""
        provider = self.tuned if (self.runs / model).is_dir() else self.engine
        return [event async for event in provider.stream(ChatRequest(model, messages, parameters))]

    async def text(self, model: str, **values: float) -> str:
        events = await self.ask(model, parameters=Parameters(**{"max_tokens": 40, "temperature": 0, **values}))  # type: ignore[arg-type]
        return "".join(event.text for event in events if isinstance(event, TextDelta))

    async def aclose(self) -> None:
        for provider in self._providers.values():
            await provider.aclose()


@pytest.fixture(scope="module")
def all_runs(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of finished runs: two on `tiny`, one on `other` and one on `slow`."""
    folder = tmp_path_factory.mktemp("runs")
    for run, (base, seed) in RUNS.items():
        make_adapter(folder / run, models_dir / base, base, seed)
    return folder


@pytest.fixture
async def open_house(models_dir: Path, all_runs: Path, tmp_path: Path) -> AsyncIterator[Callable[..., House]]:
    """Open houses over copies of the models and runs that a test names; they are closed after it."""
    houses: list[House] = []

    def make(*runs: str, resident: int = 2) -> House:
        models, copies = tmp_path / "models", tmp_path / "runs"
        for base in {RUNS[run][0] for run in runs} | {"tiny"}:
            shutil.copytree(models_dir / base, models / base)
        copies.mkdir()
        for run in runs:
            shutil.copytree(all_runs / run, copies / run)
        houses.append(House(models, copies, resident))
        return houses[-1]

    yield make
    for house in houses:
        await house.aclose()


@pytest.fixture
def house(open_house: Callable[..., House]) -> House:
    """Two tuned models on `tiny` and one on `other`."""
    return open_house("tiny-1", "tiny-2", "other-1")


def card_of(house: House, run: str = "tiny-1", **changes: object) -> Path:
    """Change what a run's folder says of its tuned model."""
    card = house.runs / run / "tuned.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))
    return card


def weights_of(model: object) -> dict[int, torch.nn.Parameter]:
    module: torch.nn.Module = model._model  # type: ignore[attr-defined]
    return {parameter.data_ptr(): parameter for parameter in module.parameters()}


async def until_freed(weights: list[weakref.ref[torch.nn.Parameter]]) -> None:
    """Return once the weights are gone, without the garbage collector; the thread that answered may be still ending."""
    assert weights
    gc.disable()
    try:
        for _ in range(200):
            if not any(weight() is not None for weight in weights):
                return
            await asyncio.sleep(0.01)
    finally:
        gc.enable()
    pytest.fail("the weights stay in memory")


async def assert_refused(house: House, model: str) -> ModelNotFound:
    """Check that every way to a tuned model ends in the same kind of sentence, and that it is not listed."""
    request = ChatRequest(model, GREETING, GREEDY)
    for attempt in (
        lambda: house.tuned.find_model(model),
        lambda: house.tuned.load(model),
        lambda: house.tuned.count_tokens(GREETING, model),
        lambda: anext(house.tuned.stream(request)),
    ):
        with pytest.raises(ModelNotFound) as error:
            await attempt()
        assert str(error.value).endswith("."), error.value
        assert str(house.runs.parent) not in str(error.value), "the sentence tells where the server keeps its files"
    assert model not in [each.name for each in await house.tuned.list_models()]
    return error.value


async def test_each_tuned_model_answers_in_its_own_way(house: House) -> None:
    said = {model: await house.text(model) for model in ("tiny", "tiny-1", "tiny-2", "other", "other-1")}

    assert len(set(said.values())) == 5, said
    assert all(said.values())


async def test_the_base_says_the_same_before_while_and_after_a_tuned_model_is_in_use(house: House) -> None:
    alone = await house.ask("tiny")
    async with aclosing(
        house.tuned.stream(ChatRequest("tiny-1", GREETING, Parameters(max_tokens=500, temperature=0)))
    ) as events:
        await anext(events)
        assert await house.ask("tiny") == alone
        await anext(events)
    assert await house.ask("tiny") == alone
    await house.tuned.unload("tiny-1")
    assert await house.ask("tiny") == alone


async def test_answers_at_the_same_time_are_those_of_each_alone(house: House) -> None:
    models = ("tiny", "tiny-1", "tiny-2", "other", "other-1")
    alone = {model: await house.ask(model) for model in models}
    for _ in range(5):
        asked = models * 3
        together = await asyncio.gather(*(house.ask(model) for model in asked))

        assert together == [alone[model] for model in asked]


async def test_sampled_answers_at_the_same_time_are_those_of_each_alone(house: House) -> None:
    wanted = [(model, seed) for seed in range(4) for model in ("tiny", "tiny-1", "tiny-2")]
    alone = [await house.text(model, temperature=1.0, seed=seed) for model, seed in wanted]
    together = await asyncio.gather(*(house.text(model, temperature=1.0, seed=seed) for model, seed in wanted))

    assert together == alone
    assert len(set(alone)) == len(wanted)


async def test_first_answers_at_the_same_time_load_base_and_adapters_once(house: House) -> None:
    asked = ("tiny-1", "tiny", "tiny-2") * 4
    together = await asyncio.gather(*(house.ask(model) for model in asked))

    assert together == [await house.ask(model) for model in asked]
    assert [model.name for model in house.engine.loaded()] == ["tiny"]
    assert sorted(model.name for model in house.tuned.loaded()) == ["tiny-1", "tiny-2"]


async def test_the_weights_of_the_base_are_in_memory_once(house: House) -> None:
    for run in ("tiny-1", "tiny-2"):
        await house.tuned.load(run)
    base = house.engine._resident["tiny"]
    before = weights_of(base)
    first, second = (weights_of(adapted) for adapted in base.adapted.values())

    assert before.keys() <= first.keys()
    assert before.keys() <= second.keys()
    assert first.keys() & second.keys() == before.keys()
    assert all(first[address] is before[address] for address in before)


async def test_a_tuned_model_tells_only_its_own_memory(house: House) -> None:
    loaded = await house.tuned.load("tiny-1")
    base = await house.engine.load("tiny")
    own = weights_of(house.engine._resident["tiny"].adapted[house.runs / "tiny-1" / "adapter-1"])
    shared = weights_of(house.engine._resident["tiny"])
    sizes = [own[address].numel() * own[address].element_size() for address in own.keys() - shared.keys()]

    assert loaded.name == "tiny-1"
    assert loaded.memory_bytes == sum(sizes)
    assert 0 < loaded.memory_bytes < base.memory_bytes
    assert loaded.context_length == base.context_length == 2048


async def test_unloading_frees_the_adapter_and_keeps_the_base(house: House) -> None:
    alone = await house.ask("tiny")
    said = await house.ask("tiny-1")
    base = house.engine._resident["tiny"]
    shared = weights_of(base)
    own = [weakref.ref(each) for address, each in weights_of(*base.adapted.values()).items() if address not in shared]
    await house.tuned.unload("tiny-1")
    await until_freed(own)

    assert house.tuned.loaded() == []
    assert [model.name for model in house.engine.loaded()] == ["tiny"]
    assert await house.ask("tiny") == alone
    assert await house.ask("tiny-1") == said


async def test_unloading_one_of_two_leaves_the_other(house: House) -> None:
    said = {run: await house.ask(run) for run in ("tiny-1", "tiny-2")}
    await house.tuned.unload("tiny-1")

    assert [model.name for model in house.tuned.loaded()] == ["tiny-2"]
    assert await house.ask("tiny-2") == said["tiny-2"]
    assert await house.ask("tiny-1") == said["tiny-1"]


async def test_what_is_unloaded_while_it_answers_ends_its_answer(house: House) -> None:
    whole = await house.ask("tiny-1")
    answer = asyncio.ensure_future(house.ask("tiny-1"))
    await asyncio.sleep(0)
    await house.tuned.unload("tiny-1")
    await house.engine.unload("tiny")

    assert await answer == whole


async def test_with_the_base_go_its_adapters(open_house: Callable[..., House]) -> None:
    house = open_house("tiny-1", "tiny-2", "other-1", resident=1)
    said = await house.ask("tiny-1")
    await house.ask("tiny-2")
    base = house.engine._resident["tiny"]
    weights = [weakref.ref(each) for each in weights_of(base).values()]
    del base
    await house.ask("other-1")
    await until_freed(weights)

    assert [model.name for model in house.engine.loaded()] == ["other"]
    assert [model.name for model in house.tuned.loaded()] == ["other-1"]
    assert await house.ask("tiny-1") == said


async def test_a_base_whose_tuned_model_answers_never_leaves(open_house: Callable[..., House]) -> None:
    house = open_house("slow-1", resident=1)
    request = ChatRequest("slow-1", GREETING, Parameters(max_tokens=4000, temperature=0))
    async with aclosing(house.tuned.stream(request)) as events:
        await anext(events)
        await house.engine.load("tiny")

        assert "slow" in [model.name for model in house.engine.loaded()]
        await anext(events)


async def test_who_leaves_while_an_adapter_is_read_leaves_its_turn_to_it(house: House) -> None:
    await house.engine.load("tiny")
    leaving = asyncio.ensure_future(house.tuned.load("tiny-1"))
    while not house.engine._load_turn.locked():
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await house.engine.load("other")

    assert [model.name for model in house.tuned.loaded()] == ["tiny-1"], "two loads at once"


async def test_a_tuned_model_is_described_by_its_base_and_its_own_size(house: House) -> None:
    listed = {model.name: model for model in await house.tuned.list_models()}
    await house.ask("tiny-1")
    found = await house.tuned.find_model("tiny-1")

    assert listed.keys() == {"tiny-1", "tiny-2", "other-1"}
    assert found.source == "tuned"
    assert found.provider == "tuned"
    assert found.context_length == 2048
    assert found.size_bytes == (house.runs / "tiny-1" / "adapter-1" / "adapter_model.safetensors").stat().st_size
    assert found.loaded
    assert not listed["tiny-1"].loaded
    assert not (await house.tuned.find_model("tiny-2")).loaded


async def test_a_run_that_went_on_answers_with_what_it_learnt_since(house: House) -> None:
    before = await house.text("tiny-1")
    shutil.copytree(house.runs / "tiny-2" / "adapter-1", house.runs / "tiny-1" / "adapter-9")
    card_of(house, adapter="adapter-9")

    assert await house.text("tiny-1") == await house.text("tiny-2") != before
    await house.tuned.unload("tiny-1")
    assert [model.name for model in house.tuned.loaded()] == ["tiny-2"], "the adapter before stays in memory"


async def test_a_run_that_was_deleted_can_still_be_freed(house: House) -> None:
    await house.tuned.load("tiny-1")
    shutil.rmtree(house.runs / "tiny-1")
    await house.tuned.unload("tiny-1")
    await house.tuned.unload("never-there")

    assert house.tuned.loaded() == []


@pytest.mark.parametrize("weights", [b"", b"\x08\0\0\0\0\0\0\0{broken}", b"\0" * 400])
async def test_broken_weights_are_refused_and_harm_nobody(house: House, weights: bytes) -> None:
    alone, said = await house.ask("tiny"), await house.ask("tiny-2")
    (house.runs / "tiny-1" / "adapter-1" / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(ModelNotFound, match=r"The adapter in adapter-1 cannot be loaded: .+\. Check that its files"):
        await house.ask("tiny-1")

    assert [model.name for model in house.tuned.loaded()] == ["tiny-2"]
    assert await house.ask("tiny") == alone
    assert await house.ask("tiny-2") == said


async def test_an_adapter_for_another_architecture_is_refused(house: House, models_dir: Path) -> None:
    shutil.copytree(models_dir / "plain", house.models / "plain")
    card_of(house, base="plain")
    with pytest.raises(ModelNotFound, match="The adapter in adapter-1 cannot be loaded"):
        await house.ask("tiny-1")


async def test_a_configuration_that_is_no_json_is_refused(house: House) -> None:
    (house.runs / "tiny-1" / "adapter-1" / "adapter_config.json").write_text("{")
    with pytest.raises(ModelNotFound, match="The adapter in adapter-1 cannot be loaded") as error:
        await house.ask("tiny-1")

    assert str(house.runs.parent) not in str(error.value)


@pytest.mark.parametrize(
    "missing", ["adapter-1", "adapter-1/adapter_config.json", "adapter-1/adapter_model.safetensors", "tuned.json"]
)
async def test_a_run_that_lacks_a_file_has_no_tuned_model(house: House, missing: str) -> None:
    path = house.runs / "tiny-1" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    assert "There is no tuned model tiny-1." in str(await assert_refused(house, "tiny-1"))


async def test_pickled_weights_are_never_read(house: House) -> None:
    adapter = house.runs / "tiny-1" / "adapter-1"
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({}, adapter / "adapter_model.bin")

    assert "There is no tuned model tiny-1." in str(await assert_refused(house, "tiny-1"))


@pytest.mark.parametrize(
    "adapter", ["../../x", "../x", "../tiny-2/adapter-1", "..", ".", "", "/x", "adapter-1/", 5, None]
)
async def test_an_adapter_outside_its_run_is_refused(house: House, adapter: object) -> None:
    for outside in (house.runs.parent / "x", house.runs / "x", house.runs):
        shutil.copytree(house.runs / "tiny-2" / "adapter-1", outside, dirs_exist_ok=True)
    shutil.copytree(house.runs / "tiny-2" / "adapter-1", house.runs / "tiny-1", dirs_exist_ok=True)
    card_of(house, adapter=adapter)

    assert "There is no tuned model tiny-1." in str(await assert_refused(house, "tiny-1"))


@pytest.mark.parametrize("card", ["", "{", "[]", "null", "{}", '{"base": "tiny"}', '{"adapter": "adapter-1"}', "\xff"])
async def test_a_card_that_cannot_be_read_is_refused(house: House, card: str) -> None:
    (house.runs / "tiny-1" / "tuned.json").write_bytes(card.encode("latin-1"))

    await assert_refused(house, "tiny-1")
    assert len(await house.tuned.list_models()) == 2


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "",
        "../runs/tiny-1",
        "tiny-1/",
        "./tiny-1",
        "tiny-1/../tiny-1",
        "/tiny-1",
        "tiny-1/adapter-1",
        "a\0b",
        "x" * 300,
    ],
)
async def test_a_name_that_is_no_runs_is_refused(house: House, name: str) -> None:
    for outside in (house.runs, house.runs.parent):  # As if somebody had left a tuned model there.
        shutil.copytree(house.runs / "tiny-1", outside, dirs_exist_ok=True)

    assert "There is no tuned model" in str(await assert_refused(house, name))


async def test_a_run_whose_base_is_gone_is_not_listed(house: House) -> None:
    shutil.rmtree(house.models / "tiny")
    with pytest.raises(ModelNotFound, match=r"The base of tiny-1 is not on this machine: tiny\. Put its folder back"):
        await house.tuned.find_model("tiny-1")

    assert [model.name for model in await house.tuned.list_models()] == ["other-1"]


async def test_a_tuned_model_is_no_base_for_training(house: House) -> None:
    with pytest.raises(Rejected, match=r"tuned/tiny-1 is a tuned model\. Fine-tune its base, tiny"):
        await house.tuned.training_folder("tiny-1")


async def test_closing_a_tuned_answer_ends_the_engine_within_a_token(
    open_house: Callable[..., House], engine: EngineWatch
) -> None:
    house = open_house("slow-1")
    events = house.tuned.stream(ChatRequest("slow-1", GREETING, Parameters(max_tokens=4000, temperature=0)))
    while not isinstance(await anext(events), TextDelta):
        pass
    await events.aclose()

    assert engine.layers_until_quiet() <= SLOW_LAYERS


async def test_cancelling_a_tuned_answer_in_its_prompt_ends_the_engine_before_the_next_layer(
    open_house: Callable[..., House], engine: EngineWatch
) -> None:
    house = open_house("slow-1")
    await house.tuned.load("slow-1")
    loading = engine.layers
    long_prompt = (Message("user", "x" * 10_000),)
    answer = asyncio.ensure_future(house.ask("slow-1", long_prompt, Parameters(max_tokens=1)))
    await asyncio.to_thread(engine.wait_until_busy)
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)

    assert engine.layers_until_quiet() <= 1
    assert engine.layers - loading < SLOW_LAYERS / 2
