"""tuneline imbalance and tuneline choose: one JSON object, pages on the run, and bad input in one line."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest
from tests.components.conftest import write_csv
from tests.conftest import reviews
from typer.testing import CliRunner, Result

from tuneline.search.job import TrialLost
from tuneline.tracking import client
from tuneline_pipelines.cli import app

pytestmark = pytest.mark.medium


@pytest.fixture
def ask(tmp_path: Path, tiny_checkpoint: Path, reviews_csv: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def run(command: str, *more: str) -> Result:
        words = [command, "text", f"data.train={reviews_csv}", "data.validation_share=0.3",
                 f"model.name={tiny_checkpoint}", "model.max_length=16", "train.epochs=1",
                 "train.learning_rate=5e-3"]  # fmt: skip
        return CliRunner().invoke(app, [*words, *more])

    return run


def artifacts(run_id: str) -> set[str]:
    from tuneline.tracking import client

    assert client().get_run(run_id).info.status == "FINISHED"
    return {file.path for file in client().list_artifacts(run_id)}


@pytest.mark.slow
def test_imbalance_compares_all_treatments_and_says_what_to_do(ask, own_store):
    done = ask("imbalance", "--seeds", "1", "--folds", "2", "--json")
    assert done.exit_code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    names = [row["treatment"] for row in result["treatments"]]
    assert names == ["none", "class_weights", "focal", "balanced_sampling", "logit_adjustment", "thresholds"]
    assert result["recommended"] in names
    assert "plain cross-entropy" in result["sentence"]
    for row in result["treatments"]:
        for metric in ("macro_f1", "average_precision", "recall"):
            value, low, high = row[metric]
            assert low <= value <= high
        assert set(row["per_class_recall"]) == {"neg", "pos"}
    assert artifacts(result["run_id"]) == {"imbalance.png", "imbalance.html", "imbalance.json", "configuration"}
    assert list(own_store.rglob("test.arrow")) == []
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert "pooled over 2 folds" in page
    assert "data:image/png;base64," in page


@pytest.fixture
def three_classes(tmp_path: Path) -> list[str]:
    """A data set whose rarest class stands in training alone."""
    train = write_csv(tmp_path / "train.csv", [*reviews(200), *(("a film, odd", "odd"), ("boring plot, odd", "odd"))])
    validation = write_csv(tmp_path / "validation.csv", reviews(40, 300))
    return [f"data.train={train}", f"data.validation={validation}", "data.validation_share=0"]


@pytest.mark.slow
def test_classes_that_have_a_held_out_row_are_compared_where_the_rarest_has_none(ask, three_classes):
    done = ask("imbalance", *three_classes, "--seeds", "1", "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["not_held_out"] == ["odd"]
    assert result["rarest"] in ("neg", "pos")
    assert result["rows_of_rarest"]["held_out"] > 0
    assert "No row of 'odd' is held out" in unescape(Path(result["page"]).read_text(encoding="utf-8"))


def test_a_metric_of_a_class_without_a_held_out_row_is_refused_before_there_is_a_run(ask, three_classes, own_store):
    done = ask("imbalance", *three_classes, "--metric", "recall")
    assert done.exit_code == 2, done.stderr
    assert "recall given; it is measured on 'odd', the rarest class (2 training rows), of which no row" in done.stderr
    assert "take --folds 5" in done.stderr
    assert not (own_store / "search" / "trials").exists()
    store = client()
    assert store.search_runs([experiment.experiment_id for experiment in store.search_experiments()]) == []


@pytest.mark.slow
def test_choose_ranks_checkpoints_beside_the_baseline(ask, own_store, tiny_checkpoint, tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, other)
    priced = ["--usd-per-hour", "3.6", "--budget", "1h"]
    done = ask("choose", "--models", f"{tiny_checkpoint},{other}", *priced, "--json")
    assert done.exit_code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert sorted(result["ranking"]) == sorted([str(tiny_checkpoint), str(other)])
    assert [row["how"] for row in result["candidates"]][2:] == ["frozen, logistic head"] * 2 + [
        "TF-IDF, logistic regression"
    ]
    assert result["sentence"].startswith("Take ")
    assert (result["budget"], result["ended"], result["lost"]) == ("1h", None, {})
    for row in result["candidates"]:
        assert row["usd_to_train"] == pytest.approx(row["seconds"] / 1000)
        assert row["usd_a_million_texts"] == pytest.approx(row["latency_ms"])
    assert "usd a million texts" in Path(result["page"]).read_text(encoding="utf-8")
    assert artifacts(result["run_id"]) == {"choose.png", "choose.html", "choose.json", "configuration"}
    assert list(own_store.rglob("test.arrow")) == []


@pytest.mark.parametrize("typo", ["data.train=absent.csv", "data.text_column=nope"])
@pytest.mark.parametrize("command", ["imbalance", "choose"])
def test_a_typo_leaves_no_failed_run_behind(ask, tiny_checkpoint, command, typo):
    from tuneline.tracking import client

    models = ["--models", f"{tiny_checkpoint},{tiny_checkpoint}/"] if command == "choose" else []
    done = ask(command, typo, *models)
    assert done.exit_code == 2, done.stderr
    assert typo.partition("=")[2] in done.stderr
    experiments = [found.experiment_id for found in client().search_experiments()]
    assert client().search_runs(experiments) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["imbalance", "--folds", "1"], "--folds: 1 given; take 2 or more, or 0 for the validation split"),
        (["choose", "--models", "one"], "--models: 'one' given; name two checkpoints or more"),
        (["choose", "--models", "a,b", "--metric", "f2"], "--metric: 'f2' given; must be accuracy or macro_f1"),
        (["choose", "--models", "a,b", "--budget", "much"], "--budget: 'much' given; write a number above 0"),
        (["choose", "--models", "a,b", "--budget", "5usd"], "--budget: dollars need the machine's price"),
        (["imbalance", "--folds", "2", "data.group_column=author"], "--folds: 2 given with data.group_column=author"),
        (["choose", "--models", "./none,./nowhere"], "model.name: ./none: no checkpoint there"),
    ],
)
def test_bad_input_is_one_line(ask, words, told):
    done = ask(*words)
    assert done.exit_code == 2, done.stderr
    assert told in done.stderr
    assert done.stderr.count("error:") == 1


def test_a_training_that_is_killed_ends_a_comparison_in_one_line(ask, own_store, monkeypatch):
    def killed(*_args: object, **_more: object) -> None:
        raise TrialLost("its process was killed or ended early (status -9)")

    monkeypatch.setattr("tuneline.search.engine.call", killed)
    done = ask("imbalance", "--seeds", "1")
    assert (done.exit_code, done.exception.__class__) == (1, SystemExit)
    assert done.stderr.splitlines()[-1] == "error: its process was killed or ended early (status -9)"


@pytest.mark.parametrize(("output", "why"), [
    ("mine.yaml", "holds something other than an earlier winner's recipe"),
    ("mine.yaml/best.yaml", "cannot be written"),
    (".", "is a folder; name a file"),
])  # fmt: skip
def test_where_a_sweep_cannot_write_its_winner_is_told_before_it_trains(ask, own_store, tmp_path, output, why):
    (tmp_path / "mine.yaml").write_text("# mine\n")
    done = ask("sweep", "--budget", "1trials", "--output", output)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --output: ")
    assert why in done.stderr
    assert (tmp_path / "mine.yaml").read_text() == "# mine\n"
    assert not (own_store / "search").exists()


@pytest.mark.parametrize(("storage", "told"), [
    (["--storage", "postgresql://me:hunter2@db/studies"], ", with TUNELINE_SWEEP_STORAGE set: tuneline sweep text"),
    (["--storage=postgresql://me:hunter 2@db/studies"], ", with TUNELINE_SWEEP_STORAGE set: tuneline sweep text"),
    (["--storage", "postgresql://db/studies?user=me&password=hunter2"], ", with TUNELINE_SWEEP_STORAGE set: tuneline"),
    (["--storage", "sqlite:///studies.db"], ": tuneline sweep text --storage sqlite:///studies.db"),
])  # fmt: skip
def test_a_command_that_is_stopped_says_how_it_goes_on_and_no_password(ask, own_store, monkeypatch, storage, told):
    def stopped(*_given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tuneline_pipelines.sweep.sweep", stopped)
    words = ["sweep", "text", *storage, "--budget", "9trials", "data.corrections=s3://key:hunter2@bucket/a.csv"]
    monkeypatch.setattr("sys.argv", ["/somewhere/tuneline", *words])
    done = ask("sweep", *storage, "--budget", "9trials", "--json")
    assert done.exit_code == 130
    for text in (done.stderr, json.loads(done.stdout)["error"]):
        assert f"this goes on from there{told}" in text
        assert "--budget 9trials data.corrections=s3://bucket/a.csv" in text
        assert "hunter" not in text
