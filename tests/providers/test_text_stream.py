"""Text comes in whole characters and ends before a stop sequence, however the tokens fall."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, product

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from providers.text_stream import TextStream


@cache
def byte_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


@cache
def piece_tokenizer(pieces: tuple[str, ...]) -> Tokenizer:
    """Return a tokenizer whose token `i` is exactly `pieces[i]`."""
    vocabulary = {f"{number}\N{IDEOGRAPHIC SPACE}{piece}": number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=next(iter(vocabulary))))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex("^[0-9]+\N{IDEOGRAPHIC SPACE}"), ""),
            decoders.Fuse(),
        ]
    )
    return tokenizer


def written(text: str, stop: Sequence[str]) -> tuple[list[str], bool]:
    """Write `text` byte by byte; return the pieces that came out and whether a stop sequence ended it."""
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer, stop)
    pieces = []
    for token in tokenizer.encode(text).ids:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    pieces.append(stream.flush())
    return pieces, stream.stopped


def written_in(pieces: Sequence[str], stop: Sequence[str]) -> tuple[str, bool]:
    """Write the tokens `pieces`; return the text and whether a stop sequence ended it."""
    stream = TextStream(piece_tokenizer(tuple(pieces)), stop)
    out = ""
    for token in range(len(pieces)):
        out += stream.push(token)
        if stream.stopped:
            break
    return out + stream.flush(), stream.stopped


def splits(text: str) -> Iterator[list[str]]:
    """Yield every way to cut `text` into pieces."""
    for count in range(len(text)):
        for cuts in combinations(range(1, len(text)), count):
            edges = (0, *cuts, len(text))
            yield [text[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def until_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return what a reader who sees letter by letter has before the first stop sequence is complete."""
    for end in range(1, len(text) + 1):
        starts = [end - len(sequence) for sequence in stop if text[:end].endswith(sequence)]
        if starts:
            return text[: min(starts)], True
    return text, False


@pytest.mark.parametrize(
    "text",
    [
        "Hello",
        "¿Qué tal, señor Núñez?",
        "日本語のテキスト",
        "👋🏽 family: 👨‍👩‍👧‍👦 flag: 🇪🇸",
        "e\u0301 a\u0308 \u200f\u05d0",
        "\n\t  def f():\n        return 1\n",
        "\x00\x1b",
    ],
)
def test_bytes_come_out_as_whole_characters(text: str) -> None:
    pieces, stopped = written(text, ())

    assert "".join(pieces) == text
    assert not stopped
    assert all("\ufffd" not in piece for piece in pieces)
    assert len([piece for piece in pieces if piece]) == len(text), "each character comes as soon as it is whole"


def test_an_answer_cut_inside_a_character_ends_before_it() -> None:
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer)
    tokens = tokenizer.encode("ok 👋").ids

    assert "".join(stream.push(token) for token in tokens[:-1]) + stream.flush() == "ok "


def test_special_tokens_are_no_text() -> None:
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer)
    (end,) = tokenizer.encode("<|end|>").ids

    assert "".join(stream.push(token) for token in [end, *tokenizer.encode("hi").ids, end]) == "hi"


@pytest.mark.parametrize("stop", ["l", "lo", "lo w", "world", "Hello", "d", "\n", "👋", "o wörld"])
def test_nothing_of_a_stop_sequence_comes_out(stop: str) -> None:
    text = f"Hello wörld {stop}! and more"
    pieces, stopped = written(text, [stop])

    assert "".join(pieces) == text[: text.index(stop)]
    assert stopped


def test_only_what_could_be_a_stop_sequence_is_held_back() -> None:
    pieces, stopped = written("abXabYabZ", ["abZ"])

    assert pieces[:9] == ["", "", "abX", "", "", "abY", "", "", ""]
    assert stopped


def test_what_was_held_back_comes_at_the_end() -> None:
    assert "".join(written("so far User", ["\nUser:", "User:"])[0]) == "so far User"


@pytest.mark.parametrize(
    "stop",
    [("aab",), ("ab", "ba"), ("aa",), ("aba", "b"), ("b",), ("abab",), ("aaa", "bb"), ("ab", "abb"), ("bab", "aa")],
    ids=str,
)
def test_how_the_tokens_fall_changes_nothing(stop: tuple[str, ...]) -> None:
    for letters in product("ab", repeat=6):
        text = "".join(letters)
        expected = until_stop(text, stop)
        for pieces in splits(text):
            assert written_in(pieces, stop) == expected, (pieces, stop)


def test_nothing_comes_after_a_stop() -> None:
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer, ["."])
    pieces = [stream.push(token) for token in tokenizer.encode("One. Two.").ids]

    assert "".join(pieces) + stream.flush() == "One"
