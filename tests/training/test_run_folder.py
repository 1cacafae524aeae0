"""The folder of a run: what its process tells is read once and whole, whatever broke off in between."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.settings import ROOT
from training.recipes import Recipe
from training.run_folder import RunFolder, Spec, last_good_checkpoint, write_whole

HOLD = """
import pathlib, sys
from training.run_folder import RunFolder
with RunFolder(pathlib.Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def kinds(folder: RunFolder, after: int = 0) -> list[str]:
    return [event.data["kind"] for event in folder.events(after)]


def leave(folder: RunFolder, cut: bytes) -> None:
    """Write what a process leaves that is killed while it writes."""
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(cut)


def checkpoint(folder: Path, step: int, state: str | None = "{}") -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def test_a_spec_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "año-1")
    spec = Spec("año-1", "starter", "models/starter", "rows.jsonl", "ab12", Recipe(epochs=2.0, rank=4), "cpu")
    folder.write_spec(spec)

    assert folder.spec() == spec
    assert [path.name for path in folder.path.iterdir()] == ["spec.json"]


def test_what_is_told_is_read_in_order(folder: RunFolder) -> None:
    folder.append("started", steps=2)
    folder.append("progress", step=1, loss=None, note="ñ\u2028\n")
    first, second = folder.events()

    assert (first.data["kind"], first.data["steps"]) == ("started", 2)
    assert (second.data["step"], second.data["loss"], second.data["note"]) == (1, None, "ñ\u2028\n")
    assert first.data["time"] <= second.data["time"]
    assert second.end == (folder.path / "events.jsonl").stat().st_size


def test_reading_goes_on_where_it_was(folder: RunFolder) -> None:
    folder.append("a")
    folder.append("b")
    ends = [event.end for event in folder.events()]
    folder.append("c")

    assert kinds(folder, ends[0]) == ["b", "c"]
    assert kinds(folder, ends[1]) == ["c"]
    assert [event.end for event in folder.events(ends[0])] == [event.end for event in folder.events()][1:]
    assert kinds(folder, 10_000) == []


def test_nothing_told_is_no_event(folder: RunFolder, tmp_path: Path) -> None:
    assert kinds(folder) == []
    assert kinds(RunFolder(tmp_path / "none")) == []


def test_a_line_that_is_not_whole_yet_is_left_for_later(folder: RunFolder) -> None:
    folder.append("a")
    end = next(folder.events()).end
    leave(folder, b'{"kind": "b"')
    assert kinds(folder) == ["a"]
    leave(folder, b"}")
    assert kinds(folder, end) == []
    leave(folder, b"\n")

    assert kinds(folder, end) == ["b"]


@pytest.mark.parametrize("cut", [b'{"kind": "cut", "text": "\xc3', b"{", b"\0\0\0\0", b'{"kind": "cut"'])
def test_after_a_broken_line_the_next_begins_anew(folder: RunFolder, cut: bytes) -> None:
    folder.append("a")
    leave(folder, cut)
    folder.append("b")
    folder.append("c")
    events = list(folder.events())

    assert [event.data["kind"] for event in events] == ["a", "b", "c"]
    assert events[-1].end == (folder.path / "events.jsonl").stat().st_size
    assert kinds(folder, events[0].end) == ["b", "c"]


def test_a_line_that_lacks_only_its_end_is_not_lost(folder: RunFolder) -> None:
    leave(folder, b'{"kind": "a"}')
    folder.append("b")

    assert kinds(folder) == ["a", "b"]


def test_events_may_be_read_while_they_are_written(folder: RunFolder) -> None:
    def write() -> None:
        for step in range(100):
            folder.append("progress", step=step)

    writing = threading.Thread(target=write)
    writing.start()
    seen: list[int] = []
    after = 0
    while len(seen) < 100:
        for event in folder.events(after):
            after = event.end
            seen.append(event.data["step"])
    writing.join()

    assert seen == list(range(100))


def test_the_wish_to_stop_can_be_taken_back(folder: RunFolder) -> None:
    assert not folder.shall_stop()
    folder.forget_stop()
    folder.ask_to_stop()
    folder.ask_to_stop()
    assert folder.shall_stop()
    folder.forget_stop()

    assert not folder.shall_stop()


def test_a_run_lives_as_long_as_its_process(folder: RunFolder) -> None:
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    assert not folder.is_alive()
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        alive = [folder.is_alive(), RunFolder(folder.path).is_alive()]
        process.kill()
        process.wait(30)

    assert alive == [True, True]
    assert not folder.is_alive()


def test_a_run_in_this_process_lives_too(folder: RunFolder) -> None:
    with folder.lock():
        assert folder.is_alive()

    assert not folder.is_alive()


def test_a_run_without_a_folder_does_not_live(tmp_path: Path) -> None:
    assert not RunFolder(tmp_path / "none").is_alive()


def test_the_newest_checkpoint_is_found_by_its_number(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        checkpoint(tmp_path, step)

    assert last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


@pytest.mark.parametrize("state", [None, "", '{"global_step": 1', "\0\0\0"])
def test_a_checkpoint_that_broke_off_is_passed_over(tmp_path: Path, state: str | None) -> None:
    good = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 20, state)

    assert last_good_checkpoint(tmp_path) == good


def test_without_a_good_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert last_good_checkpoint(tmp_path / "none") is None
    checkpoint(tmp_path, 10, None)

    assert last_good_checkpoint(tmp_path) is None


def test_a_text_replaces_the_one_before_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", json.dumps({"a": 1}))
    write_whole(tmp_path / "a.json", "ñ")

    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "ñ"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
