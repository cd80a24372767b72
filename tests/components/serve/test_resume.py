"""A file labelled into another: what one call answers, whatever the form, and however often it was killed."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.components.conftest import write_csv
from tests.conftest import reviews
from tuneline.errors import InputError
from tuneline.serve import resume
from tuneline.serve.model import Classifier

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[3]
TEXTS = [text for text, _ in reviews(600)]
ROWS = [{"text": text} for text in TEXTS]


@pytest.fixture
def registry(house, monkeypatch):
    """The house's registry, in this process."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", house.uri)
    house.point("1")
    return house


@pytest.fixture(scope="module")
def expected(house):
    return Classifier(house.folders["1"]).predict_proba(TEXTS)


@pytest.fixture
def source(tmp_path) -> Path:
    return write_csv(tmp_path / "in.csv", [(text,) for text in TEXTS], ("text",))


class Told:
    """What was told: progress and remarks. The work ends by an interrupt after `until` texts."""

    def __init__(self, until: int | None = None) -> None:
        self.progress: list[tuple[int, int, str]] = []
        self.remarks: list[str] = []
        self.until = until

    def tell(self, done: int, total: int, note: str) -> None:
        self.progress.append((done, total, note))
        if self.until is not None and done >= self.until:
            raise KeyboardInterrupt


def label(source: Path, out: Path, told: Told, model: str = "reviews@champion", precision: str = "fp32") -> None:
    resume.predict_to(model, str(source), ["text"], out, told.tell, told.remarks.append, precision)


def stop_after(count: int, source: Path, out: Path, model: str = "reviews@champion") -> None:
    with pytest.raises(KeyboardInterrupt):
        label(source, out, Told(count), model)


def scores(out: Path) -> np.ndarray:
    """The texts must be those that were given; their scores."""
    if out.suffix == ".parquet":
        rows = pq.read_table(out).to_pylist()
    elif out.suffix == ".csv":
        with out.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    found = np.array([[float(row["p(no0)"]), float(row["p(yes0)"])] for row in rows])
    assert [row["label"] for row in rows] == [["no0", "yes0"][best] for best in found.argmax(1)]
    return found


@pytest.mark.parametrize("form", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("given", [".csv", ".jsonl", ".parquet"])
def test_every_form_in_and_out_holds_what_the_classifier_answers(registry, expected, tmp_path, given, form):
    source = tmp_path / f"in{given}"
    if given == ".csv":
        write_csv(source, [(text,) for text in TEXTS], ("text",))
    elif given == ".jsonl":
        source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), source)
    told = Told()
    label(source, tmp_path / f"out{form}", told)
    assert scores(tmp_path / f"out{form}") == pytest.approx(expected, abs=1e-5)
    assert told.progress[-1] == (600, 600, "texts | ETA 0:00")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted([f"in{given}", f"out{form}"])


def test_a_command_that_was_stopped_goes_on_and_answers_nothing_twice(registry, expected, source, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("old")
    stop_after(256, source, out)
    assert out.read_text() == "old"
    with (tmp_path / ".out.csv.answers").open("ab") as stream:
        stream.write(b"cut")  # in the middle of a row
    told = Told()
    label(source, out, told)
    assert told.remarks == ["going on after 256 of 600 texts"]
    assert [done for done, _, _ in told.progress] == [512, 600]
    assert scores(out) == pytest.approx(expected, abs=1e-5)


def test_killed_after_the_last_answer_it_only_writes(registry, expected, source, tmp_path):
    stop_after(600, source, tmp_path / "out.csv")
    told = Told()
    label(source, tmp_path / "out.csv", told)
    assert told.progress == []
    assert scores(tmp_path / "out.csv") == pytest.approx(expected, abs=1e-5)


def test_answers_of_another_version_file_or_precision_are_not_taken(registry, source, tmp_path):
    out = tmp_path / "out.jsonl"
    stop_after(256, source, out, "reviews/2")
    told = Told(256)
    with pytest.raises(KeyboardInterrupt):
        label(source, out, told)
    dropped = "answers of an earlier command are dropped: "
    assert told.remarks == [f"{dropped}they are reviews/2's, and reviews/1 is asked; name the version to go on"]
    write_csv(source, [(text,) for text in reversed(TEXTS)], ("text",))
    for precision in ("fp32", "bf16"):
        told = Told(256)
        with pytest.raises(KeyboardInterrupt):
            label(source, out, told, precision=precision)
        assert told.remarks == [f"{dropped}they are of another file, column or precision"]
        assert told.progress[0][0] == 256


def test_a_file_that_changes_meanwhile_gives_no_output(registry, source, tmp_path):
    class Changing(Told):
        def tell(self, done: int, total: int, note: str) -> None:
            write_csv(source, [(text,) for text in reversed(TEXTS)], ("text",))

    with pytest.raises(InputError, match=r"in\.csv: has changed while it was read"):
        label(source, tmp_path / "out.csv", Changing())
    assert not (tmp_path / "out.csv").exists()


def test_two_commands_do_not_write_one_output(registry, source, tmp_path):
    class Twice(Told):
        def tell(self, done: int, total: int, note: str) -> None:
            with pytest.raises(InputError, match="another command is writing"):
                label(source, tmp_path / "out.csv", Told())
            super().tell(done, total, note)

    told = Twice()
    label(source, tmp_path / "out.csv", told)
    assert told.progress[-1][:2] == (600, 600)


@pytest.mark.parametrize(
    ("name", "out", "told"),
    [
        ("in.csv", "out.txt", r"out\.txt: unknown form '\.txt'; allowed: \.csv, \.jsonl, \.parquet"),
        ("nowhere.csv", "out.csv", "no such file"),
        ("in.csv", "no/folder/out.csv", "out.csv: cannot be written: No such file or directory"),
        ("bad.csv", "out.csv", r"bad\.csv: row 3, column 'text': empty text"),
    ],
)
def test_what_cannot_be_done_is_told_before_the_model_is_loaded(registry, source, tmp_path, name, out, told):
    write_csv(tmp_path / "bad.csv", [("good",), ("bad",), (" ",)], ("text",))
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=told):
        label(tmp_path / name, tmp_path / out, Told())
    assert set(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_killed_outright_again_and_again_the_end_is_the_same(house, expected, source, tmp_path):
    house.point("1")
    paths = os.pathsep.join(str(ROOT / name) for name in ("components", "pipelines"))
    environment = os.environ | {"MLFLOW_TRACKING_URI": house.uri, "PYTHONPATH": paths}
    code = (
        "import sys, time\nfrom tuneline.serve import resume\nresume.CHUNK = 8\n"
        "resume.predict_to(sys.argv[1], sys.argv[2], ['text'], resume.Path(sys.argv[3]),"
        " lambda *_: time.sleep(0.05), print)"
    )
    command = [sys.executable, "-c", code, "reviews@champion", str(source), str(tmp_path / "out.csv")]
    draw, kept = random.Random(0), tmp_path / ".out.csv.answers"
    for _ in range(4):
        process = subprocess.Popen(command, env=environment)
        before = kept.stat().st_size if kept.exists() else 0
        while not (kept.exists() and kept.stat().st_size > before):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, env=environment, check=True)
    assert scores(tmp_path / "out.csv") == pytest.approx(expected, abs=1e-5)
