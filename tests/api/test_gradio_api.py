"""The generated API, by gradio_client and by plain HTTP, against the running application."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from components.texts import in_language
from core.parameters import SPECS
from providers.catalog import PROVIDERS
from providers.sentences import say
from providers.types import EngineLimits
from tests.api.raw_calls import INSIDES, call, events_of, refusal, result, start
from tests.engine_watch import EngineWatch
from tests.tiny_models import SLOW_LAYERS

TINY = {"model": "transformers/tiny", "temperature": 0.0, "max_tokens": 20}
SLOW = {"model": "transformers/slow", "temperature": 0.0, "max_tokens": 4000}
LONG_PROMPT = "x" * 10_000
ENDPOINTS = {
    "/chat": {"message", "history", "model", "system", "conversation_id", "images", *SPECS},
    "/predict": {"prompt", "model", "max_length", "num_return_sequences", *SPECS},
    "/list_providers": set(),
    "/set_key": {"provider", "key"},
    "/forget_key": {"provider"},
    "/embed": {"texts", "model"},
    "/list_models": set(),
    "/current_model": set(),
    "/set_model": {"model"},
    "/count_tokens": {"text", "model"},
    "/estimate_memory": {"model", "device", "precision", "quantization", "context_length"},
    "/load_model": {"model", "device", "precision", "quantization", "context_length", "attention", "force"},
    "/unload_model": {"model"},
    "/cancel_model": {"model"},
    "/download_model": {"model"},
    "/delete_model": {"model"},
    "/make_default": {"model"},
    "/loaded_models": set(),
    "/list_catalogue": set(),
    "/search_hub": {"words"},
    "/resources": set(),
    "/submit_feedback": {"turn_id", "rating", "comment", "correction", "tags"},
    "/list_feedback": {"kind", "model", "words", "limit", "offset"},
    "/export_feedback": {"kind", "model", "words"},
    "/build_dataset": {"name", "kind", "model", "words", "include_thumbs_up"},
    "/import_dataset": {"file", "content", "name"},
    "/preview_dataset": {"dataset_id", "model", "max_length", "rows"},
    "/list_datasets": set(),
    "/start_training": {"dataset_id", "base_model", "method", "recipe", "name"},
    "/training_status": {"run_id"},
    "/stop_training": {"run_id"},
    "/resume_training": {"run_id"},
    "/list_runs": set(),
}
DONE = {
    "type": str,
    "text": str,
    "reasoning": str,
    "model": str,
    "turn_id": str,
    "conversation_id": str,
    "finish_reason": str,
    "usage": dict,
    "timings": dict,
    "notices": list,
    "logprobs": list,
    "cost_usd": type(None),
    "cached": bool,
}
MODEL_ROW = {
    "id",
    "provider",
    "local",
    "source",
    "loaded",
    "context_length",
    "size_bytes",
    "memory_bytes",
    "batched",
    "price",
    "capabilities",
}


def test_exactly_the_documented_endpoints_are_public(http: httpx.Client) -> None:
    info = http.get("/gradio_api/info").json()

    assert set(info["named_endpoints"]) == set(ENDPOINTS)
    assert info["unnamed_endpoints"] == {}
    for name, endpoint in info["named_endpoints"].items():
        assert {parameter["parameter_name"] for parameter in endpoint["parameters"]} == ENDPOINTS[name]
        assert all(parameter["type"] for parameter in endpoint["parameters"]), name
        assert len(endpoint["description"]) > 20, name
        assert endpoint["returns"][0]["type"], f"the documentation of {name} does not say what it gives"


def test_the_description_of_chat_tells_its_events_and_its_types(http: httpx.Client) -> None:
    chat = http.get("/gradio_api/info").json()["named_endpoints"]["/chat"]
    types = {parameter["parameter_name"]: json.dumps(parameter["type"]) for parameter in chat["parameters"]}

    assert all(word in chat["description"] for word in ("delta", "reasoning", "notice", "done", "history", "seed"))
    assert "integer" in types["max_tokens"]
    assert "number" in types["temperature"]
    assert '"enum": ["user", "assistant"]' in types["history"]
    assert set(chat["returns"][0]["type"]["properties"]) == set(DONE)


def test_the_documentation_describes_every_endpoint(http: httpx.Client) -> None:
    paths = http.get("/gradio_api/openapi.json").json()["paths"]

    assert {path.rsplit("/", 1)[1] for path in paths if "/call/v2/" in path} >= {name[1:] for name in ENDPOINTS}


def test_chat_streams_deltas_and_ends_with_done(client: Client) -> None:
    *deltas, done = client.submit(message="Hello", **TINY, api_name="/chat")

    assert len(deltas) > 2
    assert all(set(delta) == {"type", "text"} and delta["type"] == "delta" for delta in deltas)
    assert done["type"] == "done"
    assert {name: type(value) for name, value in done.items()} == DONE
    assert done["text"] == "".join(delta["text"] for delta in deltas)
    assert done["model"] == "transformers/tiny"
    assert done["finish_reason"] in ("stop", "length")
    assert done["usage"]["completion_tokens"] == 20
    assert set(done["usage"]) == {"prompt_tokens", "completion_tokens"}
    assert set(done["timings"]) == {"first_token_ms", "tokens_per_second", "total_ms"}
    assert done["notices"] == []
    assert done["cached"] is False


def test_predict_of_the_client_returns_done(client: Client) -> None:
    done = client.predict(message="Hello", **TINY, api_name="/chat")

    assert done["type"] == "done"
    assert done["text"]


def test_the_default_model_answers(client: Client) -> None:
    done = client.predict(message="Hello", temperature=0, max_tokens=20, api_name="/chat")

    assert done["model"] == "transformers/starter"
    assert done["text"]


def test_curl_gets_the_same(http: httpx.Client) -> None:
    events = call(http, "chat", {"message": "Hello", **TINY})
    deltas = [event.data[0]["text"] for event in events if event.name == "generating" and len(event.data[0]) == 2]

    assert events[-1].name == "complete"
    assert events[-1].data[0]["text"] == "".join(deltas)


def test_the_same_seed_gives_the_same_text_to_everybody(app_url: str, connect: Callable[..., Client]) -> None:
    question = {"message": "Hello", **TINY, "temperature": 1.2, "seed": 5, "api_name": "/chat"}
    one, two = (connect(app_url).predict(**question)["text"] for _ in range(2))
    other = connect(app_url).predict(**(question | {"seed": 6}))["text"]

    assert one == two != other


def test_history_and_system_are_read_and_the_conversation_keeps_its_id(client: Client) -> None:
    history = [{"role": "user", "content": "I am Ann."}, {"role": "assistant", "content": "Hello Ann."}]
    bare = client.predict(message="Hello", **TINY, api_name="/chat")
    full = client.predict(
        message="Hello", history=history, system="Be kind.", conversation_id="c1", **TINY, api_name="/chat"
    )

    assert full["usage"]["prompt_tokens"] > bare["usage"]["prompt_tokens"] + 20
    assert full["conversation_id"] == "c1"
    assert full["turn_id"] != bare["turn_id"]


def test_a_history_that_is_too_long_is_shortened_with_a_notice(client: Client) -> None:
    history = [
        message
        for _ in range(60)
        for message in ({"role": "user", "content": "q" * 20}, {"role": "assistant", "content": "a" * 20})
    ]
    first, *_, done = client.submit(message="Hello", history=history, **TINY, api_name="/chat")

    assert first["type"] == "notice"
    assert done["notices"] == [first["text"]]
    assert "oldest messages were left out" in first["text"]
    assert done["usage"]["prompt_tokens"] < 2048


def test_people_chat_at_once_and_get_their_own_answers(app_url: str, connect: Callable[..., Client]) -> None:
    clients = [connect(app_url) for _ in range(4)]

    def ask(number: int) -> str:
        question = f"Question {number}"
        text: str = clients[number].predict(message=question, **TINY, seed=number, api_name="/chat")["text"]
        return text

    alone = [ask(number) for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == alone


def test_one_long_answer_leaves_room_for_others(
    http: httpx.Client, app_url: str, connect: Callable[..., Client], engine: EngineWatch
) -> None:
    job = connect(app_url).submit(message="Hello", **SLOW, api_name="/chat")
    engine.wait_until_busy(SLOW_LAYERS)
    for _ in range(3):
        assert result(http, "chat", message="Hello", **TINY)["text"]
    assert not job.done()
    job.cancel()
    engine.layers_until_quiet()


def test_predict_answers_a_prompt(client: Client) -> None:
    answer = client.predict(prompt="Hello", **TINY, api_name="/predict")
    chat = client.predict(message="Hello", **TINY, api_name="/chat")

    assert set(answer) == {"results", "model", "usage", "timings", "notices"}
    assert answer["results"] == [{"text": chat["text"], "finish_reason": chat["finish_reason"]}]
    assert answer["usage"] == chat["usage"]
    assert answer["model"] == "transformers/tiny"


def test_predict_draws_several_answers_with_seeds_in_a_row(client: Client) -> None:
    drawn = {**TINY, "temperature": 1.2}
    several = client.predict(prompt="Hello", num_return_sequences=3, seed=10, **drawn, api_name="/predict")
    alone = [client.predict(message="Hello", seed=seed, **drawn, api_name="/chat")["text"] for seed in (10, 11, 12)]
    unseeded = client.predict(prompt="Hello", num_return_sequences=3, **drawn, api_name="/predict")

    assert [row["text"] for row in several["results"]] == alone
    assert several["usage"]["completion_tokens"] == 60
    assert len({row["text"] for row in unseeded["results"]}) == 3


def test_max_length_counts_prompt_and_answer(client: Client) -> None:
    prompt_tokens = client.predict("Hello", TINY["model"], api_name="/count_tokens")["tokens"]
    answer = client.predict(
        prompt="Hello", model=TINY["model"], temperature=0, max_length=prompt_tokens + 7, api_name="/predict"
    )

    assert answer["usage"] == {"prompt_tokens": prompt_tokens, "completion_tokens": 7}
    assert answer["results"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"max_length": 100, "max_tokens": 10}, "Give either max_length or max_tokens, not both."),
        ({"max_length": 3}, "max_length is 3, but the prompt alone has"),
        ({"max_length": 0}, "max_length must be a whole number"),
        ({"max_length": 10**9}, "max_length must be a whole number"),
        ({"max_length": "long"}, "max_length must be a whole number"),
        ({"max_length": 100.5}, "max_length must be a whole number"),
        ({"max_length": True}, "max_length must be a whole number"),
        *(
            ({"num_return_sequences": value}, "num_return_sequences must be a whole number from 1 to 8")
            for value in (0, 9, -1, 1.5, "2", True, [1], 10**9)
        ),
        ({"prompt": ""}, "The message is empty."),
        ({"prompt": 5}, "prompt must be a text."),
        ({"model": "no such model!"}, "is not the name of a model"),
        ({"temperature": 3}, "temperature must be a number from 0 to 2, not 3."),
    ],
    ids=str,
)
def test_predict_refuses_with_a_sentence(http: httpx.Client, fields: dict[str, Any], sentence: str) -> None:
    body = {"prompt": "Hello", "model": "transformers/tiny", "max_tokens": 5} | fields
    if "max_length" in fields and "max_tokens" not in fields:
        del body["max_tokens"]

    assert sentence in refusal(http, "predict", body)


@pytest.mark.parametrize(
    "fields", [{"num_return_sequences": 2.0}, {"max_tokens": 5.0}, {"max_length": 60.0, "max_tokens": None}]
)
def test_a_whole_number_may_be_written_as_a_float(http: httpx.Client, fields: dict[str, Any]) -> None:
    """JSON has one kind of number: a client in another language may send 2.0."""
    body = {"prompt": "Hello", "model": "transformers/tiny", "max_tokens": 5, "temperature": 0} | fields

    answer = result(http, "predict", **body)

    assert len(answer["results"]) == fields.get("num_return_sequences", 1)
    assert isinstance(answer["usage"]["completion_tokens"], int)


def test_the_largest_seed_draws_several(http: httpx.Client) -> None:
    answer = result(
        http, "predict", prompt="Hello", seed=2**63 - 1, num_return_sequences=3, **TINY | {"temperature": 1}
    )

    assert len(answer["results"]) == 3


def test_providers_are_listed(client: Client) -> None:
    rows = {row["provider"]: row for row in client.predict(api_name="/list_providers")}

    assert rows.keys() == PROVIDERS.keys()
    assert rows["transformers"] == {
        "provider": "transformers",
        "label": "Transformers",
        "local": True,
        "docs_url": "https://huggingface.co/docs/transformers",
        "base_url": None,
        "key_variable": None,
        "key": None,
    }
    assert rows["openai"]["base_url"] == "https://api.openai.com/v1"
    assert rows["openai"]["key_variable"] == "OPENAI_API_KEY"


def test_a_key_is_kept_for_this_session_and_shown_by_its_end(client: Client) -> None:
    kept = client.predict(provider="anthropic", key="sk-canary-of-this-session", api_name="/set_key")
    listed = {row["provider"]: row["key"] for row in client.predict(api_name="/list_providers")}
    client.reset_session()
    others = {row["key"] for row in client.predict(api_name="/list_providers")}

    assert kept["key"] == listed["anthropic"] == "…sion"
    assert others == {None}


def test_a_key_is_forgotten(client: Client) -> None:
    for provider in ("openai", "gemini"):
        client.predict(provider=provider, key="sk-canary-12345678", api_name="/set_key")
    one = {row["provider"]: row["key"] for row in client.predict(provider="openai", api_name="/forget_key")}
    none = {row["key"] for row in client.predict(provider="", api_name="/forget_key")}

    assert (one["openai"], one["gemini"]) == (None, "…5678")
    assert none == {None}


@pytest.mark.parametrize(("provider", "key"), [("transformers", "sk-12345678"), ("openai", "short"), ("x", "sk-12345")])
def test_a_key_that_is_none_is_refused(client: Client, provider: str, key: str) -> None:
    with pytest.raises(AppError):
        client.predict(provider=provider, key=key, api_name="/set_key")


@pytest.mark.parametrize("texts", [[], "text", [""], [1], ["x"] * 257, ["x" * 200_001]])
def test_texts_that_cannot_be_embedded_are_refused(client: Client, texts: Any) -> None:
    with pytest.raises(AppError, match="texts"):
        client.predict(texts=texts, model="transformers/tiny", api_name="/embed")


def test_a_model_without_embeddings_says_so(client: Client) -> None:
    with pytest.raises(AppError, match="gives no embeddings"):
        client.predict(texts=["a"], model="transformers/tiny", api_name="/embed")


def test_an_answer_follows_a_schema_and_tells_its_probabilities(client: Client) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    done = client.predict(message="Hello", **TINY, json_schema=schema, logprobs=2, api_name="/chat")

    assert json.loads(done["text"])["n"] in (1, 2)
    assert "".join(each["token"] for each in done["logprobs"]) == done["text"]
    assert all(each["logprob"] <= 0 and len(each["top"]) == 2 for each in done["logprobs"])


@pytest.mark.parametrize("images", ["x", [1], ["http://127.0.0.1/x.png"], ["data:image/png;base64,AAAA"], [""]])
def test_what_is_no_picture_is_refused(client: Client, images: Any) -> None:
    with pytest.raises(AppError, match="picture|images"):
        client.predict(message="Look", **TINY, images=images, api_name="/chat")


def test_a_model_that_cannot_see_says_so(client: Client) -> None:
    picture = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    with pytest.raises(AppError, match="cannot see"):
        client.predict(message="Look", **TINY, images=[picture], api_name="/chat")


def test_models_are_listed_with_what_they_take(client: Client) -> None:
    rows = {row["id"]: row for row in client.predict(api_name="/list_models")}

    assert {"transformers/starter", "transformers/tiny", "transformers/plain"} <= set(rows)
    assert not {"transformers/empty", "transformers/pickled"} & set(rows)
    assert all(set(row) == MODEL_ROW for row in rows.values())
    assert rows["transformers/starter"]["source"] == "bundled"
    assert rows["transformers/tiny"]["context_length"] == 2048
    assert rows["transformers/tiny"]["size_bytes"] > 100_000
    assert set(rows["transformers/tiny"]["capabilities"]) == {
        "parameters",
        "system",
        "images",
        "reasoning",
        "embeddings",
    }
    assert set(rows["transformers/tiny"]["capabilities"]["parameters"]) == set(SPECS)


def test_set_model_loads_and_answers_from_then_on(client: Client) -> None:
    row = client.predict("transformers/other", api_name="/set_model")

    assert row["id"] == "transformers/other"
    assert row["loaded"] is True
    assert row["memory_bytes"] > 100_000
    assert client.predict(api_name="/current_model")["id"] == "transformers/other"
    assert client.predict(message="Hi", max_tokens=3, api_name="/chat")["model"] == "transformers/other"
    assert client.predict(prompt="Hi", max_tokens=3, api_name="/predict")["model"] == "transformers/other"
    assert client.predict("Hi", api_name="/count_tokens")["model"] == "transformers/other"


def test_each_client_has_its_own_model(app_url: str, connect: Callable[..., Client]) -> None:
    ann, bob = connect(app_url), connect(app_url)
    ann.predict("tiny", api_name="/set_model")
    bob.predict("other", api_name="/set_model")

    assert ann.predict(api_name="/current_model")["id"] == "transformers/tiny"
    assert bob.predict(api_name="/current_model")["id"] == "transformers/other"
    assert connect(app_url).predict(api_name="/current_model")["id"] == "transformers/starter"
    assert ann.predict(message="Hi", max_tokens=3, api_name="/chat")["model"] == "transformers/tiny"


def test_a_model_that_cannot_be_loaded_leaves_the_one_before(client: Client) -> None:
    client.predict("tiny", api_name="/set_model")
    for name in ("corrupt", "pickled", "no such model!", "empty"):
        with pytest.raises(Exception, match=r"\.$"):
            client.predict(name, api_name="/set_model")

    assert client.predict(api_name="/current_model")["id"] == "transformers/tiny"
    assert client.predict(message="Hi", max_tokens=3, api_name="/chat")["model"] == "transformers/tiny"


def test_a_folder_can_be_set(client: Client, models_dir: Path) -> None:
    row = client.predict(str(models_dir / "tiny"), api_name="/set_model")

    assert row["source"] == "folder"
    assert client.predict(message="Hi", max_tokens=3, api_name="/chat")["model"] == row["id"]


def test_tokens_are_counted_as_the_chat_reads_them(client: Client) -> None:
    template = client.predict("", "transformers/tiny", api_name="/count_tokens")["tokens"]
    for text in ("Hello", "¿Qué tal? 👋", " ", "x" * 5000):
        counted = client.predict(text, "transformers/tiny", api_name="/count_tokens")
        assert set(counted) == {"tokens", "exact", "model"}
        assert counted["exact"] is True
        assert counted["tokens"] == template + len(text.encode())
    read = client.predict(message="¿Qué tal? 👋", **TINY, api_name="/chat")["usage"]["prompt_tokens"]

    assert client.predict("¿Qué tal? 👋", "transformers/tiny", api_name="/count_tokens")["tokens"] == read


def test_cancelling_a_job_ends_the_engine(client: Client, engine: EngineWatch) -> None:
    job = client.submit(message="Hello", **SLOW, api_name="/chat")
    for event in job:
        if event["text"]:
            break
    job.cancel()

    assert engine.layers_until_quiet() < 100 * SLOW_LAYERS
    assert engine.layers < 2000 * SLOW_LAYERS


def test_cancelling_a_job_in_the_prompt_phase_ends_the_engine(client: Client, engine: EngineWatch) -> None:
    client.predict("slow", api_name="/set_model")
    job = client.submit(message=LONG_PROMPT, **SLOW, api_name="/chat")
    engine.wait_until_busy()
    job.cancel()
    engine.layers_until_quiet()

    assert engine.work < SLOW_LAYERS * len(LONG_PROMPT) / 2


def test_cancelling_predict_ends_the_engine(client: Client, engine: EngineWatch) -> None:
    client.predict("slow", api_name="/set_model")
    job = client.submit(prompt=LONG_PROMPT, **SLOW, num_return_sequences=2, api_name="/predict")
    engine.wait_until_busy(2)
    job.cancel()
    engine.layers_until_quiet()

    assert engine.work < SLOW_LAYERS * len(LONG_PROMPT) / 2


@pytest.mark.parametrize("message", ["Hello", LONG_PROMPT], ids=["while it answers", "while it reads"])
def test_a_closed_connection_ends_the_engine(http: httpx.Client, engine: EngineWatch, message: str) -> None:
    result(http, "set_model", model="slow")
    event_id = start(http, "chat", {"message": message, **SLOW}).json()["event_id"]
    with http.stream("GET", f"/gradio_api/call/chat/{event_id}") as stream:
        engine.wait_until_busy()
        for event in events_of(stream.iter_lines()):
            if event.name == "generating" and (message == LONG_PROMPT or event.data[0]["text"]):
                break
    engine.layers_until_quiet()

    assert engine.work < SLOW_LAYERS * (len(LONG_PROMPT) if message == LONG_PROMPT else 2000)


def test_a_closed_connection_leaves_the_line(http: httpx.Client, engine: EngineWatch) -> None:
    result(http, "set_model", model="slow")

    open_streams = []  # httpx closes a connection as soon as nobody holds the iterator over its lines.

    def until(stack: ExitStack, message: str, kind: str) -> None:
        event_id = start(http, "chat", {"message": message, **SLOW}).json()["event_id"]
        stream = stack.enter_context(http.stream("GET", f"/gradio_api/call/chat/{event_id}"))
        events = events_of(stream.iter_lines())
        open_streams.append(events)
        assert kind in (event.data[0]["type"] for event in events if event.name == "generating"), message[:10]

    with ExitStack() as answered:
        for number in range(EngineLimits().batched):
            until(answered, f"Hello {number}", "delta")
        with ExitStack() as waiting:
            until(waiting, LONG_PROMPT, "queued")
        time.sleep(0.5)
        before = engine.work
    engine.layers_until_quiet()

    assert engine.work - before < SLOW_LAYERS * len(LONG_PROMPT) / 2


def test_a_closed_session_ends_the_engine(app_url: str, http: httpx.Client, engine: EngineWatch) -> None:
    result(http, "set_model", model="slow")
    chat = next(each["id"] for each in http.get("/config").json()["dependencies"] if each["api_name"] == "chat")
    data = [LONG_PROMPT, None, "transformers/slow", "", "", *[None] * len(SPECS), None]
    http.post("/gradio_api/queue/join", json={"fn_index": chat, "session_hash": "tab", "data": data})
    with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": "tab"}):
        engine.wait_until_busy()
    engine.layers_until_quiet()

    assert engine.work < SLOW_LAYERS * len(LONG_PROMPT) / 2


def test_the_next_question_is_answered_after_a_cancelled_one(client: Client, engine: EngineWatch) -> None:
    for _ in range(6):
        job = client.submit(message="Hello", **SLOW, api_name="/chat")
        next(iter(job))
        job.cancel()
    engine.layers_until_quiet()

    assert client.predict(message="Hello", **TINY, api_name="/chat")["usage"]["completion_tokens"] == 20


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"message": ""}, "The message is empty. Write something first."),
        ({"message": " \n\t "}, "The message is empty."),
        ({"message": None}, "message must be a text."),
        ({"message": 5}, "message must be a text."),
        ({"message": ["Hello"]}, "message must be a text."),
        ({"message": {"text": "Hello"}}, "message must be a text."),
        ({"message": "x" * 1_000_001}, "has 1000001 characters, and at most 1000000 are taken"),
        ({"message": "x" * 5000}, "This message has 50"),
        ({"message": "\ud800"}, "character"),
        ({"system": "a\udc00"}, "character"),
        ({"history": [{"role": "user", "content": "\ud83d"}]}, "character"),
        ({"stop": ["\ud800"]}, "character"),
        ({"model": 5}, "model must be a text."),
        ({"model": "no such model!"}, "no such model! is not the name of a model."),
        ({"model": "../../etc/passwd"}, "There is no folder passwd."),
        ({"model": "/nowhere/secret/name"}, "There is no folder name."),
        ({"model": "/" + "x" * 5000}, "There is no folder"),
        ({"model": "~nobody-of-this-name/x"}, "There is no folder"),
        ({"model": "/tmp\0"}, "There is no folder"),
        ({"model": "empty"}, "The folder empty is no model: it has no config.json."),
        ({"model": "pickled"}, "only as pickle files, which can run foreign code."),
        ({"model": "corrupt"}, "The model in corrupt cannot be loaded"),
        ({"system": 5}, "system must be a text."),
        ({"system": None}, "system must be a text."),
        ({"conversation_id": 5}, "conversation_id must be a text."),
        ({"temperature": 2.1}, "temperature must be a number from 0 to 2, not 2.1."),
        ({"temperature": -0.1}, "temperature must be a number from 0 to 2"),
        ({"temperature": "hot"}, "temperature must be a number from 0 to 2, not str."),
        ({"temperature": True}, "temperature must be a number"),
        ({"temperature": math.nan}, "temperature must be a number from 0 to 2, not nan."),
        ({"temperature": math.inf}, "temperature must be a number from 0 to 2, not inf."),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1 to 131072, not 0."),
        ({"max_tokens": 10**9}, "max_tokens must be a whole number from 1 to 131072, not 1000000000."),
        ({"max_tokens": 10**400}, "max_tokens must be a whole number from 1 to 131072"),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number"),
        ({"max_tokens": math.nan}, "max_tokens must be a whole number"),
        ({"max_tokens": -math.inf}, "max_tokens must be a whole number"),
        ({"top_p": 0}, "top_p must be a number from 0.01 to 1, not 0."),
        ({"top_p": 1.01}, "top_p must be a number"),
        ({"top_k": -1}, "top_k must be a whole number from 0 to 1000, not -1."),
        ({"min_p": 2}, "min_p must be a number"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number from 0.5 to 2, not 0."),
        ({"presence_penalty": -3}, "presence_penalty must be a number from -2 to 2, not -3."),
        ({"frequency_penalty": []}, "frequency_penalty must be a number"),
        ({"seed": -1}, "seed must be a whole number from 0 to 9223372036854775807, not -1."),
        ({"seed": "7"}, "seed must be a whole number"),
        ({"stop": [1]}, "stop must be a list of texts."),
        ({"stop": {"a": 1}}, "stop must be a list of texts."),
        ({"stop": ["x"] * 17}, "stop takes at most 16 texts of at most 200 characters."),
        ({"stop": ["x" * 201]}, "stop takes at most 16 texts of at most 200 characters."),
        ({"history": "Hello"}, "history must be a list"),
        ({"history": {"role": "user", "content": "x"}}, "history must be a list"),
        ({"history": ["Hello"]}, "history must be a list"),
        ({"history": [["Hello", "Hi"]]}, "history must be a list"),
        ({"history": [{"role": "system", "content": "x"}]}, "history must be a list"),
        ({"history": [{"role": "user"}]}, "history must be a list"),
        ({"history": [{"role": "user", "content": None}]}, "history must be a list"),
        ({"history": [{"role": "user", "content": "x", "extra": 1}]}, "history must be a list"),
        ({"history": [{"role": ["user"], "content": "x"}]}, "history must be a list"),
        ({"history": 0}, "history must be a list"),
        ({"history": [{"role": "user", "content": "x"}] * 2001}, "has 2001 messages, and at most 2000 are taken"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_with_a_sentence_and_nothing_is_lost(
    http: httpx.Client, fields: dict[str, Any], sentence: str
) -> None:
    told = refusal(http, "chat", {"message": "Hello", **TINY} | fields)

    assert sentence in told
    assert len(told) < 600
    assert result(http, "chat", message="Hello", **TINY | {"max_tokens": 2})["usage"]["completion_tokens"] == 2


def test_a_model_on_the_hub_needs_the_network(http: httpx.Client, tries_network: None) -> None:
    told = refusal(http, "chat", {"message": "Hello", "model": "nobody/nothing"})

    assert told.startswith("The model nobody/nothing is not on this machine, and the Hugging Face Hub cannot be")


@pytest.mark.parametrize(
    ("endpoint", "body", "told"),
    [
        ("chat", {"message": "Hello", "temprature": 1}, "temprature"),
        ("predict", {"prompt": "Hello", "max_new_tokens": 5}, "max_new_tokens"),
        ("set_model", {"model": "tiny", "device": "cpu"}, "device"),
        ("list_models", {"all": True}, "all"),
        ("chat", {}, "message"),
        ("chat", {"temperature": 1}, "message"),
        ("predict", {"model": "tiny"}, "prompt"),
        ("set_model", {}, "model"),
        ("count_tokens", {}, "text"),
        ("submit_feedback", {"rating": "up"}, "turn_id"),
        ("submit_feedback", {"turn_id": "x", "stars": 5}, "stars"),
        ("start_training", {}, "dataset_id"),
        ("start_training", {"dataset_id": "x", "epochs": 3}, "epochs"),
        ("training_status", {}, "run_id"),
    ],
)
def test_unknown_and_missing_fields_of_a_named_call_are_422(
    http: httpx.Client, endpoint: str, body: dict[str, Any], told: str
) -> None:
    answer = start(http, endpoint, body)

    assert answer.status_code == 422
    assert told in answer.json()["error"]["message"]
    assert not INSIDES.search(answer.text)


@pytest.mark.parametrize("body", ["{", "[]", '"text"', "", "null", '{"message": "\\x"}'])
def test_what_is_no_json_object_is_422(http: httpx.Client, body: str) -> None:
    answer = start(http, "chat", body)

    assert answer.status_code == 422
    assert not INSIDES.search(answer.text)


@pytest.mark.parametrize(
    "data",
    [[], ["Hello"], ["Hello"] * 40, [None] * 15, None, {}, "Hello", 5, [[["Hello"]]]],
    ids=lambda data: str(data)[:20],
)
def test_positional_calls_of_any_shape_tell_nothing_of_the_inside(http: httpx.Client, data: Any) -> None:
    started = http.post("/gradio_api/call/chat", json={"data": data})
    assert not INSIDES.search(started.text)
    if started.status_code == 200:
        with http.stream("GET", f"/gradio_api/call/chat/{started.json()['event_id']}") as stream:
            first = next(events_of(stream.iter_lines()))
            assert not INSIDES.search(json.dumps(first.data))

    assert result(http, "chat", message="Hello", **TINY | {"max_tokens": 2})


@pytest.mark.parametrize(
    ("headers", "language"),
    [
        ({"accept-language": "es"}, "es"),
        ({"accept-language": "es-MX,es;q=0.9,en;q=0.8"}, "es"),
        ({"accept-language": "fr-FR,es;q=0.9"}, "es"),
        ({"accept-language": "en-GB,es;q=0.9"}, "en"),
        ({"accept-language": "fr"}, "en"),
        ({"accept-language": ";;,,=q"}, "en"),
        ({}, "en"),
        ({"accept-language": "es", "cookie": "simpleia_language=en"}, "en"),
        ({"accept-language": "en", "cookie": "simpleia_language=es"}, "es"),
        ({"cookie": "simpleia_language=../../etc/passwd"}, "en"),
    ],
    ids=str,
)
def test_errors_come_in_the_persons_language(http: httpx.Client, headers: dict[str, str], language: str) -> None:
    sentences = (say("The message is empty."), say("Write something first."))

    assert refusal(http, "chat", {"message": ""}, headers) == " ".join(
        in_language(sentence, language) for sentence in sentences
    )


def test_notices_and_errors_come_in_spanish(app_url: str, connect: Callable[..., Client]) -> None:
    client = connect(app_url, accept_language="es")
    done = client.predict(message="Hola", **TINY | {"model": "plain"}, api_name="/chat")
    with pytest.raises(Exception, match=r"\.$") as refused:
        client.predict(message=" ", api_name="/chat")

    assert str(refused.value) != "The message is empty. Write something first."
    assert "mensaje" in str(refused.value)
    assert done["notices"]
    assert "modelo" in done["notices"][0]


def test_events_of_the_page_cannot_be_called_by_name(http: httpx.Client) -> None:
    for name in ("ask", "choose", "restore", "rate", "build", "start", "look", "delete", "nosuch"):
        answer = http.post(f"/gradio_api/call/v2/{name}", json={}, headers={"connection": "close"})
        assert answer.status_code != 200
        assert not INSIDES.search(answer.text)
