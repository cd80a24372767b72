"""prepare as a whole: labelled text in, splits that can be trusted out, the same each time."""

from __future__ import annotations

import hashlib
import shutil
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp import dsl

from tests.components.conftest import model_config, prepare_rows, write_csv
from tests.conftest import reviews
from tuneline.artifacts import SPLITS, PreparedData, read_split
from tuneline.config import DataConfig, ModelConfig, Recipe
from tuneline.errors import InputError
from tuneline.prepare.prepare import pin, prepare, prepare_step
from tuneline.prepare.split import place

TRAIN = [("good film", "pos"), ("bad film", "neg"), ("nice plot", "pos"), ("dull plot", "neg")]
HELD_OUT = {"validation": [("great actors", "pos"), ("poor actors", "neg")], "test": [("the lovely film", "pos")]}


@pytest.fixture
def make(tmp_path, tiny_checkpoint):
    """prepare() on rows held in memory, in a folder of their own."""

    def run(
        name: str = "it",
        *,
        max_length: int = 16,
        side: str = "head",
        keep: dict[str, Any] | None = None,
        **splits: list[tuple[str, str]],
    ) -> Any:
        folder = tmp_path / name
        uris = {split: str(write_csv(folder / f"{split}.csv", rows)) for split, rows in splits.items()}
        data = DataConfig(**uris, **(keep or {}))
        model = ModelConfig(name=str(tiny_checkpoint), max_length=max_length, long_texts=side)
        manifest = prepare(data, model, folder / "data")
        return SimpleNamespace(folder=folder / "data", manifest=manifest, data=data)

    return run


def column(folder: Path, split: str, name: str = "text") -> list[Any]:
    return read_split(folder, split).column(name).to_pylist()


def files(folder: Path) -> dict[str, str]:
    """Hash of every file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_holds_manifest_splits_and_tokenizer(make, tiny_checkpoint):
    done = make(train=TRAIN, **HELD_OUT)
    assert set(files(done.folder)) == {
        "manifest.json", "train.arrow", "validation.arrow", "test.arrow", "tokenizer/tokenizer.json", "audit.json",
        "audit.html", "label_errors.csv",
    }  # fmt: skip
    assert (done.folder / "tokenizer/tokenizer.json").read_bytes() == (tiny_checkpoint / "tokenizer.json").read_bytes()
    manifest = PreparedData.load(done.folder)
    assert manifest == done.manifest
    assert manifest.labels == ["neg", "pos"]
    assert manifest.rows == {"train": 4, "validation": 2, "test": 1}
    assert (manifest.max_length, manifest.long_texts) == (16, "head")
    assert (manifest.model, manifest.seed) == (str(tiny_checkpoint), 0)
    assert manifest.sources == {split: getattr(done.data, split) for split in SPLITS}
    assert manifest.notes == []


def test_given_splits_are_kept_row_by_row(make):
    done = make(train=TRAIN, **HELD_OUT)
    for split, rows in {"train": TRAIN, **HELD_OUT}.items():
        labels = [done.manifest.labels[index] for index in column(done.folder, split, "label")]
        assert list(zip(column(done.folder, split), labels, strict=True)) == rows
        assert column(done.folder, split, "row") == list(range(len(rows)))


def test_texts_become_the_token_ids_of_the_checkpoints_own_tokenizer(make, tiny_checkpoint):
    from tokenizers import Tokenizer

    done = make(train=TRAIN, **HELD_OUT)
    tokenizer = Tokenizer.from_file(str(tiny_checkpoint / "tokenizer.json"))
    wanted = [tokenizer.encode(text).ids for text, _ in TRAIN]
    assert column(done.folder, "train", "input_ids") == wanted
    assert all(ids[0] == 2 and ids[-1] == 3 for ids in wanted)


def test_splits_that_were_not_given_are_taken_off_the_training_rows(make):
    rows = reviews(300)
    done = make(train=rows)
    parts = {split: column(done.folder, split) for split in SPLITS}
    assert sorted(chain(*parts.values())) == sorted(text for text, _ in rows)
    assert len(parts["test"]) == pytest.approx(60, abs=25)
    assert len(parts["validation"]) == pytest.approx(30, abs=20)
    assert done.manifest.notes == [
        f"validation: {len(parts['validation'])} of 300 training rows, by content hash",
        f"test: {len(parts['test'])} of 300 training rows, by content hash",
    ]
    for split in SPLITS:
        numbers = column(done.folder, split, "row")
        assert [rows[number][0] for number in numbers] == parts[split]


def test_only_the_split_that_is_missing_is_taken_off(make):
    done = make(train=reviews(100), test=reviews(20, start=500))
    assert done.manifest.rows["test"] == 20
    assert done.manifest.rows["train"] + done.manifest.rows["validation"] == 100


def test_the_order_of_the_file_does_not_move_rows_between_splits(make):
    forward, backward = make("forward", train=reviews(200)), make("backward", train=reviews(200)[::-1])
    for split in SPLITS:
        assert sorted(column(forward.folder, split)) == sorted(column(backward.folder, split))


def test_training_rows_whose_texts_are_held_out_are_dropped_with_a_note(make):
    leaks = [HELD_OUT["test"][0], ("great actors", "neg"), ("great actors", "pos")]
    done = make(train=leaks + TRAIN, **HELD_OUT)
    assert column(done.folder, "train") == [text for text, _ in TRAIN]
    assert column(done.folder, "train", "row") == [3, 4, 5, 6]
    assert done.manifest.notes == ["train: 3 rows removed, because their texts also stand in a held-out split"]


def test_validation_rows_whose_texts_are_tested_are_dropped_with_a_note(make):
    done = make(train=TRAIN, validation=[*HELD_OUT["validation"], *HELD_OUT["test"]], test=HELD_OUT["test"])
    assert column(done.folder, "validation") == ["great actors", "poor actors"]
    assert column(done.folder, "test") == ["the lovely film"]
    assert done.manifest.notes == ["validation: 1 row removed, because their texts also stand in the test split"]


def test_duplicates_never_stand_on_two_sides(make):
    done = make(train=reviews(100) + reviews(100))
    texts = [set(column(done.folder, split)) for split in SPLITS]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 100
    assert sum(done.manifest.rows.values()) == 200


def test_samples_are_seeded_and_no_prefix(make):
    splits = {"train": reviews(200), "validation": reviews(60, 500), "test": reviews(60, 800)}
    keep = {"max_train": 50, "max_validation": 20, "max_test": 10}
    first = make("first", keep=keep, **splits)
    again = make("again", keep=keep, **splits)
    other = make("other", keep=keep | {"seed": 1}, **splits)
    assert first.manifest.rows == {"train": 50, "validation": 20, "test": 10}
    for split in SPLITS:
        numbers = column(first.folder, split, "row")
        assert numbers == sorted(numbers) != list(range(len(numbers)))
        assert numbers == column(again.folder, split, "row")
        assert numbers != column(other.folder, split, "row")


def test_long_texts_are_cut_and_counted(make):
    fits, cut = " ".join(["good"] * 6), " ".join(["bad"] * 7)
    done = make(max_length=8, train=[(fits, "pos"), (cut, "neg"), (f"{cut} {cut}", "neg")], **HELD_OUT)
    assert done.manifest.truncated == {"train": 2, "validation": 0, "test": 0}
    assert [len(ids) for ids in column(done.folder, "train", "input_ids")] == [8, 8, 8]
    assert [ids[-1] for ids in column(done.folder, "train", "input_ids")] == [3, 3, 3]
    assert column(done.folder, "train")[1] == cut


@pytest.mark.parametrize(("side", "kept"), [("head", slice(0, 6)), ("tail", slice(-6, None))])
def test_a_long_text_is_cut_on_the_side_that_was_asked(make, side, kept):
    words = "good fine great nice bad poor awful dull".split()
    done = make(max_length=8, side=side, train=[(" ".join(words), "pos"), ("bad film", "neg")], **HELD_OUT)
    alone = make("alone", train=[(" ".join(words[kept]), "pos"), ("bad film", "neg")], **HELD_OUT)
    assert column(done.folder, "train", "input_ids") == column(alone.folder, "train", "input_ids")
    assert done.manifest.long_texts == side


def test_numeric_labels_are_ordered_as_numbers(make):
    rows = [(f"film {number}", str(number)) for number in (10, 9, 2, 1, 100)]
    assert make(train=rows, validation=[("a", "1")], test=[("b", "100")]).manifest.labels == [
        "1",
        "2",
        "9",
        "10",
        "100",
    ]


def test_other_labels_are_ordered_as_text(make):
    rows = [(f"film {number}", name) for number, name in enumerate(["b", "10", "a", "9"])]
    assert make(train=rows, validation=[("a", "a")], test=[("b", "b")]).manifest.labels == ["10", "9", "a", "b"]


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({"train": [("good", "pos"), ("fine", "pos")], **HELD_OUT}, "data.train: only one class ('pos') in the train"),
        (
            {"train": TRAIN, **HELD_OUT, "test": [("boring", "neg"), ("so so", "mixed")]},
            "data.test: row 2: label 'mixed' does not occur in the training rows; add examples to train or remove the",
        ),
        ({"train": TRAIN, **HELD_OUT, "validation": [("so so", "mixed")]}, "data.validation: row 1: label 'mixed'"),
        ({"train": HELD_OUT["test"], **HELD_OUT}, "data.train: no rows left in the train split; give more data"),
        ({"train": TRAIN, "test": HELD_OUT["test"], "validation": HELD_OUT["test"]}, "data.validation: no rows left"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(make, splits, told):
    with pytest.raises(InputError) as caught:
        make(**splits)
    assert told in str(caught.value)


def test_a_rare_class_is_kept_in_train_with_all_rows_of_its_texts_and_told(make):
    rare = [("plot was not boring", "odd"), ("plot was not boring", "odd"), ("actors was not boring", "even")]
    done = make(train=[*reviews(60), *rare], keep={"validation_share": 0.4, "test_share": 0.4})
    assert {"odd", "even"} <= set(done.manifest.labels)
    texts = {split: column(done.folder, split) for split in SPLITS}
    for text, _ in rare:
        assert sum(text in texts[split] for split in SPLITS) == 1
    moved = [note for note in done.manifest.notes if "kept from the held-out splits" in note]
    assert bool(moved) == any(place(text, 0, "split") < 0.8 for text, _ in rare)


def test_a_sample_that_loses_a_class_names_the_key(make):
    rows = [*reviews(60), ("plot was not boring", "odd")]
    with pytest.raises(InputError, match=r"data\.max_train: a sample of 2 keeps no training row of \d of 3 classes"):
        make(train=rows, keep={"max_train": 2}, **HELD_OUT)


def test_a_long_label_is_not_repeated_in_an_error(make):
    secret = "a customer's whole message " * 5
    with pytest.raises(InputError) as caught:
        make(train=TRAIN, validation=HELD_OUT["validation"], test=[("the lovely film", secret)])
    assert secret.strip() not in str(caught.value)
    assert "a customer's whole message" in str(caught.value)


def test_a_text_that_no_tokenizer_takes_is_refused_as_bad_input(tmp_path, tiny_checkpoint):
    held_out = tmp_path / "test.jsonl"
    held_out.write_text('{"text": "good", "label": "pos"}\n{"text": "cut \\ud83d", "label": "neg"}\n')
    data = DataConfig(train=str(write_csv(tmp_path / "train.csv", reviews(60))), test=str(held_out))
    with pytest.raises(InputError, match="row 2"):
        prepare(data, model_config(tiny_checkpoint), tmp_path / "out")


def test_a_length_beyond_the_checkpoints_positions_is_refused_before_the_data_is_read(tmp_path, tiny_checkpoint):
    with pytest.raises(InputError, match=r"^model\.max_length: 65 given; .* has 64 positions"):
        prepare(DataConfig(train="absent.csv"), model_config(tiny_checkpoint, 65), tmp_path / "out")


def test_a_checkpoint_without_a_fast_tokenizer_is_refused(tmp_path, tiny_checkpoint):
    shutil.copytree(tiny_checkpoint, tmp_path / "slow", ignore=shutil.ignore_patterns("tokenizer.json"))
    with pytest.raises(InputError, match=r"no tokenizer\.json; save it once with transformers"):
        prepare_rows(tmp_path, tmp_path / "slow", train=TRAIN, **HELD_OUT)


def test_preparing_twice_gives_the_same_files(make, tmp_path):
    data = make(train=reviews(100), keep={"max_train": 40}).folder
    before = files(data)
    shutil.rmtree(data)
    assert files(make(train=reviews(100), keep={"max_train": 40}).folder) == before


LONG = reviews(11_000)


@pytest.fixture(scope="module")
def hashes_of_long(tmp_path_factory, tiny_checkpoint):
    folder = prepare_rows(tmp_path_factory.mktemp("long"), tiny_checkpoint, train=LONG, **HELD_OUT)
    return PreparedData.load(folder).sha256


@pytest.mark.parametrize("changed", [0, 5_000, len(LONG) - 1])
@pytest.mark.parametrize("part", ["text", "label"])
def test_the_hash_depends_on_every_row(make, hashes_of_long, changed, part):
    text, label = LONG[changed]
    row = (f"{text}!", label) if part == "text" else (text, {"pos": "neg", "neg": "pos"}[label])
    hashes = make(train=[*LONG[:changed], row, *LONG[changed + 1 :]], **HELD_OUT).manifest.sha256
    assert {name for name in hashes if hashes[name] != hashes_of_long[name]} == {"train", "all"}
    assert all(len(value) == 64 for value in hashes.values())


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_hash_of_all_depends_on_the_held_out_rows(make, split):
    rows = {**HELD_OUT, split: [*HELD_OUT[split], ("boring boring", "neg")]}
    before, after = make("a", train=TRAIN, **HELD_OUT).manifest.sha256, make("b", train=TRAIN, **rows).manifest.sha256
    assert {name for name in after if after[name] != before[name]} == {split, "all"}


def test_the_hash_tells_rows_apart_whose_letters_run_on_alike(make):
    one = make("one", train=[("good film", "a"), ("xy", "b")], validation=[("v", "a")], test=[("t", "b")])
    two = make("two", train=[("good fil", "ma"), ("xy", "b")], validation=[("v", "ma")], test=[("t", "b")])
    three = make("three", train=[("good film", "ax"), ("y", "b")], validation=[("v", "ax")], test=[("t", "b")])
    assert len({done.manifest.sha256["train"] for done in (one, two, three)}) == 3


def test_a_pin_follows_the_content_of_data_and_tokenizer(tmp_path, tiny_checkpoint):
    data = DataConfig(train=str(write_csv(tmp_path / "a.csv", TRAIN)))
    first = pin(data, model_config(tiny_checkpoint))
    copy = DataConfig(train=str(write_csv(tmp_path / "b.csv", TRAIN)))
    assert pin(copy, model_config(tiny_checkpoint)) == first
    write_csv(tmp_path / "b.csv", TRAIN[::-1])
    assert pin(copy, model_config(tiny_checkpoint)) != first
    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, other)
    assert pin(data, model_config(other)) == first
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    assert pin(data, model_config(other)) != first


def test_a_pin_covers_the_held_out_files(tmp_path, tiny_checkpoint):
    data = DataConfig(
        train=str(write_csv(tmp_path / "a.csv", TRAIN)), test=str(write_csv(tmp_path / "t.csv", HELD_OUT["test"]))
    )
    first = pin(data, model_config(tiny_checkpoint))
    write_csv(tmp_path / "t.csv", HELD_OUT["validation"])
    assert pin(data, model_config(tiny_checkpoint)) != first


def test_a_source_that_can_move_has_no_pin(tiny_checkpoint):
    assert pin(DataConfig(train="hf://owner/name"), model_config(tiny_checkpoint)) == ""


def test_a_pin_of_absent_data_is_refused(tiny_checkpoint):
    with pytest.raises(InputError, match=r"^data\.test: absent\.csv: no such file"):
        pin(DataConfig(train="sample:support_desk", test="absent.csv"), model_config(tiny_checkpoint))


def test_data_that_changed_since_it_was_pinned_is_refused(tmp_path, tiny_checkpoint):
    path = write_csv(tmp_path / "rows.csv", reviews(60))
    data, model = DataConfig(train=str(path)), model_config(tiny_checkpoint)
    pinned = pin(data, model)
    assert sum(prepare(data, model, tmp_path / "same", pinned).rows.values()) == 60
    write_csv(path, reviews(61))
    with pytest.raises(InputError, match="changed since this run was submitted; submit it again"):
        prepare(data, model, tmp_path / "changed", pinned)
    assert not (tmp_path / "changed").exists()


def parameters(path: Path | str, checkpoint: Path) -> dict[str, Any]:
    recipe = Recipe(data=DataConfig(train=str(path)), model=model_config(checkpoint))
    return {key: value for key, value in recipe.flat().items() if key.startswith(("data_", "model_"))}


def outputs(folder: Path) -> tuple[dsl.Dataset, dsl.HTML, dsl.Metrics]:
    return (
        dsl.Dataset(uri=str(folder / "data")),
        dsl.HTML(uri=str(folder / "page.html")),
        dsl.Metrics(uri=str(folder / "metrics")),
    )


def test_the_step_shows_what_it_made_and_records_it(store, tmp_path, reviews_csv, tiny_checkpoint):
    out, page, shown = outputs(tmp_path)
    prepare_step(out, page, shown, "", **parameters(reviews_csv, tiny_checkpoint))
    manifest = PreparedData.load(tmp_path / "data")
    assert out.metadata == {"labels": 2, "sha256": manifest.sha256["all"], **manifest.rows}
    (run,) = store.search_runs([store.get_experiment_by_name("tuneline").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {
        **{f"{split}_rows": float(rows) for split, rows in manifest.rows.items()},
        **{f"{split}_truncated": 0.0 for split in SPLITS},
        "warnings": 0.0,
        "removed_rows": 0.0,
        "label_errors": 0.0,
    }
    assert shown.metadata == run.data.metrics
    assert Path(page.path).read_bytes() == (tmp_path / "data/audit.html").read_bytes()
    assert run.data.params["data_train"] == str(reviews_csv)
    assert len(run.inputs.dataset_inputs) == 3
    assert {file.path for file in store.list_artifacts(run.info.run_id)} == {
        "manifest.json", "audit.html", "audit.json", "label_errors.csv",
    }  # fmt: skip


def test_the_step_ends_with_one_line_and_status_2_where_its_input_is_bad(store, tmp_path, tiny_checkpoint, capsys):
    with pytest.raises(SystemExit) as caught:
        prepare_step(*outputs(tmp_path), "", **parameters("absent.csv", tiny_checkpoint))
    assert caught.value.code == 2
    told = [line for line in capsys.readouterr().out.splitlines() if "error" in line]
    assert len(told) == 1
    assert told[0].startswith("tuneline: error: data.train: absent.csv: no such file")
    (run,) = store.search_runs([store.get_experiment_by_name("tuneline").experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.tags["tuneline.error"] == told[0].removeprefix("tuneline: error: ")
