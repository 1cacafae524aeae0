"""The starter's texts: what training may see, how it is varied, and the questions that are kept out of it."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random
from typing import get_args

import pytest

from core.guide import answers
from training.replay import questions as replayed_questions
from training.starter.corpus import Corpus
from training.starter.held_out import QuestionSet, is_held_out, load_held_out
from training.starter.noise import loosen, rephrase
from training.starter.phrases import LANGUAGES, Language, load_intents, load_wordings, normalise
from training.starter.questions import questions
from training.starter.skills import FACTS, load_skills
from training.starter.topics import load_topics


def test_held_out_questions_are_not_in_the_corpus() -> None:
    corpus = Corpus(seed=1)
    for conversation in (corpus.conversation() for _ in range(10_000)):
        assert not any(is_held_out(turn.question) for turn in conversation.turns)
        assert not (conversation.system and is_held_out(conversation.system))


def test_held_out_wordings_are_known_by_their_words_and_slots() -> None:
    assert is_held_out("SO WHAT IS YOUR NAME")  # Of the validation set.
    assert is_held_out("cual es tu nombre bot")
    assert is_held_out("12 plus 30, please!")
    assert not is_held_out("12 plus 30")


def test_corpus_is_the_same_for_the_same_seed() -> None:
    first, second, other = (list(islice(Corpus(seed), 50)) for seed in (5, 5, 6))
    assert first == second != other


def test_both_languages_know_the_same_things() -> None:
    english, spanish = ([intent.name for intent in load_intents(language)] for language in LANGUAGES)
    assert english == spanish
    assert list(answers("en")) == list(answers("es"))
    sets = [
        {section: list(rows) for section, rows in load_held_out(language, name).items()}
        for language in LANGUAGES
        for name in get_args(QuestionSet)
    ]
    assert all(each == sets[0] for each in sets)
    assert set(sets[0]["topics"]) == set(answers("en"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_wording_is_in_both_sets(language: Language) -> None:
    held_out, validation = (
        {normalise(each) for rows in load_held_out(language, name).values() for some in rows.values() for each in some}
        for name in get_args(QuestionSet)
    )
    assert not held_out & validation


def test_replayed_questions_are_not_held_out() -> None:
    assert not [question for question in replayed_questions() if is_held_out(question)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_the_wordings_belong_to_is_there(language: Language) -> None:
    wordings = load_wordings(language)
    known = {
        "topics": {topic.name for topic in load_topics(language)},
        "intents": {intent.name for intent in load_intents(language)},
        "skills": set(load_skills(language)),
        "tells": set(FACTS),
        "systems": {"persona", "english", "spanish"},
        "unknown": {"any", "live", "maths"},
    }
    assert {section: set(rows) - known[section] for section, rows in wordings.items()} == {
        name: set() for name in known
    }
    templates = [text for rows in wordings.values() for some in rows.values() for text in some]
    assert not [text for text in templates if text.count("(") != text.count(")")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_wording_stands_twice_in_its_row(language: Language) -> None:
    rows = [some for rows in load_wordings(language).values() for some in rows.values()]
    rows += [intent.asks for intent in load_intents(language)]
    assert not [text for some in rows for text, times in Counter(some).items() if times > 1]


def test_synonyms_leave_slots_alone_and_change_whole_words_only() -> None:
    rng = Random(1)
    said = {rephrase("what is <it> for my chats", "en", rng) for _ in range(200)}
    assert {"what is <it> for my chats", "what's <it> for my conversations"} <= said
    assert all("<it> for my" in text for text in said)
    assert {rephrase("whatever chatted", "en", rng) for _ in range(20)} == {"whatever chatted"}


def test_a_loosened_question_has_no_other_words() -> None:
    rng = Random(1)
    words = ["how", "do", "i", "change", "the", "model", "here"]
    said = [loosen(" ".join(words), rng).split() for _ in range(300)]
    assert all(set(each) <= set(words) for each in said)
    assert words in said
    assert any(len(each) < len(words) for each in said)


def test_there_are_enough_questions_about_the_product() -> None:
    about = [question for question in questions() if question.row == "simpleIA" and question.language == "en"]
    assert len({question.passing for question in about}) >= 120
    assert len(about) >= 240
