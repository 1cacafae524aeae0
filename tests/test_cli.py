"""The commands in a terminal, as a person runs them."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import cli
from core.settings import ROOT
from tests.tiny_models import make_adapter, make_chat_model

GREEDY = ("--set", "max_tokens=12", "--set", "temperature=0")
FIGURES = re.compile(r"\[(\S+): (\d+) tokens, [\d.]+ tokens/s, turn ([0-9a-f]{32})\]\n")
ROWS = "".join(json.dumps({"prompt": f"question {n}", "completion": f"answer {n}"}) + "\n" for n in range(8))


class Outcome(NamedTuple):
    """What a command left: its exit status, and what it wrote on each stream."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DATA_DIR with the model `tiny`, which is the default, in the environment."""
    data = tmp_path / "data"
    make_chat_model(data / "models" / "tiny")
    for name, value in {"DATA_DIR": str(data), "DEFAULT_MODEL": "tiny", "DEVICE": "cpu"}.items():
        monkeypatch.setenv(name, value)
    return data


@pytest.fixture
def simpleia(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `python cli.py` with these arguments and this input, within this process."""

    def run(*arguments: str, piped: str | bytes = "") -> Outcome:
        content = piped.encode() if isinstance(piped, str) else piped
        monkeypatch.setattr(sys, "argv", ["cli.py", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        with pytest.raises(SystemExit) as end:
            cli.main()
        written = capsys.readouterr()
        if isinstance(end.value.code, str):  # Python itself prints it.
            return Outcome(1, written.out, f"{written.err}{end.value.code}\n")
        return Outcome(end.value.code or 0, written.out, written.err)

    return run


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Let started processes hear Ctrl-C: a job in a shell's background ignores it, and so does all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Run `python cli.py` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "cli.py", *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def turn_of(outcome: Outcome) -> str:
    """Return the turn id that an answer's figures tell."""
    found = FIGURES.search(outcome.err)
    assert found, outcome
    return found[3]


def exported(simpleia: Command, *options: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in simpleia("feedback", "export", *options).out.splitlines()]


def imported(simpleia: Command, tmp_path: Path, content: str = ROWS) -> str:
    """Import rows; return the dataset's id."""
    file = tmp_path / "rows.jsonl"
    file.write_text(content, encoding="utf-8")
    return simpleia("dataset", "import", str(file)).out.split()[0]


def assert_refused(outcome: Outcome, *sentences: str) -> None:
    assert outcome.status == 1, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert outcome.err.rstrip("\n").splitlines()[-1] == " ".join(sentences)


def test_ask_prints_the_answer_and_on_the_other_stream_its_figures(simpleia: Command) -> None:
    outcome = simpleia("ask", "Hola,", "¿qué tal?", *GREEDY)

    assert outcome.status == 0
    assert outcome.out.endswith("\n")
    assert outcome.out.strip()
    figures = FIGURES.fullmatch(outcome.err)
    assert figures, outcome.err
    assert figures[1] == "transformers/tiny"
    assert int(figures[2]) <= 12
    assert simpleia("ask", "Hola, ¿qué tal?", *GREEDY).out == outcome.out


def test_what_is_piped_in_is_added_to_the_message(simpleia: Command) -> None:
    both = simpleia("ask", "What is this?", *GREEDY, piped="a file\nof two lines\n")

    assert both.out == simpleia("ask", "What is this?\n\na file\nof two lines", *GREEDY).out
    assert both.out != simpleia("ask", "What is this?", *GREEDY).out
    assert simpleia("ask", *GREEDY, piped="What is this?\n").out == simpleia("ask", "What is this?", *GREEDY).out


def test_the_system_prompt_and_the_model_are_heard(simpleia: Command, data_dir: Path) -> None:
    make_chat_model(data_dir / "models" / "other", seed=1)
    plain = simpleia("ask", "x", *GREEDY)

    assert simpleia("ask", "x", *GREEDY, "--system", "Be brief.").out != plain.out
    assert simpleia("ask", "x", *GREEDY, "-m", "other").err.startswith("[transformers/other: ")
    assert simpleia("ask", "x", *GREEDY, "-m", str(data_dir / "models" / "tiny")).out == plain.out


def test_set_takes_numbers_and_several_stop_texts(simpleia: Command) -> None:
    whole = simpleia("ask", "x", *GREEDY).out
    cut = simpleia("ask", "x", *GREEDY, "--set", "stop=never", "--set", f"stop={whole[4:6]}").out

    assert cut.rstrip("\n") == whole[: whole.index(whole[4:6])]
    assert simpleia("ask", "x", *GREEDY, "--set", "max_tokens=3").err.startswith("[transformers/tiny: 3 tokens")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("temperature=3", "temperature must be a number from 0 to 2, not 3."),
        ("temperature=nan", "temperature must be a number from 0 to 2, not nan."),
        ("temperature=hot", "temperature must be a number from 0 to 2, not str."),
        ("temperature", "temperature must be a number from 0 to 2, not str."),
        ("max_tokens=1.5", "max_tokens must be a whole number from 1 to 131072, not 1.5."),
        ("max_tokens=1e999", "max_tokens must be a whole number from 1 to 131072, not inf."),
        (f"max_tokens={'9' * 5000}", "max_tokens must be a whole number from 1 to 131072, not inf."),
        (f"stop={'x' * 201}", "stop takes at most 16 texts of at most 200 characters."),
    ],
)
def test_a_wrong_value_is_a_sentence(simpleia: Command, value: str, sentence: str) -> None:
    assert_refused(simpleia("ask", "x", "--set", value), sentence)
    assert_refused(simpleia("chat", "--set", value, piped="x\n"), sentence)


def test_an_unknown_parameter_is_told_with_those_that_there_are(simpleia: Command) -> None:
    outcome = simpleia("ask", "x", "--set", "heat=1")

    assert outcome.status == 1
    assert outcome.err.startswith("There is no parameter heat. The parameters are: temperature, max_tokens, ")


def test_what_cannot_be_asked_is_a_sentence(simpleia: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = ("The message is empty.", "Write something first.")
    assert_refused(simpleia("ask"), *empty)
    assert_refused(simpleia("ask", " ", piped=" \n"), *empty)
    assert_refused(
        simpleia("ask", "x", "-m", "./nowhere"),
        "There is no folder nowhere.",
        "Check the path; it must be a folder on the machine that runs simpleIA.",
    )
    assert_refused(
        simpleia("ask", "x", "-m", "tuned/nothing"),
        "There is no tuned model nothing.",
        "Choose one of the list; a run has one when it finished or was stopped.",
    )
    assert_refused(
        simpleia("ask", piped=b"\xff\xfea picture"), "The input is not UTF-8 text (byte 0).", "Save it as UTF-8."
    )
    monkeypatch.setenv("DEVICE", "toaster")
    assert_refused(simpleia("ask", "x"), "DEVICE must be auto, cpu, cuda, cuda:N or mps, not 'toaster'.")


def test_chat_answers_each_line_until_an_empty_one(simpleia: Command) -> None:
    outcome = simpleia("chat", *GREEDY, piped="one\ntwo\n\nthree\n")

    assert outcome.status == 0
    assert len(FIGURES.findall(outcome.err)) == 2
    assert outcome.out.count("> ") >= 3
    assert outcome.out.startswith("> " + simpleia("ask", "one", *GREEDY).out)
    assert simpleia("ask", "two", *GREEDY).out not in outcome.out, "the second line is asked without the first"


def test_chat_ends_with_its_input_and_says_what_it_cannot_read(simpleia: Command) -> None:
    outcome = simpleia("chat", *GREEDY, piped="one\n  two  ")
    assert outcome.status == 0
    assert len(FIGURES.findall(outcome.err)) == 2

    assert simpleia("chat", piped="").status == 0
    broken = simpleia("chat", *GREEDY, piped=b"\xff\n")
    assert broken.status == 1
    assert broken.err == "The input is not UTF-8 text (byte 0). Save it as UTF-8.\n"


def test_the_turns_of_a_chat_are_one_conversation(simpleia: Command) -> None:
    for _ in range(2):
        outcome = simpleia("chat", *GREEDY, piped="one\ntwo\n")
        for _, _, turn in FIGURES.findall(outcome.err):
            assert simpleia("feedback", "give", turn, "--rating", "up").status == 0
    said = exported(simpleia)

    assert len(said) == len({row["turn_id"] for row in said}) == 4
    assert len({row["conversation_id"] for row in said}) == 2
    assert sorted(len(row["messages"]) for row in said) == [1, 1, 3, 3]  # type: ignore[arg-type]


def test_feedback_is_given_listed_changed_and_taken_back(simpleia: Command) -> None:
    turn = turn_of(simpleia("ask", "¿Quién   eres?", *GREEDY))
    assert simpleia("feedback", "list") == Outcome(0, "", "")
    given = simpleia("feedback", "give", turn, "--rating", "down", "--comment", "No", "--correction", "Soy simpleIA.")
    assert given == Outcome(0, "", "")
    line = simpleia("feedback", "list").out

    assert line.startswith(f"{turn}  ¿Quién eres? -> ")
    assert line.endswith("  [down | Soy simpleIA. | No]\n")
    assert simpleia("feedback", "list", "--kind", "corrected", "--words", "SIMPLEIA").out == line
    assert simpleia("feedback", "list", "--kind", "up").out == ""
    assert simpleia("feedback", "list", "--words", "nothing").out == ""
    simpleia("feedback", "give", turn, "--rating", "up")
    assert simpleia("feedback", "list", "--kind", "up").out.endswith("  [up | Soy simpleIA. | No]\n")
    simpleia("feedback", "give", turn, "--rating", "", "--comment", "", "--correction", "")
    assert simpleia("feedback", "list").out == ""


def test_long_texts_are_cut_in_the_list_and_whole_in_the_export(simpleia: Command) -> None:
    turn = turn_of(simpleia("ask", "word " * 40, *GREEDY))
    correction = "much better\n" * 20
    simpleia("feedback", "give", turn, "--correction", correction)
    (line,) = simpleia("feedback", "list").out.splitlines()

    assert len(line) < 32 + 3 * 60 + 20
    assert "…" in line
    assert exported(simpleia)[0]["correction"] == correction


def test_feedback_that_is_refused_says_why(simpleia: Command) -> None:
    turn = turn_of(simpleia("ask", "x", *GREEDY))
    give = ("feedback", "give", turn)

    assert_refused(
        simpleia("feedback", "give", "nothing", "--rating", "up"),
        "There is no answer nothing of yours.",
        "Give the turn_id that came with the answer.",
    )
    assert_refused(simpleia(*give), "The feedback is empty.", "Give a rating, a comment, a correction or tags.")
    assert_refused(simpleia(*give, "--rating", "sideways"), 'rating must be "up", "down", or empty to take it back.')
    assert_refused(
        simpleia(*give, "--comment", "x" * 5001),
        "The comment has 5001 characters, and at most 5000 are kept.",
        "Shorten it.",
    )
    assert_refused(
        simpleia("feedback", "list", "--kind", "odd"), 'kind must be "up", "down", "corrected", or empty for all.'
    )
    assert simpleia("feedback", "list").out == ""


def test_feedback_that_is_exported_is_read_back_elsewhere(
    simpleia: Command, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, options in enumerate((("--rating", "up"), ("--correction", "Mejor: ñ 👋\nsí"), ("--comment", "a|b"))):
        simpleia("feedback", "give", turn_of(simpleia("ask", f"¿Pregunta {number}?", *GREEDY)), *options)
    lines = simpleia("feedback", "export").out
    assert len(exported(simpleia, "--kind", "corrected")) == 1
    file = tmp_path / "feedback.jsonl"
    file.write_text(lines + "not json\n\n" + '{"messages": 3}\n', encoding="utf-8")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "elsewhere"))
    outcome = simpleia("feedback", "import", str(file))

    assert outcome.status == 0
    assert outcome.out == "3 rows imported.\n"
    assert outcome.err.splitlines() == [
        "row 4: The row is not JSON; it breaks at character 1.",
        "row 6: messages must be a list of roles and contents.",
    ]

    def without_order(text: str) -> list[str]:
        rows = (json.loads(line) | {"created_at": 0} for line in text.splitlines())
        return sorted(json.dumps(row, sort_keys=True) for row in rows)

    again = simpleia("feedback", "export").out
    assert without_order(again) == without_order(lines)
    assert simpleia("feedback", "import", str(file)).out == "3 rows imported.\n"
    assert without_order(simpleia("feedback", "export").out) == without_order(lines)


def test_a_file_that_holds_no_feedback_is_refused(simpleia: Command, tmp_path: Path) -> None:
    file = tmp_path / "feedback.jsonl"
    file.write_bytes(b"")
    assert_refused(
        simpleia("feedback", "import", str(file)),
        "The file holds no feedback: The file is empty.",
        "Give a file that was exported here.",
    )
    file.write_bytes(b"ab\xff")
    assert_refused(
        simpleia("feedback", "import", str(file)), "The file is not UTF-8 text (byte 2).", "Save it as UTF-8."
    )
    missing = simpleia("feedback", "import", str(tmp_path / "nothing"))
    assert missing.status == 2
    assert "Invalid value" in missing.err


def test_a_dataset_is_imported_with_an_error_for_each_bad_row(simpleia: Command, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{ROWS}{{"prompt": "only"}}\nbroken\n{ROWS.splitlines()[0]}\n', encoding="utf-8")
    outcome = simpleia("dataset", "import", str(file))
    dataset_id = outcome.out.split()[0]

    assert outcome.status == 0
    assert outcome.out == f"{dataset_id}  7 rows to learn, 1 held out\n"
    assert outcome.err.splitlines() == [
        "row 9: The row has no completion; its columns are prompt.",
        "row 10: The row is not JSON; it breaks at character 1.",
    ]
    assert simpleia("dataset", "list").out == f"{dataset_id}  rows.jsonl  7 to learn, 1 held out\n"


def test_a_dataset_of_few_rows_warns_and_one_of_none_is_refused(simpleia: Command, tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("one line\nanother line\n", encoding="utf-8")
    outcome = simpleia("dataset", "import", str(file), "--name", "Mine")
    assert outcome.out.endswith("  2 rows to learn, 0 held out\n")
    assert outcome.err.startswith("(With fewer than 5 conversations all rows are trained on")
    assert "  Mine  2 to learn" in simpleia("dataset", "list").out

    file.write_text('{"prompt": "only"}\n', encoding="utf-8")
    refused = simpleia("dataset", "import", str(file))
    assert refused.status == 1
    assert refused.err.startswith("The dataset is empty: The row has no completion; its columns are prompt. ")


def test_a_dataset_is_built_of_corrections_and_of_what_was_rated_up(simpleia: Command) -> None:
    refused = simpleia("dataset", "build")
    assert refused.status == 1
    assert refused.err.startswith("The dataset would be empty. Correct some answers in the chat first")
    first, second = (turn_of(simpleia("ask", question, *GREEDY)) for question in ("one", "two"))
    simpleia("feedback", "give", first, "--correction", "Better.")
    simpleia("feedback", "give", second, "--rating", "up")

    assert simpleia("dataset", "build").out.endswith("  1 rows to learn, 0 held out\n")
    assert simpleia("dataset", "build", "--thumbs-up", "--name", "All").out.endswith("  2 rows to learn, 0 held out\n")
    newest, oldest = simpleia("dataset", "list").out.splitlines()
    assert "  All  2 to learn" in newest
    assert "  feedback  1 to learn" in oldest


def test_the_preview_shows_what_is_learnt(simpleia: Command, tmp_path: Path) -> None:
    outcome = simpleia("dataset", "preview", imported(simpleia, tmp_path))

    assert outcome.status == 0
    assert len(re.findall(r"^--- row \d+, \d+ tokens(, held out)?$", outcome.out, re.MULTILINE)) == 5
    assert "question 0<|im_end|>\n<|im_start|>assistant\n【answer 0<|im_end|>】" in outcome.out
    assert_refused(
        simpleia("dataset", "preview", "nothing"),
        "There is no dataset nothing of yours.",
        "Choose one of the list, or build one.",
    )


def test_where_nothing_ran_there_is_nothing_to_list_stop_or_resume(simpleia: Command) -> None:
    unknown = ("There is no run nothing of yours.", "List your runs to see what there is.")

    assert simpleia("runs", "list") == Outcome(0, "", "")
    assert simpleia("dataset", "list") == Outcome(0, "", "")
    for command in ("stop", "resume", "show"):
        assert_refused(simpleia("runs", command, "nothing"), *unknown)


def test_what_cannot_be_trained_is_a_sentence_and_no_run(simpleia: Command, data_dir: Path, tmp_path: Path) -> None:
    dataset_id = imported(simpleia, tmp_path)
    make_adapter(data_dir / "runs" / "tiny-1", data_dir / "models" / "tiny", "tiny")

    assert_refused(
        simpleia("train", "nothing"), "There is no dataset nothing of yours.", "Choose one of the list, or build one."
    )
    assert_refused(
        simpleia("train", dataset_id, "--set", "epochs=many"), "epochs must be a number from 0.01 to 1000, not str."
    )
    assert_refused(
        simpleia("train", dataset_id, "--set", "rank=0"), "rank must be a whole number from 1 to 512, not 0."
    )
    assert_refused(
        simpleia("train", dataset_id, "--set", "stop=now"),
        "There is no setting stop.",
        "The settings are: epochs, learning_rate, rank, dropout, word_dropout, batch_size, max_length, replay, seed.",
    )
    assert_refused(
        simpleia("train", dataset_id, "-m", "tuned/tiny-1"),
        "tuned/tiny-1 is a tuned model.",
        "Fine-tune its base, tiny, on all the feedback instead.",
    )
    assert simpleia("runs", "list").out == ""


@pytest.mark.trains
def test_a_model_is_trained_shown_and_asked(simpleia: Command, tmp_path: Path) -> None:
    dataset_id = imported(simpleia, tmp_path)
    settings = ("--set", "epochs=1", "--set", "replay=0", "--set", "learning_rate=0.01", "--set", "batch_size=2")
    trained = simpleia("train", dataset_id, *settings, "--name", "Mi modelo")
    assert trained.status == 0, trained
    first, last = trained.out.splitlines()
    run = first.removeprefix("run ")

    assert re.fullmatch(r"mi-modelo-[0-9a-f]{6}", run)
    assert last == f"finished: tuned/{run}"
    assert re.search(r"^finished: step 4 of 4, loss \d+\.\d{3}$", trained.err, re.MULTILINE)
    assert simpleia("runs", "list").out == f"{run}  finished  transformers/tiny\n"
    shown = simpleia("runs", "show", run)
    assert shown.out == f"finished: tuned/{run}\n"
    assert "step 4 of 4" in shown.err
    asked = simpleia("ask", "question 1", *GREEDY, "--model", f"tuned/{run}")
    assert FIGURES.fullmatch(asked.err), asked.err
    assert asked.err.startswith(f"[tuned/{run}: ")
    assert asked.out != simpleia("ask", "question 1", *GREEDY).out
    assert_refused(simpleia("runs", "stop", run), f"The run {run} is not running: it is finished.")
    assert_refused(simpleia("runs", "resume", run), f"The run {run} cannot be resumed: it is finished.")


def test_help_names_every_command(simpleia: Command) -> None:
    shown = simpleia("--help").out

    assert all(name in shown for name in ("ask", "chat", "feedback", "dataset", "train", "runs"))
    assert simpleia("runs", "--help").status == 0
    assert simpleia("magic").status == 2


def test_a_process_answers_in_utf_8_where_the_system_speaks_ascii(data_dir: Path) -> None:
    process = start("ask", "¿Qué?", *GREEDY, "--set", "temperature=1.5", PYTHONIOENCODING="ascii")
    out, err = process.communicate("más".encode(), timeout=60)

    assert process.returncode == 0, err.decode()
    assert not out.isascii(), "random bytes are seldom a character"
    assert FIGURES.search(err.decode())
    assert out.decode()


def test_a_process_that_fails_says_a_sentence_and_its_status_is_1(data_dir: Path) -> None:
    process = start("runs", "stop", "nothing")
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (1, b"")
    assert err.decode() == "There is no run nothing of yours. List your runs to see what there is.\n"


def test_ctrl_c_ends_a_chat_that_waits_for_a_line(data_dir: Path) -> None:
    process = start("chat", *GREEDY)
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"one\n")
    process.stdin.flush()
    while not process.stdout.readline().startswith(b"> "):  # The answer is there, so it reads or soon will.
        pass
    try:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()

    assert process.returncode == 130
    assert b"Traceback" not in err
