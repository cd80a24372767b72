"""The writing system of a text is that of most of its letters, and none that stands beside it changes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline import scripts

TEXTS = {
    "hello": "Latin", "Grüße": "Latin", "Привет мир": "Cyrillic", "γειά": "Greek", "你好": "Han", "日本語です": "Kana",
    "안녕하세요": "Hangul", "مرحبا": "Arabic", "שלום": "Hebrew", "नमस्ते": "Devanagari", "สวัสดี": "Thai",
    "12 + 3 = 15 …": "none", "": "none", "Привет всем, iPhone": "Cyrillic", "🎉🎉": "none", "日本 okay": "Latin",
    "ひらがな": "Kana", "ＦＵＬＬ": "Latin", "µµ": "none",
}  # fmt: skip


@pytest.mark.parametrize(("text", "script"), TEXTS.items())
def test_the_script_is_that_of_most_letters(text, script):
    assert scripts.NAMES[scripts.of([text])[0]] == script


@given(
    texts=st.lists(st.one_of(st.text(max_size=12), st.sampled_from([*TEXTS])), max_size=12), block=st.integers(1, 20)
)
def test_a_text_s_script_does_not_depend_on_its_neighbours(texts, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripts, "CHARACTERS", block)
        together = scripts.of(texts).tolist()
    assert together == [int(scripts.of([text])[0]) for text in texts]
