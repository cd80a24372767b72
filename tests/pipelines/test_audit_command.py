"""tuneline audit: the prepare step alone, told in a table or as one JSON object, and no run is made."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.components.conftest import write_csv
from tests.conftest import reviews
from typer.testing import CliRunner, Result

from tuneline.prepare import corrections
from tuneline_pipelines.cli import app


@pytest.fixture
def audit(tmp_path, tiny_checkpoint, monkeypatch):
    """The command in a folder of its own, on rows held in memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(rows: list[Any], *more: str) -> Result:
        write_csv(Path("rows.csv"), rows)
        arguments = ["audit", "text", "data.train=rows.csv", f"model.name={tiny_checkpoint}", "model.max_length=32"]
        return CliRunner().invoke(app, [*arguments, *more])

    return run


def test_json_is_one_object_with_the_findings_and_where_the_page_is(audit, tmp_path):
    rows = reviews(120)
    done = audit([*rows, *rows[:7]], "--json", "--out", "looked")
    assert done.exit_code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["status"] == "succeeded"
    (copies,) = [finding for finding in result["findings"] if finding["check"] == "duplicate_in_split"]
    assert (copies["split"], copies["count"], copies["severity"]) == ("train", 7, "warning")
    assert copies["rows"]["train"] == list(range(121, 128))
    assert copies["action"]
    assert sum(result["rows"].values()) == 127
    assert set(result["sha256"]) >= {"train", "validation", "test", "all"}
    assert result["page"] == str(tmp_path / "looked" / "audit.html")
    assert Path(result["page"]).is_file()
    written = json.loads((tmp_path / "looked" / "audit.json").read_text())
    assert written["findings"] == result["findings"]


def test_without_json_a_table_the_verdict_and_the_page_are_shown_and_no_run_is_made(audit, own_store, tmp_path):
    done = audit([*reviews(120), ("[red]markup[/red]<br />", "[bold]")])
    assert done.exit_code == 0, done.stderr
    assert "markup" in done.stdout
    assert "[bold]" in done.stdout
    assert "verdict" in done.stdout
    page = own_store / "audit" / "text-classifier" / "audit.html"
    assert str(page) in done.stdout
    assert page.is_file()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_policy_that_fails_ends_in_2_and_one_line_and_the_page_is_there(audit, tmp_path):
    done = audit([*reviews(120), ("a<br />b", "pos")], "data.policy.markup=fail", "--out", "looked")
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "1 text of train with HTML tags or entities" in line
    assert "data.policy.markup=fix" in line
    assert str(tmp_path / "looked" / "audit.html") in line
    assert (tmp_path / "looked" / "audit.html").is_file()


def test_a_refusal_as_json_holds_the_findings_too(audit):
    done = audit([*reviews(120), ("", "pos")], "--json", "--out", "looked")
    assert done.exit_code == 2
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["status"] == "failed"
    assert "row 121, column 'text': empty text" in result["error"]
    assert [found["check"] for found in result["findings"] if found["severity"] == "error"] == ["empty_text"]


def test_a_folder_with_other_files_is_left_alone(audit, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = audit(reviews(60), "--out", "mine")
    assert done.exit_code == 2
    assert "holds files that are no audit" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("out", ["mine.txt", "mine.txt/audit"])
def test_a_file_is_no_place_for_an_audit(audit, tmp_path, out):
    (tmp_path / "mine.txt").write_text("years of work")
    done = audit(reviews(60), "--out", out)
    assert done.exit_code == 2
    assert re.fullmatch(r"error: .*--out.*mine\.txt'? is a file; .*\n", done.stderr)
    assert (tmp_path / "mine.txt").read_text() == "years of work"


def test_a_folder_where_others_files_lie_beside_an_audit_is_left_alone(audit, tmp_path):
    assert audit(reviews(60), "--out", "looked").exit_code == 0
    (tmp_path / "looked" / "thesis.txt").write_text("years of work")
    done = audit(reviews(60), "--out", "looked")
    assert done.exit_code == 2
    assert "thesis.txt" in done.stderr
    assert (tmp_path / "looked" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "looked" / "audit.html").is_file()


def test_an_audit_takes_the_place_of_an_earlier_one_also_after_data_that_cannot_be_read(audit, tmp_path):
    assert audit(reviews(60), "--out", "looked").exit_code == 0
    assert audit(reviews(60), "data.train=absent.csv", "--out", "looked").exit_code == 2
    done = audit(reviews(60), "--out", "looked")
    assert done.exit_code == 0, done.stderr
    assert audit([*reviews(60), ("", "pos")], "--out", "looked").exit_code == 2
    assert {path.name for path in (tmp_path / "looked").iterdir()} == {"audit.html", "audit.json"}


@pytest.mark.parametrize(
    ("rows", "check", "error"),
    [
        ([(text, "a") for text, _ in reviews(60)], "too_few_classes", "data.train: only one class ('a')"),
        (reviews(2), "no_rows", "no rows left in the"),
        ([(text, f"label {at}") for at, (text, _) in enumerate(reviews(60))], "no_rows", "no rows left in the"),
    ],
    ids=["one class", "two rows", "a class a row"],
)
def test_the_verdict_never_says_that_refused_data_can_be_trained_on(audit, tmp_path, rows, check, error):
    done = audit(rows, "--json", "--out", "looked")
    assert done.exit_code == 2
    result = json.loads(done.stdout.splitlines()[-1])
    assert error in result["error"]
    assert result["verdict"].startswith("This data is refused: ")
    assert next(found["check"] for found in result["findings"] if found["severity"] == "error") == check
    assert json.loads((tmp_path / "looked" / "audit.json").read_text())["status"] == "refused"
    assert "This data is refused" in (tmp_path / "looked" / "audit.html").read_text()


@pytest.mark.parametrize("typo", [["data.train=absent.csv"], ["data.text_column=nope"], ["data.max_train=1"]])
def test_an_earlier_audit_outlives_a_typo(audit, tmp_path, typo):
    assert audit(reviews(60), "--out", "looked").exit_code == 0
    before = {path.name for path in (tmp_path / "looked").iterdir()}
    done = audit(reviews(60), *typo, "--out", "looked", "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout) == {"status": "failed", "error": json.loads(done.stdout)["error"]}
    assert {path.name for path in (tmp_path / "looked").iterdir()} == before


@pytest.fixture
def listed(audit, own_store) -> Path:
    """label_errors.csv of an audit in the state folder, of rows some of which are labelled wrongly."""
    done = audit(mislabelled())
    assert done.exit_code == 0, done.stderr
    return own_store / "audit" / "text-classifier" / "label_errors.csv"


def mislabelled() -> list[tuple[str, str]]:
    other = {"pos": "neg", "neg": "pos"}
    return [(text, label if row % 11 else other[label]) for row, (text, label) in enumerate(reviews(120))]


def fill_in(path: Path, label: str) -> int:
    """Write the label into new_label of all rows; how many there are."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"new_label": label} for row in rows)
    return len(rows)


@pytest.mark.parametrize("how", ["handed back", "forgotten", "other data", "refused data", "unreadable data"])
def test_corrections_that_a_person_typed_in_outlive_every_later_audit(audit, listed, how):
    count = fill_in(listed, "pos")
    rows, more = {
        "handed back": (mislabelled(), [f"data.corrections={listed}"]),
        "forgotten": (mislabelled(), []),
        "other data": (reviews(60, 500), []),
        "refused data": ([*reviews(60), ("", "pos")], []),
        "unreadable data": (reviews(60), ["data.train=absent.csv"]),
    }[how]
    done = audit(rows, *more)
    assert len(corrections.load(str(listed)).labels) == count > 0
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(listed) in line
    assert "move it" in line


def test_corrections_that_were_moved_away_are_applied_by_the_next_audit(audit, listed, tmp_path):
    count = fill_in(listed, "pos")
    listed.rename("mine.csv")
    done = audit(mislabelled(), "data.corrections=mine.csv", "--json")
    assert done.exit_code == 0, done.stderr
    assert len(corrections.load("mine.csv").labels) == count
    notes = json.loads((listed.parent / "manifest.json").read_text())["notes"]
    assert f"by {count} corrections" in notes[0]


def test_a_list_that_a_spreadsheet_made_unreadable_is_kept_too(audit, listed):
    listed.write_bytes(b"new_label;key\n\xe9;k0\n")
    done = audit(mislabelled())
    assert done.exit_code == 2
    assert str(listed) in done.stderr
    assert listed.read_bytes() == b"new_label;key\n\xe9;k0\n"


def test_data_that_lie_in_the_folder_to_write_are_refused_and_kept(audit, tmp_path):
    assert audit(reviews(60), "--out", "looked").exit_code == 0
    done = audit(reviews(60), "data.train=looked/train.arrow", "--out", "looked")
    assert done.exit_code == 2
    assert "data.train" in done.stderr
    assert (tmp_path / "looked" / "train.arrow").is_file()
