"""The command line itself: its verbs, their help, and how its wrong use ends."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

import tuneline
from tuneline_pipelines.cli import app
from tuneline_pipelines.console import ORDER

VERBS = typer.main.get_command(app).list_commands(typer.Context(typer.main.get_command(app)))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["wrongverb"], "error: no such command 'wrongverb'; see `tuneline --help`"),
        (["run", "--bogus"], "error: no such option: --bogus; see `tuneline run --help`"),
        (["predict", "a@b"], "error: missing argument 'file'; see `tuneline predict --help`"),
        (["runs", "--limit", "0"], "error: invalid value for '--limit': "),
        (["sweep", "text", "--workers", "none", "--budget", "1h"], "error: invalid value for '--workers': "),
    ],
)
def test_a_wrong_use_is_one_line_and_with_json_one_object(words: list[str], told: str) -> None:
    done = CliRunner().invoke(app, words, prog_name="tuneline")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
    scripted = CliRunner().invoke(app, [*words, "--json"], prog_name="tuneline")
    assert (scripted.exit_code, json.loads(scripted.stdout)["status"]) == (2, "failed")


def test_the_version_is_told_and_nothing_else_done() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"{tuneline.__version__}\n")


def test_verbs_are_listed_in_the_order_in_which_they_are_needed() -> None:
    assert tuple(VERBS) == ORDER


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_an_example_of_it(verb: str) -> None:
    done = CliRunner().invoke(app, [verb, "-h"], prog_name="tuneline", env={"COLUMNS": "120", "NO_COLOR": "1"})
    assert done.exit_code == 0
    assert f"\n tuneline {verb}" in "\n".join(line.rstrip() for line in done.stdout.splitlines())
