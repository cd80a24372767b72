"""Damage is found and repaired where it is, and nothing else is touched."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline import clean as module
from tuneline.clean import FIXES, clean, fixes_of
from tuneline.config import Policy


@pytest.mark.parametrize(
    "text",
    [
        "café au lait", "naïve façade", "“IRMÔ said he", "“AMANHÃ” – hoje", "«CAFÉ»", "“café”…", "20 °C, 5 £, § 3",
        "Привет, мир", "你好，世界", "שלום", "किताब", "„Ä“ und „Ö“", "I ♥ you 👩‍👩‍👧", "Ångström", "Žižek’s",
    ],
)  # fmt: skip
def test_sound_text_is_not_taken_for_mojibake(text):
    assert not module.is_mojibake(text)
    assert clean(text, ["mojibake"]) == text


@pytest.mark.parametrize(
    ("text", "times"),
    [
        *((text, times) for text in ("café", "naïve – “yes”", "it’s 5 £", "Grüße", "Łódź") for times in (1, 2)),
        *((text, 1) for text in ("Привет", "日本語", "😀 ok")),
    ],
)
def test_utf8_read_as_windows_1252_is_repaired_also_twice_over(text, times):
    broken = text
    for _ in range(times):
        broken = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in broken.encode())
    assert broken != text
    assert module.is_mojibake(broken)
    assert clean(broken, ["mojibake"]) == text


def test_c1_characters_become_the_signs_that_windows_1252_means():
    assert clean("don\x92t \x96 he said \x93no\x94", ["mojibake"]) == "don’t – he said “no”"


def test_a_replacement_character_is_told_though_nothing_can_repair_it():
    assert module.is_mojibake("caf\ufffd")
    assert clean("caf\ufffd", ["mojibake"]) == "caf\ufffd"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("bad.<br /><br />Worse", "bad.  Worse"), ("<b>very</b>good", "verygood"), ("a&amp;b", "a&b"),
        ("&lt;b&gt;deep&lt;/b&gt;", "deep"), ('<a href="http://x.org">here</a>', "here"), 
        ("Apple #39;s quot;x quot;", "Apple 's \"x \""),
        ("&amp;amp;", "&"), ("x<!-- note -->y", "x y"),
    ],
)  # fmt: skip
def test_markup_is_found_and_taken_out(text, plain):
    assert module.has_markup(text)
    assert clean(text, ["markup"]) == plain
    assert not module.has_markup(plain)


@pytest.mark.parametrize(
    "text",
    ["I <3 you", "<unk> and <name>", "if a <b and c> d", "AT&T; Q&A;", "a < b; b > c", "<sigh> <email>", "C#; F#;"],
)
def test_what_only_looks_like_markup_is_left(text):
    assert not module.has_markup(text)
    assert clean(text, ["markup"]) == text


def test_control_characters_leave_and_what_separates_words_still_does():
    assert clean("a\x08b\x0bc\u200bd\ufeff", ["control_characters"]) == "ab cd"
    assert clean("tab\tline\nend\r\n", ["control_characters"]) == "tab\tline\nend\r\n"
    assert module.CONTROL.search("👩\u200d👩") is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("write to ann.b+c@mail.example.co.uk!", "write to <email>!"), ("call 877-927-8767.", "call <phone>."),
        ("(702) 259-4076 now", "<phone> now"), ("ring 09061701461 today", "ring <phone> today"),
        ("+49 170 1234567", "<phone>"), ("0845 021 3680.Offer", "<phone>.Offer"),
        ("card 4111 1111 1111 1111, thanks", "card <card>, thanks"), ("378282246310005", "<card>"),
    ],
)  # fmt: skip
def test_personal_data_gets_a_placeholder(text, plain):
    assert clean(text, ["personal_data"]) == plain


@pytest.mark.parametrize(
    "text",
    [
        "from 1939-1945", "4111 1111 1111 1112", "ISBN 978-3-16-148410-0", "msg@150p", "at 1700000000000 ms",
        "see Title?0093638 - fine", "$1,234,567,890", "docid=211772166650071408&hl=en", "2026-11-24 17:00:00",
        "10.1.2.333",        "polls 54-46, 3000 to 2000 votes", "v1.22.333.4444",
    ],
)  # fmt: skip
def test_numbers_that_are_nobodys_are_left(text):
    assert clean(text, ["personal_data"]) == text
    assert not module.has_card(text)


@given(st.text(), st.permutations(FIXES))
def test_the_order_in_which_fixes_are_named_changes_nothing(text, fixes):
    assert clean(text, fixes) == clean(text, FIXES)


@given(st.text())
def test_no_fix_leaves_a_text_as_it_is(text):
    assert clean(text, []) == text


@given(st.text())
def test_what_a_fix_takes_out_is_gone(text):
    assert module.CONTROL.search(clean(text, ["control_characters"])) is None


def test_the_fixes_of_a_policy_come_in_the_order_of_their_use():
    policy = Policy(markup="fix", mojibake="fix", duplicate_in_split="fix")
    assert fixes_of(policy) == ["mojibake", "markup"]
    assert fixes_of(Policy()) == []


def test_a_text_made_of_half_tags_is_looked_through_quickly():
    """Every policy asks has_markup, and with markup=fix each request to a server is cleaned."""
    halves = ("<a " + "=" * 1000) * 100
    start = time.process_time()
    assert not module.has_markup(halves)
    assert clean(halves, ["markup"]) == halves
    assert time.process_time() - start < 0.3


@pytest.mark.parametrize("attributes", ['href="x?a=b&c=d" id=e', f'href="x" title="{"y=" * 240}"', "x = 1 /"])
def test_a_tag_with_many_attributes_is_still_one(attributes):
    assert clean(f"<a {attributes}>here</a>", ["markup"]) == "here"
