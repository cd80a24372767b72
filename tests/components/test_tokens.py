"""The Encoder gives what the tokenizers library gives, and for the policies that it does not know what was promised."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.components.tokenizers import KINDS, save
from tests.conftest import WORDS
from tuneline import tokens
from tuneline.errors import InputError
from tuneline.tokenizer import copy_tokenizer
from tuneline.tokens import Encoder, Tokens

DRAW = random.Random(0)
TEXTS = [" ".join(DRAW.choices(WORDS, k=DRAW.randrange(60))) for _ in range(80)] + ["", "!?", "日本語 ünï 😀", "\n\t"]
PAIRS = [" ".join(DRAW.choices(WORDS, k=DRAW.randrange(60))) for _ in range(80)] + ["good", "", "bad film", ""]
POLICIES = ("head", "tail", "head_tail", "windows")
LITERALS = ["[SEP]", "[CLS]", "[PAD]", "[MASK]", "<s>", "</s>", "<pad>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A tokenizer folder of each kind; to be read only."""
    return {kind: save(kind, tmp_path_factory.mktemp("tokenizers") / kind) for kind in KINDS}


def rows(found: Tokens) -> list[list[int]]:
    """The ids of each text."""
    ends = found.lengths.cumsum()
    return [part.tolist() for part in np.split(found.ids, ends[:-1])] if len(ends) else []


def windows(found: Tokens) -> list[list[list[int]]]:
    """The ids of each window of each text."""
    sizes = iter(found.window_lengths.tolist())
    parts = []
    for row, count in zip(rows(found), found.window_counts.tolist(), strict=True):
        ends = np.cumsum([next(sizes) for _ in range(count)])
        assert ends[-1] == len(row)
        parts.append([part.tolist() for part in np.split(np.array(row), ends[:-1])])
    return parts


def library(folder: Path, max_length: int, side: str = "right") -> Tokenizer:
    """The library's own cutting."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length, direction=side)
    return tokenizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("policy", "side"), [("head", "right"), ("tail", "left")])
@pytest.mark.parametrize("max_length", [8, 16, 63, 400])
def test_one_text_becomes_what_the_library_makes_of_it(folders, kind, policy, side, max_length):
    found = rows(Encoder(folders[kind], max_length, policy).encode(TEXTS))
    wanted = [encoding.ids for encoding in library(folders[kind], max_length, side).encode_batch(TEXTS)]
    assert [row for row in found if row != [0]] == [row for row in wanted if row]


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize(("policy", "side"), [("head", "right"), ("tail", "left")])
@pytest.mark.parametrize("max_length", [8, 15, 16, 63, 400])
def test_two_texts_become_what_the_library_makes_of_them(folders, kind, policy, side, max_length):
    found = Encoder(folders[kind], max_length, policy).encode(TEXTS, PAIRS)
    wanted = library(folders[kind], max_length, side).encode_batch(list(zip(TEXTS, PAIRS, strict=True)))
    assert rows(found) == [encoding.ids for encoding in wanted]
    for at, encoding in zip(found.pair_at, wanted, strict=True):
        second = [place for place, number in enumerate(encoding.sequence_ids) if number == 1]
        assert at == (second[0] if second else len(encoding.ids) - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["one", "two"])
def test_the_total_is_the_length_of_the_text_uncut(folders, kind, policy, pairs):
    cut, whole = (Encoder(folders[kind], size, policy).encode(TEXTS, pairs) for size in (12, 4000))
    assert cut.total.tolist() == whole.total.tolist() == whole.lengths.tolist()
    assert max(cut.total) > 12


def test_a_long_text_keeps_a_quarter_of_its_head_and_the_rest_of_its_tail(folders):
    (content,) = rows(Encoder(folders["bert"], 4000, "head").encode([" ".join(WORDS * 3)]))
    (found,) = rows(Encoder(folders["bert"], 22, "head_tail").encode([" ".join(WORDS * 3)]))
    assert found == [2, *content[1:6], *content[-16:-1], 3]


def test_head_and_tail_of_512_tokens_are_those_of_the_paper(folders):
    text = " ".join(DRAW.choices(WORDS, k=900))
    (content,) = rows(Encoder(folders["bert"], 4000, "head").encode([text]))
    (found,) = rows(Encoder(folders["bert"], 512, "head_tail").encode([text]))
    assert found == [2, *content[1:129], *content[-383:-1], 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_text_that_fits_is_the_same_under_every_policy(folders, kind, policy):
    texts, others = ["a good film", ""], ["not bad", "dull"]
    for pairs in (None, others):
        wanted = Encoder(folders[kind], 64, "head").encode(texts, pairs)
        found = Encoder(folders[kind], 64, policy).encode(texts, pairs)
        assert rows(found) == rows(wanted)
        if policy == "windows":
            assert found.window_counts.tolist() == [1, 1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [8, 9, 20])
def test_windows_are_full_overlap_by_a_quarter_and_leave_nothing_out(folders, kind, max_length):
    found = Encoder(folders[kind], max_length, "windows").encode(TEXTS)
    for parts, whole in zip(windows(found), rows(Encoder(folders[kind], 4000, "head").encode(TEXTS)), strict=True):
        before, after = (0, 0) if kind == "gpt2" else (1, 1)
        content, room = whole[before : len(whole) - after], max_length - before - after
        if len(whole) <= max_length:
            assert parts == [whole]
            continue
        stride = room - room // 4
        starts = [*range(0, len(content) - room, stride), len(content) - room]
        assert parts == [[*whole[:before], *content[at : at + room], *whole[len(whole) - after :]] for at in starts]


@pytest.mark.parametrize("kind", KINDS)
def test_windows_go_over_the_first_text_and_repeat_the_second(folders, kind):
    first, second = " ".join(DRAW.choices(WORDS, k=50)), "dull plot"
    encoder = Encoder(folders[kind], 24, "windows")
    found = encoder.encode([first, "good", second], [second, second, first])
    (at, _, late), (many, short, other) = found.pair_at.tolist(), windows(found)
    assert len(many) > 1
    assert {len(part) for part in many} == {24}
    assert len({tuple(part[at:]) for part in many}) == 1
    assert len({tuple(part[:at]) for part in many}) == len(many)
    assert len(short) == len(other) == 1
    assert len(other[0]) == 24
    assert other[0][:late] == encoder.encode([second], [""]).ids.tolist()[:late]


def test_a_tokenizer_that_parts_texts_by_nothing_gets_its_end_of_text_between(folders):
    found = Encoder(folders["gpt2"], 64, "head").encode(["a good film"], ["not bad"])
    (one,), (two,) = (rows(Encoder(folders["gpt2"], 64, "head").encode([text])) for text in ("a good film", "not bad"))
    assert rows(found) == [[*one, 0, *two]]
    assert found.pair_at.tolist() == [len(one) + 1]


def test_a_tokenizer_with_a_form_for_one_text_only_ends_both_alike(folders, tmp_path):
    tokenizer = Tokenizer.from_file(str(folders["bert"] / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found, wanted = (Encoder(folder, 20, "head").encode(TEXTS, PAIRS) for folder in (tmp_path, folders["bert"]))
    assert rows(found) == rows(wanted)
    assert found.pair_at.tolist() == wanted.pair_at.tolist()


def test_two_texts_that_nothing_can_part_are_refused(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="no token to part two texts"):
        Encoder(tmp_path, 20, "head").encode(["a"], ["a"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("literal", LITERALS)
def test_a_special_token_that_is_written_in_a_text_ends_no_segment(folders, kind, literal):
    encoder = Encoder(folders[kind], 64, "head")
    (plain,), (faked,) = (rows(encoder.encode([text])) for text in ("good film", f"good {literal} film"))
    specials = {id for id, token in KINDS[kind]().get_added_tokens_decoder().items() if token.content != "[UNK]"}
    specials -= {3} if kind == "xlm-roberta" else set()
    framing = [number for number in plain if number in specials]
    assert [number for number in faked if number in specials] == framing
    assert len(faked) > len(plain)


def test_a_text_without_tokens_still_has_one_to_be_answered_by(folders):
    found = Encoder(folders["gpt2"], 16, "head").encode(["", "good", ""])
    assert found.lengths.tolist()[::2] == found.total.tolist()[::2] == [1, 1]


@pytest.mark.parametrize("policy", POLICIES)
def test_no_texts_are_no_tokens(folders, policy):
    found = Encoder(folders["bert"], 16, policy).encode([])
    assert (len(found.ids), len(found.lengths), len(found.columns()["input_ids"])) == (0, 0, 0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), max_size=12), st.sampled_from(POLICIES))
def test_no_row_is_longer_than_asked_for_and_batches_change_nothing(folders, texts, policy):
    texts = [(one.encode(errors="ignore").decode(), two.encode(errors="ignore").decode()) for one, two in texts]
    for kind in ("roberta", "gpt2"):
        encoder = Encoder(folders[kind], 10, policy)
        both = encoder.encode([one for one, _ in texts], [two for _, two in texts])
        assert (both.window_lengths if policy == "windows" else both.lengths).max(initial=1) <= 10
        alone = [encoder.encode([one], [two]) for one, two in texts]
        assert both.ids.tolist() == [number for found in alone for number in found.ids.tolist()]
        assert both.pair_at.tolist() == [at for found in alone for at in found.pair_at.tolist()]


@pytest.mark.parametrize("policy", POLICIES)
def test_stretches_of_texts_change_nothing(folders, policy, monkeypatch):
    encoder = Encoder(folders["roberta"], 12, policy)
    wanted = encoder.encode(TEXTS, PAIRS)
    monkeypatch.setattr(tokens, "BATCH", 7)
    monkeypatch.setattr(tokens, "BATCH_CHARACTERS", 300)
    found = encoder.encode(TEXTS, PAIRS)
    for name, column in wanted.columns().items():
        assert found.columns()[name].equals(column), name
    assert found.total.tolist() == wanted.total.tolist()


@pytest.mark.parametrize("policy", ["head", "windows"])
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["one", "two"])
def test_the_columns_hold_the_tokens(folders, policy, pairs):
    found = Encoder(folders["bert"], 12, policy).encode(TEXTS, pairs)
    columns = found.columns()
    assert columns["input_ids"].to_pylist() == rows(found)
    assert set(columns) == {"input_ids"} | ({"pair_at"} if pairs else set()) | ({"windows"} & {policy})
    if pairs:
        assert columns["pair_at"].to_pylist() == found.pair_at.tolist()
    if policy == "windows":
        assert columns["windows"].to_pylist() == [[len(part) for part in parts] for parts in windows(found)]
    assert {str(column.type) for name, column in columns.items() if name != "pair_at"} == {"large_list<item: int32>"}


def test_special_tokens_that_leave_no_room_are_refused(folders):
    with pytest.raises(InputError, match=r"^model\.max_length: 4 given; special tokens alone take 4"):
        Encoder(folders["roberta"], 4, "head").encode(["good"], ["bad"])


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer"):
        Encoder(tmp_path, 16, "head")


def test_a_folder_without_a_fast_tokenizer_is_told_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match=r"no tokenizer\.json; save it once with transformers"):
        Encoder(tmp_path, 16, "head")


def test_the_tokenizers_own_padding_and_cutting_are_switched_off(folders, tmp_path):
    tokenizer = Tokenizer.from_file(str(folders["bert"] / "tokenizer.json"))
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(3)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert rows(Encoder(tmp_path, 16, "head").encode(TEXTS)) == rows(Encoder(folders["bert"], 16, "head").encode(TEXTS))


def test_only_a_tokenizers_files_are_copied(folders, tmp_path):
    source = save("bert", tmp_path / "checkpoint")
    (source / "model.safetensors").write_text("weights")
    copy_tokenizer(source, tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
