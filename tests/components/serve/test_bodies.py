"""What a body may say, whatever the bytes: a question, or one line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline.serve.bodies import Question, RefusedError, own, read, scoring

KEYS = st.sampled_from(
    ["texts", "pairs", "inputs", "instances", "dataframe_split", "dataframe_records", "columns", "data"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()), st.booleans(), st.booleans())
def test_any_bytes_are_a_question_of_texts_or_refused(raw, pairs, ours):
    try:
        question = read(raw, own if ours else scoring, pairs, 10)
    except RefusedError as error:
        assert 400 <= error.status < 500
        assert "\n" not in str(error)
    else:
        columns = [question.texts, question.pairs] if pairs else [question.texts]
        assert (question.pairs is not None) == pairs
        for column in columns:
            assert column is not None and 1 <= len(column) <= 10
            assert all(isinstance(text, str) and text.strip() and text.encode() for text in column)


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (own, {"texts": ["a", "b"], "pairs": ["c", "d"]}),
        (scoring, {"inputs": [["a", "c"], ["b", "d"]]}),
        (scoring, {"inputs": {"text": ["a", "b"], "pair": ["c", "d"]}}),
        (scoring, {"inputs": {"pair": ["c", "d"], "more": ["x", "y"], "text": ["a", "b"]}}),
        (scoring, {"instances": [{"one": "a", "other": "c"}, {"one": "b", "other": "d"}]}),
        (scoring, {"dataframe_split": {"columns": ["pair", "text"], "data": [["c", "a"], ["d", "b"]]}}),
        (scoring, {"dataframe_records": [{"text": "a", "pair": "c"}, {"text": "b", "pair": "d"}]}),
    ],
)
def test_pairs_are_found_in_every_form(form, body):
    assert read(json.dumps(body).encode(), form, True, 10) == Question(["a", "b"], ["c", "d"])


@pytest.mark.parametrize(
    ("form", "body", "told"),
    [
        (own, {"texts": ["a"]}, "no pairs; the model answers pairs of texts"),
        (own, {"texts": ["a", "b"], "pairs": ["c"]}, "pairs: 1 given for 2 texts"),
        (own, {"texts": ["a"], "pairs": [" "]}, "pairs[0]: an empty text"),
        (scoring, {"inputs": ["a"]}, "inputs[0]: a text given; a list of 2 is needed"),
        (scoring, {"inputs": [["a", "b", "c"]]}, "inputs[0]: 3 cells given; 2 needed"),
        (
            scoring,
            {"dataframe_split": {"columns": ["text"], "data": [["a"]]}},
            "dataframe_split: 1 columns given; two columns, text and pair, are needed",
        ),
    ],
)
def test_half_a_pair_is_refused(form, body, told):
    with pytest.raises(RefusedError) as error:
        read(json.dumps(body).encode(), form, True, 10)
    assert str(error.value) == told
