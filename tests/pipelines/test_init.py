"""tuneline init: what it guesses, what it asks, and that every other command reads what it writes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from tuneline.errors import InputError
from tuneline.recipe import load_recipe
from tuneline_pipelines.cli import app
from tuneline_pipelines.init import Columns, Where, check, guess, next_commands, write
from tuneline_pipelines.resources import load_profile

ROWS = [{"id": n, "body": f"the {n}th message of many words", "topic": "ab"[n % 2]} for n in range(30)]


def table_file(folder: Path, form: str) -> str:
    path = folder / f"data.{form}"
    if form in ("csv", "tsv"):
        sign = {"csv": ";", "tsv": "\t"}[form]
        path.write_text("\n".join(sign.join(map(str, row)) for row in [ROWS[0], *(r.values() for r in ROWS)]) + "\n")
    elif form == "jsonl":
        path.write_text("\n\n" + "\n".join(json.dumps(row) for row in ROWS))
    elif form == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        pa.feather.write_feather(pa.Table.from_pylist(ROWS), path, compression="uncompressed")
    return str(path)


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet", "arrow"])
def test_columns_are_guessed_in_every_form(tmp_path: Path, form: str) -> None:
    found = guess(table_file(tmp_path, form))
    assert found == Columns("body", "topic", ("id", "body", "topic"), 30, 2)


def test_where_names_say_nothing_the_long_cells_are_texts_and_few_values_labels(tmp_path: Path) -> None:
    rows = [{"no": n, "a": "xyz"[n % 3], "b": f"some longer words {n}", "same": "1"} for n in range(9)]
    (tmp_path / "odd.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = guess(str(tmp_path / "odd.jsonl"))
    assert (found.text, found.label, found.labels) == ("b", "a", 3)


@pytest.mark.parametrize("data", ["s3://bucket/x", "hf://owner/name", "sample:support_desk", "*.csv", "."])
def test_what_is_no_file_here_is_not_looked_into(data: str) -> None:
    assert guess(data) == Columns("text", "label")


def test_a_column_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = table_file(tmp_path, "csv")
    with pytest.raises(InputError, match="no column 'nope'"):
        check(data, Columns("body", "nope", ("id", "body", "topic")))


@pytest.mark.parametrize("option", ["--text", "--label"])
def test_a_column_that_is_not_there_is_refused_in_the_words_of_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["init", "desk", "--data", table_file(tmp_path, "csv"), option, "nope"])
    assert done.exit_code == 2
    assert done.stderr.rstrip().endswith(f"name yours with {option} NAME")


def test_a_file_of_another_encoding_is_not_refused_with_a_key_that_init_has_not(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,a\n".encode("cp1252"))
    with pytest.raises(InputError, match="is not UTF-8; convert the file") as caught:
        guess(str(tmp_path / "latin.csv"))
    assert "data.encoding" not in str(caught.value)


def test_rows_without_a_key_of_the_first_are_no_obstacle_once_both_columns_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"body": "a b", "topic": "x", "note": "n"}, {"body": "c d", "topic": "y"}]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = ["init", "desk", "--data", "rows.jsonl"]
    done = CliRunner().invoke(app, asked)
    assert "row 2 has no column 'note'" in done.stderr
    assert done.stderr.rstrip().endswith("name yours with --text/--label NAME")
    assert CliRunner().invoke(app, [*asked, "--text", "body", "--label", "topic"]).exit_code == 0


def test_a_file_with_one_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("text\nhello\n")
    with pytest.raises(InputError, match="a text and a label are needed"):
        guess(str(tmp_path / "one.csv"))


@pytest.mark.parametrize("odd", ["my data.csv", "yes", "1", "a: b #c", "größe", "'", "-"])
def test_what_is_written_is_read_as_it_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    monkeypatch.chdir(tmp_path)
    write("desk", odd, Columns(odd, "topic"), Where.LAPTOP)
    recipe = load_recipe(tmp_path / "desk.yaml", [])
    assert (recipe.data.train, recipe.data.text_column, recipe.register_.name) == (odd, odd, "desk")


def test_a_cluster_gets_a_profile_that_the_compiler_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = write("desk", "s3://b/x.csv", Columns("text", "label"), Where.CLUSTER)
    assert load_profile(files[1]).server is not None
    assert next_commands("desk", Where.CLUSTER)[-1] == "tuneline submit desk.yaml --profile desk.cluster.yaml --wait"


def test_nothing_is_written_over_without_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "desk.yaml").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        write("desk", "x.csv", Columns("text", "label"), Where.LAPTOP)
    assert (tmp_path / "desk.yaml").read_text() == "mine"
    write("desk", "x.csv", Columns("text", "label"), Where.LAPTOP, force=True)
    assert load_recipe(tmp_path / "desk.yaml", []).data.train == "x.csv"


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="not a name"):
        write(name, "x.csv", Columns("text", "label"), Where.LAPTOP)


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("tuneline")), "init", "desk", *arguments]


def test_a_person_at_a_terminal_is_asked_and_offered_the_guess(tmp_path: Path) -> None:
    data = table_file(tmp_path, "csv")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command(), stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, close_fds=True)
    os.close(theirs)
    os.write(ours, f"{data}\n\n\ndocker\n".encode())
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    assert process.wait() == 0, shown.decode()
    assert b"[body]" in shown and b"[topic]" in shown and b"[laptop]" in shown
    assert b"tuneline run desk.yaml --docker" in shown
    recipe = load_recipe(tmp_path / "desk.yaml", [])
    assert (recipe.data.train, recipe.data.label_column) == (data, "topic")


@pytest.mark.parametrize("answered", ["", "data.csv\n"])
def test_who_leaves_at_a_question_is_told_that_nothing_was_written(tmp_path: Path, answered: str) -> None:
    table_file(tmp_path, "csv")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(), stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=os.environ | {"NO_COLOR": "1"}
    )
    os.close(theirs)
    os.write(ours, answered.encode() + b"\x04")
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    assert process.wait() == 130, shown.decode()
    assert shown.decode().splitlines()[-1] == "error: interrupted; nothing was written"
    assert list(tmp_path.iterdir()) == [tmp_path / "data.csv"]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [([], "--data: not given"), (["--data", "data.csv", "--where", "moon"], "must be one of: laptop, docker, cluster")],
)
def test_a_script_that_leaves_out_what_has_no_default_is_told_in_one_line(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    table_file(tmp_path, "csv")
    done = subprocess.run(command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "desk.yaml").exists()


def test_the_first_text_of_a_file_without_a_header_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text('"My name is Jane Doe, born 1970-01-01, and I need help",complaint\nfine,praise\n')
    done = CliRunner().invoke(app, ["init", "desk", "--data", "rows.csv", "--text", "text", "--label", "label"])
    assert done.exit_code == 2
    assert "My name is Jane Doe" in done.stderr
    assert "1970" not in done.stderr + done.stdout


def test_a_recipe_that_would_be_refused_is_not_left_in_the_way_of_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table_file(tmp_path, "csv")
    asked = ["init", "desk", "--data", "data.csv", "--text", "body"]
    done = CliRunner().invoke(app, [*asked, "--label", "body"])
    assert done.exit_code == 2
    assert "must differ from data.text_column" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]
    done = CliRunner().invoke(app, [*asked, "--label", "topic"])
    assert done.exit_code == 0, done.stderr
    before = Path("desk.yaml").read_text()
    assert CliRunner().invoke(app, [*asked, "--label", "body", "--force"]).exit_code == 2
    assert Path("desk.yaml").read_text() == before


@pytest.mark.parametrize("data", ["empty", "*.nope", "hf://", "sample:no"])
def test_a_source_that_holds_nothing_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    done = CliRunner().invoke(app, ["init", "desk", "--data", data])
    assert done.exit_code == 2
    assert "error: " in done.stderr
    assert data in done.stderr
    assert not Path("desk.yaml").exists()
