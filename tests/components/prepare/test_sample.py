"""The sample data set is what its page says: fixed, unbalanced, mislabelled here and there, asked in unseen words."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tuneline.config import DataConfig
from tuneline.errors import InputError
from tuneline.prepare.sample import (
    CLOSINGS,
    INTENTS,
    NOISE_SHARE,
    OPENINGS,
    ROWS,
    THINGS,
    TYPO_SHARE,
    URI,
    fingerprint,
    rows,
)
from tuneline.prepare.sources import open_source

SPLITS = {split: list(rows(URI, split)) for split in ROWS}


def fragment(way: str) -> str:
    """The longest stretch of words that stands in every text made from this way to ask."""
    return max(way.split("{thing}"), key=len).strip()


SEEN = {fragment(way): intent for intent, (_, ways) in INTENTS.items() for way in ways[: len(ways) // 2]}
UNSEEN = {fragment(way): intent for intent, (_, ways) in INTENTS.items() for way in ways[len(ways) // 2 :]}


def mislabelled(split: str) -> tuple[int, int]:
    """Rows whose words tell one intent, and how many of these carry another label."""
    told = [
        (row["label"], {intent for words, intent in (SEEN | UNSEEN).items() if words in row["text"]})
        for row in SPLITS[split]
    ]
    clear = [(label, intents) for label, intents in told if len(intents) == 1]
    return len(clear), sum(label not in intents for label, intents in clear)


@pytest.mark.parametrize("split", ROWS)
def test_a_split_is_the_same_each_time(split):
    assert list(rows(URI, split)) == SPLITS[split]
    assert len(SPLITS[split]) == ROWS[split]


def test_splits_differ():
    assert len({str(part[:100]) for part in SPLITS.values()}) == len(SPLITS)


@pytest.mark.parametrize("split", ROWS)
def test_every_intent_occurs_in_every_split(split):
    assert {row["label"] for row in SPLITS[split]} == set(INTENTS)


@pytest.mark.parametrize("split", ROWS)
def test_some_intents_are_much_more_frequent_than_others(split):
    counts = Counter(row["label"] for row in SPLITS[split])
    assert counts["refund"] > 3 * counts["praise"]


def test_a_few_training_rows_carry_a_wrong_label():
    clear, wrong = mislabelled("train")
    assert clear > ROWS["train"] / 2
    assert wrong / clear == pytest.approx(NOISE_SHARE, abs=0.02)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_no_held_out_row_carries_a_wrong_label(split):
    clear, wrong = mislabelled(split)
    assert clear > ROWS[split] / 2
    assert wrong == 0


def test_held_out_rows_ask_in_ways_that_no_training_row_does():
    def using(ways: dict[str, str], split: str) -> int:
        return sum(any(words in row["text"] for words in ways) for row in SPLITS[split])

    assert using(UNSEEN, "train") == 0
    assert using(SEEN, "train") > ROWS["train"] / 2
    assert using(UNSEEN, "test") > ROWS["test"] / 4
    assert using(SEEN, "test") > ROWS["test"] / 4


@pytest.mark.parametrize("split", ROWS)
def test_some_words_are_mistyped(split):
    written = [way.replace("{thing}", "") for _, ways in INTENTS.values() for way in ways]
    known = set(re.findall(r"\w+", " ".join([*written, *THINGS, *OPENINGS, *CLOSINGS])))
    words = re.findall(r"\w+", " ".join(row["text"] for row in SPLITS[split]))
    assert 0.01 < sum(word not in known for word in words) / len(words) < TYPO_SHARE


def test_the_sample_is_read_like_any_source():
    source = open_source(URI, "test", DataConfig(train=URI))
    assert source.version == fingerprint(URI)
    assert [row for batch in source.batches for row in batch.to_pylist()] == SPLITS["test"]


@pytest.mark.parametrize("ask", [lambda: list(rows("sample:desk", "train")), lambda: fingerprint("sample:desk")])
def test_an_unknown_sample_is_refused_with_the_one_there_is(ask):
    with pytest.raises(InputError, match=r"^sample:desk: no such sample; allowed: sample:support_desk$"):
        ask()


def test_the_fingerprint_is_fixed():
    assert fingerprint(URI) == fingerprint(URI)
    assert len(fingerprint(URI)) == 64
