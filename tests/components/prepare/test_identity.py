"""Two hashes of a split: one that the order of the rows changes, and one that it does not."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline.prepare.identity import Identity, frames, of_all

rows = st.lists(st.tuples(st.text(max_size=6), st.sampled_from(["pos", "neg"])), min_size=1, max_size=12)


def hashes(of: list[tuple[str, ...]], chunk: int = 5) -> tuple[str, str]:
    identity = Identity()
    for start in range(0, len(of), chunk):
        identity.add(*frames(list(zip(*of[start : start + chunk], strict=True))))
    return identity.ordered(), identity.unordered()


@given(rows, st.integers(1, 12), st.randoms(use_true_random=False))
def test_neither_depends_on_the_chunks_and_one_not_on_the_order(given_rows, chunk, draw):
    shuffled = draw.sample(given_rows, len(given_rows))
    ordered, unordered = hashes(given_rows)
    assert hashes(given_rows, chunk) == (ordered, unordered)
    assert hashes(shuffled, chunk)[1] == unordered
    assert (hashes(shuffled)[0] == ordered) == (shuffled == given_rows)


@given(rows, rows)
def test_other_rows_have_other_hashes(one, other):
    assert (hashes(one)[1] == hashes(other)[1]) == (sorted(one) == sorted(other))


def test_a_copy_of_a_row_counts():
    assert hashes([("a", "x"), ("a", "x")])[1] != hashes([("a", "x")])[1] != hashes([("a", "x")] * 3)[1]


@pytest.mark.parametrize("other", [("ab", "c", "x"), ("a", "b", "cx"), ("", "abc", "x")])
def test_what_stands_in_which_cell_counts(other):
    mine, theirs = hashes([("a", "bc", "x")]), hashes([other])
    assert mine[0] != theirs[0]
    assert mine[1] != theirs[1]


def test_the_ordered_hash_is_that_of_every_value_behind_its_length():
    content = b"".join(len(value).to_bytes(8, "big") + value for value in ("né".encode(), b"pos", b"", b"neg"))
    assert hashes([("né", "pos"), ("", "neg")])[0] == hashlib.sha256(content).hexdigest()


def test_the_hash_of_all_depends_on_each_split():
    first = of_all({"train": "1", "test": "2"})
    assert first["train"] == "1"
    assert first["all"] != of_all({"train": "1", "test": "3"})["all"]
