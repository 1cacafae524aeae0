"""Datasets: made of feedback or a file, kept with their sha256, and nobody else's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.database import Database
from core.errors import InvalidRequest, NotAllowed, NotFound, StorageFailed
from core.feedback import FeedbackFilter, FeedbackStore, Opinion
from core.turns import record
from core.users import LOCAL, User
from tests.core.test_database import files_of_at_most
from tests.core.test_turns import some_turn
from training.datasets import DatasetStore, read_rows
from training.rows import to_line

GUEST = User("guest-1", may_train=False)
OTHER = User("other")
PAIRS = [{"prompt": f"Question {number}?", "completion": f"Answer {number}."} for number in range(20)]


def lines(*rows: Any) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DatasetStore]:
    database = Database(tmp_path)
    yield DatasetStore(database, FeedbackStore(database), tmp_path / "datasets")
    await database.aclose()


async def correct(store: DatasetStore, turn_id: str, opinion: Opinion, user: User = LOCAL, **turn: Any) -> None:
    await record(store.database, some_turn(turn_id, owner=user.name, **turn))
    await store.feedback.submit(user, turn_id, opinion)


async def test_a_file_becomes_a_dataset_that_is_listed_and_read(store: DatasetStore) -> None:
    dataset = await store.import_file(LOCAL, "tea", lines(*PAIRS))
    rows = await store.rows(LOCAL, dataset.id)

    assert (dataset.name, dataset.source, dataset.kind) == ("tea", "file", "chat")
    assert (dataset.train_rows, dataset.held_out_rows, dataset.report.given) == (18, 2, 20)
    assert await store.list(LOCAL) == [dataset]
    assert await store.get(LOCAL, dataset.id) == dataset
    assert [row.messages[0].content for row in rows] == [pair["prompt"] for pair in PAIRS]
    assert sum(row.held_out for row in rows) == 2


async def test_corrections_become_a_dataset(store: DatasetStore) -> None:
    await correct(store, "t1", Opinion(correction="Better."))
    await correct(store, "t2", Opinion("up"), model="openai/gpt")
    await correct(store, "t3", Opinion("down"))
    await correct(store, "t4", Opinion(correction="Another person's."), OTHER)
    corrected = await store.build(LOCAL)
    all_good = await store.build(LOCAL, "all", with_thumbs_up=True)
    some = await store.build(LOCAL, "some", FeedbackFilter(model="openai/gpt"), with_thumbs_up=True)

    assert (corrected.name, corrected.source, corrected.train_rows) == ("feedback", "feedback", 1)
    assert [row.source for row in await store.rows(LOCAL, corrected.id)] == ["turn t1"]
    assert sorted(row.source for row in await store.rows(LOCAL, all_good.id)) == ["turn t1", "turn t2"]
    assert [row.source for row in await store.rows(LOCAL, some.id)] == ["turn t2"]
    assert [each.name for each in await store.list(LOCAL)] == ["some", "all", "feedback"]


async def test_a_conversation_is_held_out_whole(store: DatasetStore) -> None:
    for number in range(20):
        await correct(
            store,
            f"t{number}",
            Opinion(correction=f"Better {number}."),
            question=f"Question {number}?",
            conversation_id=f"c{number % 10}",
        )
    first, second = await store.build(LOCAL), await store.build(LOCAL)
    held_out = {row.source for row in await store.rows(LOCAL, first.id) if row.held_out}

    assert (first.train_rows, first.held_out_rows) == (18, 2)
    assert len({int(source.removeprefix("turn t")) % 10 for source in held_out}) == 1
    assert first.sha256 == second.sha256
    assert first.id != second.id


async def test_the_sha256_is_that_of_the_file(store: DatasetStore) -> None:
    dataset = await store.import_file(LOCAL, "", lines(*PAIRS))
    content = store.file(dataset.id).read_bytes()

    assert dataset.sha256 == hashlib.sha256(content).hexdigest()
    assert content.decode() == "".join(map(to_line, await store.rows(LOCAL, dataset.id)))
    assert [path.name for path in store.folder.iterdir()] == [f"{dataset.id}.jsonl"]


async def test_the_same_file_gives_the_same_rows(store: DatasetStore) -> None:
    first = await store.import_file(LOCAL, "a", lines(*PAIRS))
    second = await store.import_file(OTHER, "b", lines(*PAIRS))

    assert first.sha256 == second.sha256


async def test_a_file_that_was_changed_is_refused(store: DatasetStore) -> None:
    dataset = await store.import_file(LOCAL, "", lines(*PAIRS))
    file = store.file(dataset.id)
    file.write_bytes(file.read_bytes().replace(b"Answer 3.", b"Answer 4."))
    with pytest.raises(StorageFailed) as refused:
        await store.rows(LOCAL, dataset.id)

    assert str(refused.value) == (
        f"The dataset's file {dataset.id}.jsonl was changed after it was made. Build it again."
    )
    assert len(read_rows(file)) == 20


async def test_a_file_that_is_gone_gets_a_sentence(store: DatasetStore) -> None:
    dataset = await store.import_file(LOCAL, "", lines(*PAIRS))
    store.file(dataset.id).unlink()
    with pytest.raises(StorageFailed, match=rf"The dataset's file {dataset.id}.jsonl cannot be read\.$"):
        await store.rows(LOCAL, dataset.id)


async def test_rows_that_cannot_be_read_are_reported_and_the_others_kept(store: DatasetStore) -> None:
    rows = [*PAIRS[:6], '{"prompt": "Broken", "completion": "No', {"question": "x", "answer": "y"}, PAIRS[0], PAIRS[7]]
    dataset = await store.import_file(LOCAL, "", lines(*rows))
    again = await store.get(LOCAL, dataset.id)

    assert [(error.row, str(error.reason)) for error in again.report.errors] == [
        (7, "The row is not JSON; it breaks at character 36."),
        (8, "The row has no prompt and completion; its columns are question, answer."),
    ]
    assert (again.report.given, again.report.duplicates) == (10, 1)
    assert again.train_rows + again.held_out_rows == 7
    assert dataset == again


async def test_a_file_with_the_wrong_columns_is_refused_with_the_right_ones(store: DatasetStore) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await store.import_file(LOCAL, "", lines({"question": "x", "answer": "y"}, {"question": "z", "answer": "y"}))

    assert str(refused.value) == (
        "The dataset is empty: The row has no prompt and completion; its columns are question, answer. "
        'Correct some answers in the chat first, or import a file with {"prompt": "...", "completion": "..."} rows.'
    )
    assert await store.list(LOCAL) == []
    assert not store.folder.exists()


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n"])
async def test_an_empty_file_is_refused(store: DatasetStore, content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="The dataset would be empty. Correct some answers in the chat first"):
        await store.import_file(LOCAL, "", content)


async def test_no_feedback_is_no_dataset(store: DatasetStore) -> None:
    await correct(store, "t1", Opinion("up"))
    with pytest.raises(InvalidRequest, match="The dataset would be empty"):
        await store.build(LOCAL)
    with pytest.raises(InvalidRequest, match="The dataset would be empty"):
        await store.build(OTHER, with_thumbs_up=True)


async def test_one_row_is_a_dataset_with_a_warning(store: DatasetStore) -> None:
    dataset = await store.import_file(LOCAL, "", lines(PAIRS[0]))

    assert (dataset.train_rows, dataset.held_out_rows) == (1, 0)
    assert "none is left to measure with" in str((await store.get(LOCAL, dataset.id)).report.warnings[0])


async def test_plain_lines_are_a_dataset_of_text(store: DatasetStore) -> None:
    dataset = await store.import_file(LOCAL, "poems", b"Verde que te quiero verde.\nVerde viento.\n")

    assert dataset.kind == "text"
    assert [row.text for row in await store.rows(LOCAL, dataset.id)] == ["Verde que te quiero verde.", "Verde viento."]


async def test_lines_may_hold_any_character(store: DatasetStore) -> None:
    pair = {"prompt": "a\u2028b\x85c\r\nd\0", "completion": "👋\u2029\\ \"'"}
    dataset = await store.import_file(LOCAL, "", json.dumps(pair, ensure_ascii=False).encode())
    row = (await store.rows(LOCAL, dataset.id))[0]

    assert [message.content for message in row.messages] == list(pair.values())


@pytest.mark.parametrize("row", [{"prompt": "\ud800", "completion": "x"}, {"messages": [{"role": "assistant"}]}])
async def test_a_file_whose_only_row_is_broken_is_refused(store: DatasetStore, row: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="The dataset is empty: "):
        await store.import_file(LOCAL, "", lines(row))


async def test_a_long_name_is_refused_before_anything_is_kept(store: DatasetStore) -> None:
    with pytest.raises(InvalidRequest, match="A name has at most 200 characters"):
        await store.import_file(LOCAL, "x" * 201, lines(*PAIRS))

    assert not store.folder.exists()


async def test_visitors_make_and_see_no_datasets(store: DatasetStore) -> None:
    dataset = await store.import_file(LOCAL, "", lines(*PAIRS))
    for attempt in (
        store.build(GUEST),
        store.import_file(GUEST, "", lines(*PAIRS)),
        store.list(GUEST),
        store.get(GUEST, dataset.id),
        store.rows(GUEST, dataset.id),
    ):
        with pytest.raises(NotAllowed, match="Visitors may rate and correct answers, but not train models here"):
            await attempt


async def test_a_dataset_of_somebody_else_is_not_found(store: DatasetStore) -> None:
    dataset = await store.import_file(LOCAL, "", lines(*PAIRS))
    for attempt in (store.get(OTHER, dataset.id), store.rows(OTHER, dataset.id), store.get(LOCAL, "../../etc/passwd")):
        with pytest.raises(NotFound, match="There is no dataset .* of yours. Choose one of the list, or build one."):
            await attempt

    assert await store.list(OTHER) == []


async def test_a_full_disk_gets_a_sentence_and_leaves_nothing_half_written(store: DatasetStore) -> None:
    await store.list(LOCAL)
    large = lines({"prompt": "x" * 1_000_000, "completion": "y"})
    with files_of_at_most(500_000), pytest.raises(StorageFailed) as failed:
        await store.import_file(LOCAL, "", large)

    assert str(failed.value) == (
        "The data could not be stored: file too large. "
        "Make room on the disk and allow writing to DATA_DIR, then try again."
    )
    assert list(store.folder.iterdir()) == []
    assert await store.list(LOCAL) == []
    assert (await store.import_file(LOCAL, "", large)).train_rows == 1


async def test_a_folder_that_cannot_be_made_gets_a_sentence(store: DatasetStore) -> None:
    store.folder.parent.mkdir(exist_ok=True)
    store.folder.write_text("")
    with pytest.raises(StorageFailed, match="The data could not be stored: file exists"):
        await store.import_file(LOCAL, "", lines(*PAIRS))
