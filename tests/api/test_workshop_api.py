"""The endpoints of the loop, by gradio_client and by plain HTTP: feedback, datasets made of it, runs on those."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file

from tests.api.raw_calls import INSIDES, refusal, result

TINY = {"model": "transformers/tiny", "temperature": 0.0, "max_tokens": 20}
LETTERS = "abcdefghijkl"
ROWS = [{"prompt": f"Say {letter}.", "completion": letter * 9} for letter in LETTERS]
TRAINING_SECONDS = 90
FEEDBACK_ROW = {
    "feedback_id": str,
    "turn_id": str,
    "conversation_id": str,
    "model": str,
    "question": str,
    "answer": str,
    "rating": str,
    "comment": str,
    "correction": str,
    "tags": list,
    "created_at": float,
    "updated_at": float,
}
SENTENCES_OF_TYPES = [
    *(
        ("submit_feedback", {"turn_id": "x", "rating": "up"}, name, "must be a text.")
        for name in ("turn_id", "rating", "comment", "correction")
    ),
    ("submit_feedback", {"turn_id": "x"}, "tags", "tags must be a list of texts."),
    *(
        (endpoint, {}, name, "must be a text.")
        for endpoint in ("list_feedback", "export_feedback", "build_dataset")
        for name in ("kind", "model", "words")
    ),
    ("list_feedback", {}, "limit", "limit must be a whole number from 1 to 1000"),
    ("list_feedback", {}, "offset", "offset must be a whole number from 0 to"),
    ("build_dataset", {}, "name", "name must be a text."),
    ("build_dataset", {}, "include_thumbs_up", "include_thumbs_up must be true or false."),
    ("import_dataset", {}, "file", "file must be an uploaded file."),
    ("import_dataset", {}, "content", "content must be a text."),
    ("import_dataset", {"content": "A line."}, "name", "name must be a text."),
    ("preview_dataset", {}, "dataset_id", "dataset_id must be a text."),
    ("preview_dataset", {"dataset_id": "x"}, "model", "model must be a text."),
    ("preview_dataset", {"dataset_id": "x"}, "max_length", "max_length must be a whole number from 16 to 131072"),
    ("preview_dataset", {"dataset_id": "x"}, "rows", "rows must be a whole number from 1 to 50"),
    ("start_training", {}, "dataset_id", "dataset_id must be a text."),
    *(
        ("start_training", {"dataset_id": "x"}, name, f"{name} must be a text.")
        for name in ("base_model", "method", "name")
    ),
    ("start_training", {"dataset_id": "x"}, "recipe", "The recipe must be an object of settings."),
    ("training_status", {}, "run_id", "run_id must be a text."),
    ("stop_training", {}, "run_id", "run_id must be a text."),
    ("resume_training", {}, "run_id", "run_id must be a text."),
]


def lines(rows: list[Any]) -> str:
    """Write rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def ask(client: Client, message: str) -> dict[str, Any]:
    """Return the end of an answer, with its turn_id."""
    done: dict[str, Any] = client.predict(message=message, **TINY, api_name="/chat")
    return done


def told(client: Client, api_name: str, *args: Any, **fields: Any) -> str:
    """Return the sentence with which a call by gradio_client is refused."""
    with pytest.raises(Exception, match=r"\.$") as refused:
        client.predict(*args, **fields, api_name=api_name)
    assert not INSIDES.search(str(refused.value))
    return str(refused.value)


@pytest.fixture
def word() -> str:
    """A word that only this test's feedback holds."""
    return f"w{uuid.uuid4().hex}"


def test_an_answer_is_rated_commented_and_corrected(client: Client, word: str) -> None:
    done = ask(client, f"Hello {word}")
    kept = client.predict(
        done["turn_id"], "down", "Too short.", "¡Hola! 👋", ["tone", "length"], api_name="/submit_feedback"
    )

    assert {name: type(value) for name, value in kept.items()} == FEEDBACK_ROW
    assert (kept["turn_id"], kept["conversation_id"]) == (done["turn_id"], done["conversation_id"])
    assert (kept["question"], kept["answer"], kept["model"]) == (f"Hello {word}", done["text"], TINY["model"])
    assert (kept["rating"], kept["comment"], kept["correction"]) == ("down", "Too short.", "¡Hola! 👋")
    assert kept["tags"] == ["tone", "length"]
    assert abs(kept["updated_at"] - time.time()) < 60
    assert client.predict(words=word, api_name="/list_feedback") == [kept]


def test_a_change_of_mind_keeps_what_is_not_said_again(client: Client, word: str) -> None:
    turn_id = ask(client, f"Hello {word}")["turn_id"]
    first = client.predict(turn_id, rating="up", comment="Good.", api_name="/submit_feedback")
    second = client.predict(turn_id, rating="down", correction="Better.", api_name="/submit_feedback")

    assert (second["rating"], second["comment"], second["correction"]) == ("down", "Good.", "Better.")
    assert second["feedback_id"] == first["feedback_id"]
    assert second["created_at"] == first["created_at"] < second["updated_at"]
    assert client.predict(words=word, api_name="/list_feedback") == [second]


def test_an_empty_text_takes_back_and_what_is_empty_is_gone(client: Client, word: str) -> None:
    turn_id = ask(client, f"Hello {word}")["turn_id"]
    client.predict(turn_id, "up", "Good.", "Better.", ["tone"], api_name="/submit_feedback")
    left = client.predict(turn_id, rating="", correction=" ", tags=[], api_name="/submit_feedback")
    assert (left["rating"], left["comment"], left["correction"], left["tags"]) == (None, "Good.", None, [])
    assert client.predict(words=word, api_name="/list_feedback") == [left]

    client.predict(turn_id, comment="", api_name="/submit_feedback")
    assert client.predict(words=word, api_name="/list_feedback") == []
    assert client.predict(turn_id, "up", api_name="/submit_feedback")["feedback_id"] != left["feedback_id"]


def test_feedback_is_filtered_and_paged_newest_first(client: Client, word: str) -> None:
    turns = [ask(client, f"{word} {number}")["turn_id"] for number in range(5)]
    client.predict(turns[0], "up", api_name="/submit_feedback")
    client.predict(turns[1], "down", f"Don't say {word}!", api_name="/submit_feedback")
    client.predict(turns[2], correction='100% "Better" a_b', api_name="/submit_feedback")
    client.predict(turns[3], "up", correction="Ñandú", api_name="/submit_feedback")
    other = client.predict(message=f"{word} 5", **TINY | {"model": "other"}, api_name="/chat")["turn_id"]
    client.predict(other, "up", api_name="/submit_feedback")

    def listed(**filters: Any) -> list[str]:
        rows = client.predict(**{"words": word} | filters, api_name="/list_feedback")
        return [row["turn_id"] for row in rows]

    assert listed() == [other, turns[3], turns[2], turns[1], turns[0]]
    assert listed(kind="up") == [other, turns[3], turns[0]]
    assert listed(kind="down") == [turns[1]]
    assert listed(kind="corrected") == [turns[3], turns[2]]
    assert listed(model="transformers/other") == [other]
    assert listed(kind="up", model=TINY["model"]) == [turns[3], turns[0]]
    assert listed(words=f"  {word.upper()} 3 ") == [turns[3]]
    assert listed(words=f"don't say {word}") == [turns[1]]
    assert turns[2] in listed(words='100% "better" a_b')
    assert turns[3] in listed(words="ñANDÚ")
    assert listed(words=f"{word}%") == []
    assert [listed(limit=2, offset=offset) for offset in (0, 2, 4, 6)] == [
        [other, turns[3]],
        [turns[2], turns[1]],
        [turns[0]],
        [],
    ]

    client.predict(turns[0], comment="Again.", api_name="/submit_feedback")
    assert listed()[0] == turns[0]


def test_feedback_is_exported_as_a_file_of_json_lines(client: Client, http: httpx.Client, word: str) -> None:
    history = [{"role": "user", "content": "I am Ann."}, {"role": "assistant", "content": "Hello Ann."}]
    done = client.predict(message=f"Hello {word}\n👋", history=history, system="Be kind.", **TINY, api_name="/chat")
    client.predict(done["turn_id"], "down", correction="¡Hola!\nAnn", tags=["x"], api_name="/submit_feedback")
    client.predict(ask(client, word)["turn_id"], "up", api_name="/submit_feedback")
    file = Path(client.predict(words=word, api_name="/export_feedback"))
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]

    assert file.name == "feedback.jsonl"
    assert [row["rating"] for row in rows] == ["up", "down"]
    assert rows[1]["messages"] == [
        {"role": "system", "content": "Be kind."},
        *history,
        {"role": "user", "content": f"Hello {word}\n👋"},
    ]
    assert (rows[1]["turn_id"], rows[1]["answer"]) == (done["turn_id"], done["text"])
    assert (rows[1]["correction"], rows[1]["tags"], rows[1]["model"]) == ("¡Hola!\nAnn", ["x"], TINY["model"])
    one = Path(client.predict(kind="down", words=word, api_name="/export_feedback")).read_text(encoding="utf-8")
    assert [json.loads(line) for line in one.splitlines()] == rows[1:]


def test_nothing_to_export_is_an_empty_file(client: Client, word: str) -> None:
    assert Path(client.predict(words=word, api_name="/export_feedback")).read_bytes() == b""


def test_feedback_is_refused_with_a_sentence_and_what_was_said_stays(client: Client, word: str) -> None:
    done = ask(client, f"Hello {word}")
    turn_id = done["turn_id"]
    kept = client.predict(turn_id, "up", "Good.", api_name="/submit_feedback")
    for fields, sentence in (
        ({}, "The feedback is empty. Give a rating, a comment, a correction or tags."),
        ({"rating": "great"}, 'rating must be "up", "down", or empty to take it back.'),
        ({"rating": "UP"}, 'rating must be "up", "down"'),
        ({"correction": done["text"]}, "The correction is the answer itself."),
        ({"correction": f"\n {done['text'].strip()} "}, "The correction is the answer itself."),
        ({"comment": "x" * 5_001}, "The comment has 5001 characters, and at most 5000 are kept. Shorten it."),
        ({"correction": "x" * 100_001}, "The correction has 100001 characters, and at most 100000 are kept."),
        ({"tags": ["x"] * 21}, "At most 20 tags of 1 to 50 characters are kept."),
        ({"tags": ["x" * 51]}, "At most 20 tags"),
        ({"tags": [" "]}, "At most 20 tags"),
    ):
        assert sentence in told(client, "/submit_feedback", turn_id, **fields), fields
    for unknown in ("", "nosuch", "x" * 500, f"{turn_id}'--"):
        assert told(client, "/submit_feedback", unknown, "up").startswith(f"There is no answer {unknown[:64]} of")

    assert client.predict(words=word, api_name="/list_feedback") == [kept]
    assert client.predict(turn_id, comment="x" * 5_000, api_name="/submit_feedback")["rating"] == "up"


@pytest.mark.parametrize(("endpoint", "fields", "name", "sentence"), SENTENCES_OF_TYPES)
def test_values_of_other_types_are_refused_with_a_sentence(
    http: httpx.Client, endpoint: str, fields: dict[str, Any], name: str, sentence: str
) -> None:
    for value in (5 if "number" not in sentence else 1.5, ["x", 1], True if "true" not in sentence else None):
        refused = refusal(http, endpoint, fields | {name: value})
        assert sentence in refused, value
        assert refused.startswith(("The recipe", name)), value


@pytest.mark.parametrize(
    ("endpoint", "fields", "sentence"),
    [
        ("list_feedback", {"kind": "good"}, 'kind must be "up", "down", "corrected", or empty for all.'),
        ("export_feedback", {"kind": "good"}, "kind must be"),
        ("build_dataset", {"kind": "good"}, "kind must be"),
        ("list_feedback", {"limit": 0}, "limit must be a whole number from 1 to 1000, not 0."),
        ("list_feedback", {"limit": 1001}, "limit must be a whole number from 1 to 1000, not 1001."),
        ("list_feedback", {"offset": -1}, "offset must be a whole number from 0 to"),
        ("list_feedback", {"words": "\ud800"}, "half of a character"),
        ("submit_feedback", {"turn_id": "\ud800", "rating": "up"}, "half of a character"),
        ("submit_feedback", {"turn_id": "x", "comment": "\ud800"}, "half of a character"),
    ],
)
def test_values_out_of_range_are_refused_with_a_sentence(
    http: httpx.Client, endpoint: str, fields: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal(http, endpoint, fields)


def test_a_dataset_is_built_of_corrections_and_of_thumbs_up_if_wanted(client: Client, word: str) -> None:
    questions = [f"{word} {number}" for number in range(6)]
    turns = [ask(client, question) for question in questions]
    for turn in turns[:4]:
        client.predict(turn["turn_id"], "down", correction="Better.", api_name="/submit_feedback")
    client.predict(turns[4]["turn_id"], "up", api_name="/submit_feedback")
    client.predict(turns[5]["turn_id"], "down", api_name="/submit_feedback")
    corrected = client.predict("mine", words=word, api_name="/build_dataset")
    more = client.predict("more", words=word, include_thumbs_up=True, api_name="/build_dataset")

    assert (corrected["name"], corrected["source"], corrected["kind"]) == ("mine", "feedback", "chat")
    assert (corrected["train_rows"], corrected["held_out_rows"], corrected["given"]) == (4, 0, 4)
    assert "With fewer than 5 conversations all rows" in corrected["warnings"][0]
    assert (more["train_rows"], more["held_out_rows"], more["warnings"]) == (4, 1, [])
    rows = client.predict(more["dataset_id"], TINY["model"], rows=50, api_name="/preview_dataset")["rows"]
    learnt = ["".join(piece["text"] for piece in row["pieces"] if piece["learnt"]) for row in rows]
    assert sorted(each.startswith("Better.") for each in learnt) == [False, True, True, True, True]
    assert {row["source"] for row in rows} == {f"turn {turn['turn_id']}" for turn in turns[:5]}
    assert client.predict(words=word, kind="up", include_thumbs_up=True, api_name="/build_dataset")["given"] == 1
    assert told(client, "/build_dataset", words=word, kind="up").startswith("The dataset would be empty. Correct some")


def test_a_file_becomes_a_dataset(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(lines([*ROWS, ROWS[0]]), encoding="utf-8")
    row = client.predict(handle_file(str(file)), name="letters", api_name="/import_dataset")
    again = client.predict(content=file.read_text(), api_name="/import_dataset")

    assert (row["name"], row["source"], row["kind"]) == ("letters", "file", "chat")
    assert (row["train_rows"], row["held_out_rows"]) == (11, 1)
    assert (row["given"], row["duplicates"], row["errors"], row["warnings"]) == (13, 1, [], [])
    assert (again["sha256"], again["name"]) == (row["sha256"], "file")
    assert again["dataset_id"] != row["dataset_id"]
    assert client.predict(api_name="/list_datasets")[:2] == [again, row]


def test_lines_of_text_and_conversations_become_datasets(client: Client) -> None:
    text = client.predict(content="One line.\r\n\r\nAnother line.\n", api_name="/import_dataset")
    chat = client.predict(
        content=lines([{"messages": [{"role": role, "content": role} for role in ("system", "user", "assistant")]}]),
        api_name="/import_dataset",
    )

    assert (text["kind"], text["train_rows"]) == ("text", 2)
    assert (chat["kind"], chat["train_rows"]) == ("chat", 1)


def test_rows_that_cannot_be_read_are_reported_with_their_number(client: Client) -> None:
    given = lines(ROWS).splitlines()
    given[6] = '{"prompt": "Say g.", "completion": '
    given[8:8] = ['{"question": "Say x.", "answer": "x"}', '["Say y."]', '{"prompt": "Say z.", "completion": " "}']
    row = client.predict(content="\n".join(given), api_name="/import_dataset")

    assert row["train_rows"] + row["held_out_rows"] == 11
    assert row["given"] == 15
    assert [error["row"] for error in row["errors"]] == [7, 9, 10, 11]
    assert [error["reason"] for error in row["errors"]] == [
        "The row is not JSON; it breaks at character 36.",
        "The row has no prompt and completion; its columns are question, answer.",
        "The row is not a JSON object.",
        "The completion is empty.",
    ]
    assert client.predict(api_name="/list_datasets")[0]["errors"] == row["errors"]


def test_one_row_is_a_dataset_with_a_warning(client: Client) -> None:
    row = client.predict(content=lines(ROWS[:1]), api_name="/import_dataset")

    assert (row["train_rows"], row["held_out_rows"]) == (1, 0)
    assert row["warnings"] == [
        "With fewer than 5 conversations all rows are trained on, and none is left to measure with."
    ]


def test_what_is_no_dataset_is_refused_with_a_sentence(client: Client, tmp_path: Path) -> None:
    file, empty, binary = tmp_path / "rows.jsonl", tmp_path / "empty.jsonl", tmp_path / "binary.jsonl"
    file.write_text(lines(ROWS), encoding="utf-8")
    empty.write_bytes(b"")
    binary.write_bytes(b"abc\xff\xfe")
    before = client.predict(api_name="/list_datasets")
    uploads = {name: handle_file(str(path)) for name, path in (("file", file), ("empty", empty), ("binary", binary))}
    for fields, sentence in (
        ({}, "Give either file or content."),
        ({"content": ""}, "Give either file or content."),
        ({"file": uploads["file"], "content": "A line."}, "Give either file or content."),
        ({"file": uploads["empty"]}, "The dataset would be empty."),
        ({"content": " \n\n"}, "The dataset would be empty."),
        ({"file": uploads["binary"]}, "The file is not UTF-8 text (byte 3). Save it as UTF-8."),
        ({"content": '{"question": "x", "answer": "y"}'}, "The dataset is empty: The row has no prompt and completion"),
        ({"content": '{"prompt": '}, "The dataset is empty: The row is not JSON; it breaks at character 12."),
        ({"content": "A line.", "name": "x" * 201}, "A name has at most 200 characters."),
    ):
        assert sentence in told(client, "/import_dataset", **fields), fields

    assert client.predict(api_name="/list_datasets") == before


def test_the_preview_marks_what_is_learnt_and_counts_all_rows(client: Client) -> None:
    long = {"prompt": "Count.", "completion": "1 2 3 " * 20}
    made = client.predict(content=lines([*ROWS, long]), api_name="/import_dataset")
    preview = client.predict(made["dataset_id"], TINY["model"], 64, 3, api_name="/preview_dataset")
    every = client.predict(made["dataset_id"], TINY["model"], rows=50, api_name="/preview_dataset")["rows"]

    assert [row["source"] for row in preview["rows"]] == ["row 1", "row 2", "row 3"]
    assert preview["rows"][0]["pieces"] == [
        {"text": "<|im_start|>user\nSay a.<|im_end|>\n<|im_start|>assistant\n", "learnt": False},
        {"text": "aaaaaaaaa<|im_end|>", "learnt": True},
    ]
    assert preview["rows"] == every[:3]
    lengths = [row["tokens"] for row in every]
    bars = preview["histogram"]
    assert sum(bar["rows"] for bar in bars) == len(ROWS) + 1 == len(lengths)
    for before, bar in zip([{"tokens": 0}, *bars], bars, strict=False):
        assert bar["rows"] == sum(before["tokens"] < length <= bar["tokens"] for length in lengths) > 0
    assert (preview["longest"], preview["limit"]) == (max(lengths), 64)
    assert preview["too_long"] == sum(length > 64 for length in lengths) == 1
    assert preview["learnt_tokens"] == 10 * len(ROWS) + len(long["completion"]) + 1
    assert [row["held_out"] for row in every].count(True) == made["held_out_rows"] == 1


def test_a_text_is_learnt_whole_and_a_longer_limit_is_the_models_own(client: Client) -> None:
    made = client.predict(content="One line.", api_name="/import_dataset")
    preview = client.predict(made["dataset_id"], TINY["model"], 131_072, api_name="/preview_dataset")

    assert preview["rows"][0]["pieces"] == [{"text": "One line.<|im_end|>", "learnt": True}]
    assert preview["limit"] == 2048


def test_what_cannot_be_previewed_is_refused(client: Client, http: httpx.Client) -> None:
    made = client.predict(content="One line.", api_name="/import_dataset")["dataset_id"]
    for fields, sentence in (
        ({"dataset_id": "nosuch"}, "There is no dataset nosuch of yours."),
        ({"dataset_id": "../../etc/passwd"}, "There is no dataset ../../etc/passwd of yours."),
        ({"dataset_id": made, "model": "no such model!"}, "no such model! is not the name of a model."),
        ({"dataset_id": made, "model": "empty"}, "The folder empty is no model"),
        ({"dataset_id": made, "model": "tuned/nosuch"}, "There is no tuned model nosuch."),
        ({"dataset_id": made, "model": "tiny", "max_length": 15}, "max_length must be a whole number from 16"),
        ({"dataset_id": made, "model": "tiny", "rows": 0}, "rows must be a whole number from 1 to 50, not 0."),
        ({"dataset_id": made, "model": "tiny", "rows": 51}, "rows must be a whole number from 1 to 50, not 51."),
    ):
        assert sentence in refusal(http, "preview_dataset", fields), fields


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"epochs": 0}, "epochs must be a number from 0.01 to 1000, not 0."),
        ({"epochs": "3"}, "epochs must be a number from 0.01 to 1000, not str."),
        ({"learning_rate": 2}, "learning_rate must be a number from 1e-07 to 1, not 2."),
        ({"learning_rate": 0}, "learning_rate must be a number"),
        ({"rank": 0}, "rank must be a whole number from 1 to 512, not 0."),
        ({"rank": 1.5}, "rank must be a whole number from 1 to 512, not 1.5."),
        ({"batch_size": 257}, "batch_size must be a whole number from 1 to 256, not 257."),
        ({"batch_size": True}, "batch_size must be a whole number from 1 to 256, not True."),
        ({"max_length": 8}, "max_length must be a whole number from 16 to 131072, not 8."),
        ({"replay": 0.95}, "replay must be a number from 0 to 0.9, not 0.95."),
        ({"replay": -0.1}, "replay must be a number from 0 to 0.9"),
        ({"replay": []}, "replay must be a number from 0 to 0.9, not list."),
        ({"seed": -1}, "seed must be a whole number from 0 to 2147483647, not -1."),
        ({"epoch": 3}, "There is no setting epoch. The settings are: epochs, learning_rate, rank, dropout,"),
        ({"epochs": 3, "device": "cuda"}, "There is no setting device."),
        ([["epochs", 3]], "The recipe must be an object of settings."),
        ("epochs=3", "The recipe must be an object of settings."),
    ],
    ids=str,
)
def test_wrong_recipes_are_refused_and_start_nothing(http: httpx.Client, recipe: Any, sentence: str) -> None:
    made = result(http, "import_dataset", content="One line.")["dataset_id"]
    before = result(http, "list_runs")

    assert sentence in refusal(http, "start_training", {"dataset_id": made, "base_model": "tiny", "recipe": recipe})
    assert result(http, "list_runs") == before


def test_what_cannot_be_trained_is_refused_and_starts_nothing(http: httpx.Client) -> None:
    made = result(http, "import_dataset", content="One line.")["dataset_id"]
    before = result(http, "list_runs")
    for fields, sentence in (
        ({"dataset_id": "nosuch"}, "There is no dataset nosuch of yours. Choose one of the list, or build one."),
        ({"dataset_id": ""}, "There is no dataset"),
        ({"method": "dpo"}, "method must be one of sft."),
        ({"method": ""}, "method must be one of sft."),
        ({"base_model": "no such model!"}, "no such model! is not the name of a model."),
        ({"base_model": "empty"}, "The folder empty is no model"),
        ({"base_model": "pickled"}, "only as pickle files"),
        ({"base_model": "/nowhere/secret/name"}, "There is no folder name."),
        ({"base_model": "tuned/nosuch"}, "There is no tuned model nosuch."),
    ):
        body = {"dataset_id": made, "base_model": "tiny", "recipe": {"epochs": 1}} | fields
        assert sentence in refusal(http, "start_training", body), fields

    assert result(http, "list_runs") == before


@pytest.mark.parametrize("endpoint", ["training_status", "stop_training", "resume_training"])
def test_an_unknown_run_is_refused(http: httpx.Client, endpoint: str) -> None:
    for run_id in ("nosuch", "", "../../etc", "x" * 500):
        assert refusal(http, endpoint, {"run_id": run_id}).startswith(f"There is no run {run_id[:64]} of yours.")


def test_refusals_come_in_the_persons_language(app_url: str, connect: Callable[..., Client]) -> None:
    client = connect(app_url, accept_language="es")
    report = client.predict(content=lines([ROWS[0], {"question": "x"}]), api_name="/import_dataset")

    assert told(client, "/submit_feedback", "nosuch", "up").startswith("No hay ninguna respuesta tuya nosuch.")
    assert told(client, "/training_status", "nosuch").startswith("No hay ningún entrenamiento tuyo nosuch.")
    assert report["errors"][0]["reason"].startswith("La fila no tiene prompt")
    assert "filas" in report["warnings"][0]


@pytest.mark.trains
def test_a_run_trains_and_its_model_answers_beside_its_base(client: Client) -> None:
    before = ask(client, "Say a.")["text"]
    made = client.predict(content=lines(ROWS[:6]), api_name="/import_dataset")
    recipe = {"epochs": 1, "replay": 0, "batch_size": 4, "learning_rate": 0.02}
    run = client.predict(made["dataset_id"], "tiny", recipe=recipe, name="Say it!", api_name="/start_training")
    run_id = run["run_id"]
    assert run_id.startswith("say-it-")
    assert (run["dataset_id"], run["base_model"], run["method"]) == (made["dataset_id"], TINY["model"], "sft")
    assert run["recipe"].items() >= recipe.items()
    assert run["state"] in ("queued", "running")

    deadline = time.monotonic() + TRAINING_SECONDS
    while run["state"] in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.3)
        run = client.predict(run_id, api_name="/training_status")
    assert (run["state"], run["error"]) == ("finished", None)
    assert run["created_at"] <= run["started_at"] < run["ended_at"] <= time.time()
    assert (run["step"], run["steps"], run["eta_seconds"]) == (2, 2, None)
    assert [step for step, _ in run["curve"]] == [1, 2]
    assert (run["held_out"][0][0], run["held_out"][-1][0]) == (0, 2), "measured before and after"
    assert all(loss > 0 for _, loss in run["curve"] + run["held_out"])
    assert run["loss"] == run["curve"][-1][1]
    assert run["tokens_per_second"] > 0
    assert run["model"] == f"tuned/{run_id}"
    assert client.predict(api_name="/list_runs")[0] == run

    rows = {row["id"]: row for row in client.predict(api_name="/list_models")}
    assert rows[run["model"]]["source"] == "tuned"
    assert rows[run["model"]]["context_length"] == rows[TINY["model"]]["context_length"]
    assert client.predict(run["model"], api_name="/set_model")["loaded"] is True
    assert client.predict(api_name="/current_model")["id"] == run["model"]
    tuned = client.predict(message="Say a.", temperature=0, max_tokens=20, api_name="/chat")
    assert tuned["model"] == run["model"]
    assert tuned["text"] != before
    assert ask(client, "Say a.")["text"] == before

    kept = client.predict(tuned["turn_id"], "up", api_name="/submit_feedback")
    assert kept["model"] == run["model"]
    for endpoint, sentence in (
        ("/stop_training", f"The run {run_id} is not running: it is finished."),
        ("/resume_training", f"The run {run_id} cannot be resumed: it is finished."),
    ):
        assert sentence in told(client, endpoint, run_id)
    assert told(client, "/start_training", made["dataset_id"], run["model"]).startswith(
        f"{run['model']} is a tuned model. Fine-tune its base, tiny,"
    )
    assert client.predict(api_name="/list_runs")[0] == run
