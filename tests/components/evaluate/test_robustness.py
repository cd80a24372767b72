"""Probes change a text as they say, always alike, and count the answers that flip."""

from __future__ import annotations

import numpy as np
import pytest

from tuneline.evaluate.robustness import PROBES, perturb, probe, sample

TEXT = "Where is my parcel, please? It was due on Monday."


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("lower", "where is my parcel, please? it was due on monday."),
        ("upper", "WHERE IS MY PARCEL, PLEASE? IT WAS DUE ON MONDAY."),
        ("punctuation", "Where is my parcel please It was due on Monday"),
    ],
)
def test_case_and_punctuation(name, wanted):
    assert perturb(name, [TEXT, "?!"])[0] == wanted


def test_a_text_of_punctuation_alone_is_not_emptied():
    assert perturb("punctuation", ["?!", "a!"]) == ["?!", "a"]


def test_whitespace_changes_and_words_stay():
    (changed,) = perturb("whitespace", [TEXT])
    assert changed != TEXT
    assert changed.split() == TEXT.split()


def test_typos_befall_few_letters():
    long = TEXT * 10
    (changed,) = perturb("typos", [long])
    assert changed != long
    assert abs(len(changed) - len(long)) < 20
    kept = sum(one == two for one, two in zip(long.split(), changed.split(), strict=False))
    assert 0.6 * len(long.split()) < kept < len(long.split())
    assert perturb("typos", ["a", "", "12"]) != ["a", "", "12"]
    assert perturb("typos", ["", "12"]) == ["", "12"]


@pytest.mark.parametrize("name", PROBES)
def test_a_text_is_changed_alike_wherever_it_stands(name):
    assert perturb(name, [TEXT, "other"])[0] == perturb(name, ["other", "more", TEXT])[2]


def test_flips_are_counted_of_the_texts_that_changed():
    texts = ["Good", "good", "GOOD", "bad"]
    answers = np.array([1, 1, 1, 0])
    asked = []

    def predict(changed, places):
        asked.append((changed, places))
        return np.array([int("good" in text) for text in changed])

    found = {row["name"]: row for row in probe(texts, answers, predict)}
    assert asked[0] == (["good", "good"], [0, 2])
    assert (found["lower"]["n"], found["lower"]["flipped"]) == (2, 0.0)
    assert (found["upper"]["n"], found["upper"]["flipped"]) == (3, pytest.approx(2 / 3))
    assert (found["punctuation"]["n"], found["punctuation"]["flipped"], found["punctuation"]["high"]) == (0, 0.0, 1.0)


def test_a_sample_is_drawn_by_content_and_not_by_place():
    keys = np.array([50, 10, 40, 20, 30], np.uint64)
    assert sample(keys, 3).tolist() == [1, 3, 4]
    assert set(keys[::-1][sample(keys[::-1], 3)]) == {10, 20, 30}
    assert sample(keys, 9).tolist() == [0, 1, 2, 3, 4]
