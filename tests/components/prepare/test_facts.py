"""The facts of a text do not depend on its neighbours, and tell apart what differs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuneline import clean
from tuneline.prepare import facts

TEXTS = st.lists(st.text(max_size=40), min_size=1, max_size=20)


@given(TEXTS, st.integers(0, 20))
def test_the_borders_of_a_chunk_change_nothing(texts, border):
    whole = facts.examine(texts, None, 0.8)
    parts = [facts.examine(part, None, 0.8) for part in (texts[:border], texts[border:]) if part]
    for key, values in whole.items():
        np.testing.assert_array_equal(values, np.concatenate([part[key] for part in parts]))


@given(TEXTS)
def test_the_fast_path_flags_what_the_patterns_find_text_by_text(texts):
    texts = [*texts, "a<br>b", "x@y.org 877-927-8767 4111111111111111", "caf\xc3\xa9", "\x07", " \u3000", ""]
    found = facts.flags(texts, None)
    for text, flags in zip(texts, found.tolist(), strict=True):
        assert bool(flags & facts.EMPTY) == (not clean.CONTROL.sub("", text).strip())
        assert bool(flags & facts.CONTROL) == bool(clean.CONTROL.search(text))
        assert bool(flags & facts.MOJIBAKE) == clean.is_mojibake(text)
        assert bool(flags & facts.MARKUP) == clean.has_markup(text)
        assert bool(flags & facts.EMAIL) == bool(clean.EMAIL.search(text))
        assert bool(flags & facts.PHONE) == bool(clean.PHONE.search(text))
        assert bool(flags & facts.CARD) == clean.has_card(text)


@given(TEXTS)
def test_equal_hashes_mean_equal_texts(texts):
    found = facts.examine(texts, None, 0.0)
    for key, form in (("exact", texts), ("folded", [facts.fold(text) for text in texts])):
        assert len(set(found[key].tolist())) == len(set(form))


def test_folding_ignores_case_blanks_and_compatibility_forms_and_nothing_else():
    assert facts.fold(" Straße\u00a0\n ＡＢＣ ﬁne ") == facts.fold("STRASSE abc FINE")
    assert facts.fold("résumé") != facts.fold("resume")
    assert facts.fold("a b") != facts.fold("ab")


def test_pairs_are_hashed_as_pairs_and_counted_together():
    found = facts.examine(["ab", "a", "ab"], ["c", "bc", "c"], 0.0)
    assert found["exact"][0] == found["exact"][2] != found["exact"][1]
    assert found["folded"][0] != found["folded"][1]
    assert found["chars"].tolist() == [3, 3, 3]
    assert facts.flags(["a", "b"], [" ", "x@y.org"]).tolist() == [facts.EMPTY, facts.EMAIL]


def test_flags_of_the_text_as_it_came_are_kept_except_that_it_was_empty():
    raw = facts.flags(["<br />", "<b>x</b>"], None)
    found = facts.examine([" ", "x"], None, 0.0, raw)
    assert found["flags"].tolist() == [facts.MARKUP | facts.EMPTY, facts.MARKUP]


def test_another_process_gives_the_same_facts():
    texts = ["one two three four", "five", "Привет"]
    code = (
        "from tuneline.prepare import facts; "
        f"print({{k: v.tolist() for k, v in facts.examine({texts!r}, None, 0.8).items()}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = {key: values.tolist() for key, values in facts.examine(texts, None, 0.8).items()}
    assert done.stdout.strip() == str(here)
