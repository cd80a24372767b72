"""The flow as a whole: the same bytes on any number of workers, whole or not at all, and the ways to make splits."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.components.conftest import model_config, write_csv
from tests.components.prepare.test_prepare import column, files
from tests.conftest import reviews
from tuneline.artifacts import SPLITS, PreparedData, read_json, read_split
from tuneline.config import DataConfig, ModelConfig
from tuneline.errors import InputError, ServiceError
from tuneline.prepare import chunks
from tuneline.prepare.prepare import pin, prepare
from tuneline.prepare.workers import Pool

pytestmark = pytest.mark.medium

NO_SEARCH = {"label_errors": False}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "ROWS", 16)


def run(
    folder: Path, checkpoint: Path, rows: list[Any], header: tuple[str, ...] = ("text", "label"), **keys: Any
) -> Path:
    """Prepared data of these training rows."""
    path = write_csv(folder / "rows.csv", rows, header)
    prepare(DataConfig(train=str(path), **NO_SEARCH | keys), model_config(checkpoint), folder / "data")
    return folder / "data"


def told(folder: Path, check: str) -> dict[str, Any]:
    (finding,) = [found for found in read_json(folder / "audit.json")["findings"] if found["check"] == check]
    return finding


@pytest.mark.parametrize("pairs", [False, True])
def test_the_same_bytes_come_out_of_any_number_of_workers(tmp_path, tiny_checkpoint, small_chunks, pairs):
    rows = [(text, text[::-1], label, number % 7) for number, (text, label) in enumerate(reviews(400) + reviews(90))]
    keys: dict[str, Any] = {
        "pair_column": "second" if pairs else "", "max_train": 200, "near_duplicates": 0.8, "label_errors": True,
        "policy": {"markup": "fix", "duplicate_in_split": "fix"},
    }  # fmt: skip
    path = write_csv(tmp_path / "rows.csv", rows, ("text", "second", "label", "author"))
    found = []
    for workers in (1, 2, 4):
        data, out = DataConfig(train=str(path), workers=workers, **keys), tmp_path / "data"
        prepare(data, model_config(tiny_checkpoint), out)
        found.append(files(out))
        assert {path.name for path in tmp_path.iterdir()} <= {"rows.csv", "data", "home", "checkpoint"}
    assert found[0] == found[1] == found[2]
    assert {"train.arrow", "manifest.json", "audit.json", "audit.html"} <= set(found[0])


def test_chunks_of_another_size_change_no_row(tmp_path, tiny_checkpoint, monkeypatch):
    whole = run(tmp_path / "whole", tiny_checkpoint, reviews(200), max_train=90)
    monkeypatch.setattr(chunks, "ROWS", 7)
    parts = run(tmp_path / "parts", tiny_checkpoint, reviews(200), max_train=90)
    for split in SPLITS:
        for name in ("row", "text", "label", "input_ids"):
            assert column(parts, split, name) == column(whole, split, name)
    one, other = PreparedData.load(whole), PreparedData.load(parts)
    assert (one.sha256, one.unordered_sha256) == (other.sha256, other.unordered_sha256)


def test_the_order_of_the_rows_changes_one_hash_and_not_the_other(tmp_path, tiny_checkpoint):
    forward = PreparedData.load(run(tmp_path / "a", tiny_checkpoint, reviews(120)))
    backward = PreparedData.load(run(tmp_path / "b", tiny_checkpoint, reviews(120)[::-1]))
    assert forward.unordered_sha256 == backward.unordered_sha256
    assert all(forward.sha256[split] != backward.sha256[split] for split in (*SPLITS, "all"))


def test_the_manifest_says_what_the_data_is(tmp_path, tiny_checkpoint):
    folder = run(tmp_path, tiny_checkpoint, reviews(120))
    manifest = PreparedData.load(folder)
    for split in SPLITS:
        labels = column(folder, split, "label")
        assert manifest.class_counts[split] == [labels.count(0), labels.count(1)]
    assert len(manifest.class_weights) == 2
    assert manifest.tokenizer_sha256 == files(folder)["tokenizer/tokenizer.json"]
    assert set(manifest.versions) == set(SPLITS)
    assert len(manifest.versions["train"]) == 64


def test_a_groups_rows_stay_together(tmp_path, tiny_checkpoint):
    rows = [(text, label, f"author {number % 40}") for number, (text, label) in enumerate(reviews(400))]
    folder = run(tmp_path, tiny_checkpoint, rows, ("text", "label", "author"), group_column="author")
    sides = [{rows[row][2] for row in column(folder, split, "row")} for split in SPLITS]
    assert all(sides)
    assert sum(map(len, sides)) == 40
    assert "by a hash of 'author'" in PreparedData.load(folder).notes[0]


def test_columns_to_slice_by_reach_the_test_rows_that_they_belong_to(tmp_path, tiny_checkpoint):
    rows = [
        (text, label, ("mail", "", "x" * 500)[number % 3], number % 2)
        for number, (text, label) in enumerate(reviews(120))
    ]
    header = ("text", "label", "channel", "label.1")
    folder = run(tmp_path / "a", tiny_checkpoint, rows, header, slice_columns=["channel", "label.1"])
    places = column(folder, "test", "row")
    assert column(folder, "test", "slice.channel") == [rows[place][2][:80] for place in places]
    assert column(folder, "test", "slice.label.1") == [str(rows[place][3]) for place in places]
    without = run(tmp_path / "b", tiny_checkpoint, rows, header)
    assert PreparedData.load(folder).sha256 == PreparedData.load(without).sha256
    assert "slice.channel" not in read_split(without, "test").column_names


def test_only_the_source_of_the_test_rows_is_asked_for_columns_to_slice_by(tmp_path, tiny_checkpoint):
    train = write_csv(tmp_path / "train.csv", reviews(60))
    test = write_csv(tmp_path / "test.csv", [(*row, "mail") for row in reviews(20, 900)], ("text", "label", "channel"))
    data = DataConfig(train=str(train), test=str(test), slice_columns=["channel"])
    prepare(data, model_config(tiny_checkpoint), tmp_path / "data")
    assert column(tmp_path / "data", "test", "slice.channel") == ["mail"] * 20
    assert "slice.channel" not in read_split(tmp_path / "data", "train").column_names
    swapped = DataConfig(train=str(test), test=str(train), slice_columns=["channel"])
    told = r"its header has no column 'channel'; found 'text', 'label'; name yours with data\.slice_columns=\[NAME\]"
    with pytest.raises(InputError, match=told):
        prepare(swapped, model_config(tiny_checkpoint), tmp_path / "swapped")


def test_dates_cut_off_the_held_out_splits(tmp_path, tiny_checkpoint):
    rows = [(text, label, f"2026-{1 + number // 10:02d}-15") for number, (text, label) in enumerate(reviews(120))]
    folder = run(
        tmp_path, tiny_checkpoint, rows, ("text", "label", "day"), time_column="day", validation_from="2026-09-01",
        test_from="2026-11-15",
    )  # fmt: skip
    assert column(folder, "train", "row") == list(range(80))
    assert column(folder, "validation", "row") == list(range(80, 100))
    assert column(folder, "test", "row") == list(range(100, 120))
    assert PreparedData.load(folder).notes == [
        "validation: 20 of 120 training rows, from 2026-09-01 on",
        "test: 20 of 120 training rows, from 2026-11-15 on",
    ]


def test_a_date_for_one_split_leaves_the_other_to_the_hash(tmp_path, tiny_checkpoint):
    rows = [(text, label, f"2026-{1 + number // 25:02d}-15") for number, (text, label) in enumerate(reviews(300))]
    folder = run(tmp_path, tiny_checkpoint, rows, ("text", "label", "day"), time_column="day", test_from="2026-11-01")
    assert column(folder, "test", "row") == list(range(250, 300))
    assert 0 < len(column(folder, "validation", "row")) < 50
    assert max(column(folder, "validation", "row")) < 250


def test_what_the_split_did_to_the_balance_is_told(tmp_path, tiny_checkpoint):
    rows = [
        (f"film {number}", "pos" if number < 300 else "neg", f"2026-01-{1 + number // 20:02d}") for number in range(400)
    ]
    late = run(
        tmp_path / "late", tiny_checkpoint, rows, ("text", "label", "day"), time_column="day", test_from="2026-01-18"
    )
    found = told(late, "split_balance")
    assert (found["split"], found["severity"]) == ("test", "warning")
    assert "100.0% of test, 25.0% of all" in found["message"] or "0.0% of test, 75.0% of all" in found["message"]
    hashed = run(tmp_path / "hashed", tiny_checkpoint, rows, ("text", "label", "day"))
    assert told(hashed, "split_balance")["severity"] == "info"


def test_the_order_of_the_labels_can_be_given(tmp_path, tiny_checkpoint):
    folder = run(tmp_path, tiny_checkpoint, reviews(60), label_order=["pos", "neg"])
    assert PreparedData.load(folder).labels == ["pos", "neg"]
    assert column(folder, "train", "label") == [
        ["pos", "neg"].index(reviews(60)[row][1]) for row in column(folder, "train", "row")
    ]


@pytest.mark.parametrize(
    ("order", "what"),
    [
        (["pos"], "the label 'neg' of the data is not named; name exactly the labels of the training rows"),
        (["pos", "neg", "odd"], "'odd' occurs in no training row; name exactly"),
        (
            ["odd", "even", "pos"],
            "'even' occurs in no training row and the label 'neg' of the data is not named (and 1 more)",
        ),
    ],
)
def test_an_order_of_other_labels_is_refused(tmp_path, tiny_checkpoint, order, what):
    with pytest.raises(InputError) as caught:
        run(tmp_path, tiny_checkpoint, reviews(60), label_order=order)
    assert str(caught.value).startswith(f"data.label_order: {what}")


def test_refused_data_leaves_the_audit_and_nothing_to_train_on(tmp_path, tiny_checkpoint):
    with pytest.raises(InputError, match=r"row 61, column 'text': empty text.*audit\.html"):
        run(tmp_path, tiny_checkpoint, [*reviews(60), (" ", "pos")])
    assert set(files(tmp_path / "data")) == {"audit.html", "audit.json"}
    assert told(tmp_path / "data", "empty_text")["severity"] == "error"


def test_texts_too_long_for_the_policy_are_refused_with_their_audit(tmp_path, tiny_checkpoint):
    rows = [(f"{text} {text} {text} {text}", label) for text, label in reviews(60)]
    with pytest.raises(InputError, match=r"data\.train: .* texts of train \(100%\) longer than 16 tokens"):
        run(tmp_path, tiny_checkpoint, rows, policy={"truncated": "fail"})
    assert set(files(tmp_path / "data")) == {"audit.html", "audit.json"}


def test_an_output_that_was_there_is_replaced_as_a_whole(tmp_path, tiny_checkpoint):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/stale.arrow").write_bytes(b"old")
    run(tmp_path, tiny_checkpoint, reviews(60))
    assert "stale.arrow" not in files(tmp_path / "data")


def test_corrected_labels_are_learned_and_told(tmp_path, tiny_checkpoint):
    rows = reviews(60)
    first = run(tmp_path / "first", tiny_checkpoint, rows)
    row = column(first, "train", "row")[0]
    from tuneline.prepare.corrections import key

    fixed = tmp_path / "fixed.csv"
    with fixed.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label", "new_label", "key"])
        writer.writerow([rows[row][0], rows[row][1], "pos" if rows[row][1] == "neg" else "neg", key(rows[row][0])])
        writer.writerow([rows[row + 1][0], rows[row + 1][1], "-", key(rows[row + 1][0])])
    second = run(tmp_path / "second", tiny_checkpoint, rows, corrections=str(fixed))
    before, after = (
        {
            row: label
            for split in SPLITS
            for row, label in zip(column(folder, split, "row"), column(folder, split, "label"), strict=True)
        }
        for folder in (first, second)
    )
    assert {number for number in before if after.get(number) != before[number]} == {row, row + 1}
    assert row + 1 not in after
    assert any("1" in note for note in PreparedData.load(second).notes)


def test_a_misspelt_correction_is_refused_in_one_line_and_makes_no_class(tmp_path, tiny_checkpoint):
    from tuneline.prepare.corrections import key

    rows, fixed = reviews(60), tmp_path / "fixed.csv"
    lines = [f"pos,{key(rows[0][0])}", f"pso,{key(rows[2][0])}"]
    fixed.write_text("\n".join(["new_label,key", *lines]))
    with pytest.raises(InputError) as caught:
        run(tmp_path, tiny_checkpoint, rows, corrections=str(fixed))
    assert str(caught.value) == (
        f"data.corrections: {fixed}: row 2, column 'new_label': 'pso' is no label of the training data; "
        "allowed: 'neg', 'pos', or - to remove the row"
    )


def test_a_class_whose_every_row_was_corrected_away_is_gone(tmp_path, tiny_checkpoint):
    from tuneline.prepare.corrections import key

    rows, fixed = [*reviews(60), ("an odd one", "odd")], tmp_path / "fixed.csv"
    fixed.write_text(f"new_label,key\npos,{key('an odd one')}\nbad,{key(rows[0][0])}\n")
    folder = run(tmp_path, tiny_checkpoint, rows, corrections=str(fixed), label_map={"neg": "bad", "pos": "good"})
    assert PreparedData.load(folder).labels == ["bad", "good"]


def test_a_pin_covers_the_corrections(tmp_path, tiny_checkpoint):
    path, fixed = write_csv(tmp_path / "a.csv", reviews(60)), tmp_path / "fixed.csv"
    fixed.write_text("key,new_label\n")
    data, model = DataConfig(train=str(path), corrections=str(fixed)), model_config(tiny_checkpoint)
    first = pin(data, model)
    assert first != pin(DataConfig(train=str(path)), model)
    fixed.write_text("key,new_label\nabc,pos\n")
    assert pin(data, model) != first


def test_a_worker_that_was_killed_leaves_one_line_and_no_folder(tmp_path, tiny_checkpoint, small_chunks, monkeypatch):
    spread = Pool._spread

    def killing(self: Pool, work: Any, tasks: Any) -> Any:
        for number, answer in enumerate(spread(self, work, tasks)):
            if number == 3:
                self.workers[0].process.kill()
            yield answer

    monkeypatch.setattr(Pool, "_spread", killing)
    with pytest.raises(ServiceError, match=r"killed, most likely for lack of memory; give the step more memory"):
        run(tmp_path, tiny_checkpoint, reviews(400), workers=2)
    assert not (tmp_path / "data").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"rows.csv", "home"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_leaves_no_process_and_no_folder(tmp_path, tiny_checkpoint, how):
    path = write_csv(
        tmp_path / "rows.csv", [(f"{text} {copy}", label) for copy in range(60) for text, label in reviews(4000)]
    )
    code = (
        "from pathlib import Path; from tuneline.step import guarded; from tuneline.config import *\n"
        "from tuneline.prepare.prepare import prepare\n"
        "with guarded():\n"
        f"    data = DataConfig(train={str(path)!r}, workers=2, label_errors=False)\n"
        f"    model = ModelConfig(name={str(tiny_checkpoint)!r}, max_length=16)\n"
        f"    prepare(data, model, Path({str(tmp_path / 'out/data')!r}))\n"
    )
    step = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    workers: list[psutil.Process] = []
    while len(workers) < 2 and step.poll() is None:
        workers = psutil.Process(step.pid).children()
        time.sleep(0.05)
    step.send_signal(how)
    assert step.wait(timeout=30) != 0
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("policy", "cut"), [("head", 20), ("tail", 20), ("head_tail", 20), ("windows", 0)])
def test_a_text_that_just_fits_is_not_written_down_as_cut(tmp_path, tiny_checkpoint, policy, cut):
    """Four tokens and the two special ones are a text of six."""
    rows = [(f"{'good' if number % 2 else 'bad'} film plot{' very' * (1 + number % 3)} {number}", "ab"[number % 2])
            for number in range(60)]  # fmt: skip
    path = write_csv(tmp_path / "rows.csv", rows)
    model = ModelConfig(name=str(tiny_checkpoint), max_length=8, long_texts=policy)
    manifest = prepare(DataConfig(train=str(path), **NO_SEARCH), model, tmp_path / "data")
    for split in SPLITS:
        longer = [len(text.split()) + 2 > 8 for text in column(tmp_path / "data", split, "text")]
        assert manifest.truncated[split] == sum(longer)
        assert column(tmp_path / "data", split, "cut") == [each and policy != "windows" for each in longer]
    assert sum(sum(column(tmp_path / "data", split, "cut")) for split in SPLITS) == cut
