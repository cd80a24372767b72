"""Every block of README.md is run as it stands, on a tiny checkpoint and tiny files; one that is not known here fails.

Of the other pages, every command of tuneline is one that the command line takes.

All of them run in one folder. To teach a new kind of command, add it to `Reader.run`; what needs more than this machine
(a cluster, a registry) goes to ELSEWHERE with the reason, and is only parsed.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from tests.conftest import ROOT, free_port
from tests.e2e.conftest import Project, wait_until_healthy
from tests.e2e.readme import Block, blocks, make_data, targets
from tuneline_pipelines.cli import app
from tuneline_pipelines.recipes import load, shipped
from tuneline_pipelines.show import show_result

README = blocks(ROOT / "README.md")
PAGES = {
    line: block for page in sorted((ROOT / "docs").glob("*.md")) for block in blocks(page)
    for line in block.lines if line.startswith("tuneline ")
}  # fmt: skip
"""Each command of tuneline on another page, and where it stands."""
MAKE = {
    "run": "`tuneline run` after an installation; that command is run here",
    "test": "by .ci/run; this test may be part of it",
    "test-slow": "by .ci/run; this test is part of it",
    "lint": "by .ci/run",
    "checks": "by .ci/run",
    "format": "writes over the working tree; its two commands are lint's, which .ci/run runs",
    "bench": "hours; tests/benchmarks are linted and typed, and their figures stand in docs/experiments.md",
    "results": "hours; its pieces, and that its commands parse, are tested in tests/benchmarks",
    "constraints": "writes over a file from what is installed",
}
"""How each target of make that the README shows is run, or why it is not."""
ELSEWHERE = {
    "tuneline submit topics.yaml --profile topics.cluster.yaml --wait": "a cluster; tests/pipelines has its own server",
}
"""Commands that need more than this machine, by their words, with the reason: they are checked like those of docs."""
CHEAP = ["model.max_length=16", "train.epochs=1", "register.rules.beats_baseline=false"]
"""What a training is given so that it takes seconds; the gate of a real one is tested where the gate is."""


class Reader:
    """A person who types what the README shows, in a project of theirs, at two terminals.

    A run of the pipeline is half a minute of one core, nearly all of it imports: `begin` has them run two at a time.
    """

    def __init__(self, project: Project, checkpoint: Path) -> None:
        self.project = project
        self.cheap = [f"model.name={checkpoint}", *CHEAP]
        self.terminals = ThreadPoolExecutor(2)
        self.begun: dict[tuple[str, ...], Future[dict[str, Any]]] = {}

    def begin(self, *more: str) -> Future[dict[str, Any]]:
        """`tuneline run` with these words, started once."""
        if more not in self.begun:
            self.begun[more] = self.terminals.submit(self.project.succeed, "run", *more, *self.cheap)
        return self.begun[more]

    def begin_all(self, those: list[Block]) -> None:
        """All runs of these blocks; `make run` comes first, which others build on."""
        self.begin()
        for words in (words for block in those if not block.language for words in block.commands):
            if is_run(words):
                self.begin(*map(os.path.expandvars, words[2:]))

    def run(self, block: Block, words: list[str]) -> None:
        """Run a command of a block; fails where it fails, or where nothing is known of it."""
        words = [os.path.expandvars(word) for word in words]
        match words:
            case ["make", target] if target in MAKE:
                check_target(target)
                if target == "run":
                    self.ensure_quickstart()
            case _ if is_run(words):
                assert self.begin(*words[2:]).result()["status"] == "succeeded"
            case ["tuneline", "init", *_]:  # what it would ask a person for is said
                self.succeed([*words[1:], "--data", "my.csv", "--text", "text", "--label", "label"])
            case ["tuneline", "audit", *_]:
                self.succeed(words[1:])
            case ["printf", text, ">", name]:
                (self.project.folder / name).write_text(text.replace("\\n", "\n"))
            case ["tuneline", "predict", model, file]:
                self.ensure_quickstart()
                answers = self.succeed(["predict", model, file]).splitlines()
                assert answers[0].startswith("text,label,score,")
                assert len(answers) == 2
            case ["tuneline", "compare" | "promote" | "history" | "trace", model, *_] if model.startswith("quickstart"):
                self.ensure_quickstart()
                self.succeed(words[1:])
            case ["tuneline", "ui"]:
                self.see_ui()
            case _ if " ".join(words) in ELSEWHERE:
                check_words(words[1:])
            case _:
                pytest.fail(f"{block}: `{' '.join(words)}`: nothing is known here of how to run it; see Reader.run")

    def succeed(self, words: list[str]) -> str:
        """What a command printed."""
        done = self.project.tuneline(*words)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def printed(self, block: Block) -> None:
        """What a block shows of the quickstart's end is what is printed, but for numbers, verdicts and folders."""
        console = Console(record=True, file=io.StringIO(), width=200)
        show_result(console, self.begin().result())
        shown = {shape(line) for line in console.export_text().splitlines()}
        assert len(block.lines) > 5
        for line in block.lines:
            assert shape(line) in shown, f"{block}: `{line}` is not what is printed"

    def ensure_quickstart(self) -> None:
        """What `make run` has left: the champion of the quickstart."""
        assert self.begin().result()["model"]["aliases"] == ["challenger", "champion"]

    def see_ui(self) -> None:
        """The UI starts, answers, and ends when it is stopped."""
        port = free_port()
        command = self.project.start("ui", "--port", str(port))
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", command)
        finally:
            command.terminate()
            command.communicate(timeout=30)

    def python(self, text: str) -> None:
        """Run a block of Python as a person's script would."""
        self.ensure_quickstart()
        environment = self.project.environment
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=self.project.folder, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]


def shape(line: str) -> str:
    """A printed line without its numbers; of a verdict, a remark and a path the label alone."""
    label, _, rest = line.partition(" ")
    return label if label in ("gate", "data", "report") else f"{label} {re.sub(r'[0-9.]+', '#', rest)}"


def is_run(words: list[str]) -> bool:
    """Whether this runs the pipeline as processes here."""
    return words[:2] == ["tuneline", "run"] and "--docker" not in words


def check_target(target: str) -> None:
    """The target is there and is what MAKE says of it."""
    known, ci = targets(), (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert target in known, f"the Makefile has no {target}"
    if MAKE[target].startswith("by .ci/run"):
        assert f"make {target}" in ci.splitlines()
    if target == "run":
        assert known["run"] == ["$(BIN)/tuneline run"]
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_words(words: list[str]) -> None:
    """The command line takes these words, and a recipe that is named with overrides takes them too."""
    group = typer.main.get_command(app)
    name, command, rest = group.resolve_command(typer.Context(group), words)
    assert command is not None, name
    context = command.make_context(name, rest)
    overrides: list[str] = context.params.get("overrides") or []
    if recipe := context.params.get("recipe"):
        if recipe not in shipped():  # a person's own, which is on no page
            recipe, overrides = "text", ["data.train=a.csv", *overrides]
        load(recipe, overrides)


@pytest.fixture(scope="module")
def reader(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, empty_store: Path
) -> Iterator[Reader]:
    project = Project(tmp_path_factory.mktemp("reader"))
    (project.folder / ".tuneline").mkdir()
    shutil.copy(empty_store, project.folder / ".tuneline")
    calls = [item.callspec for item in request.session.items if isinstance(item, pytest.Function) and in_this(item)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNELINE_DATA", str(project.folder / "data"))
        make_data(project.folder, README)
        found = Reader(project, tiny_checkpoint)
        found.begin_all([call.params["block"] for call in calls])
        yield found
        found.terminals.shutdown(cancel_futures=True)


def in_this(item: pytest.Function) -> bool:
    """Whether a test that was chosen reads a block here."""
    return item.module.__name__ == __name__ and "block" in getattr(getattr(item, "callspec", None), "params", {})


@pytest.mark.slow
@pytest.mark.parametrize("block", README, ids=str)
def test_a_block_of_the_readme_can_be_run_as_it_stands(block: Block, reader: Reader) -> None:
    if block.language == "python":
        reader.python(block.text)
        return
    if block.language == "text":
        reader.printed(block)
        return
    assert block.language == "", f"{block}: nothing is known here of {block.language}"
    for words in block.commands:
        reader.run(block, words)


@pytest.mark.parametrize("line", PAGES, ids=lambda line: f"{PAGES[line]} {line.partition(' #')[0].rstrip()}")
def test_a_command_of_another_page_is_one_that_the_command_line_takes(line: str) -> None:
    check_words(shlex.split(line.partition(" | ")[0], comments=True)[1:])


def test_a_command_that_nobody_has_taught_this_test_fails_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("A\n\n```\ntuneline unheard-of FILE   # does\n```\n")
    (block,) = blocks(page)
    assert (block.line, block.commands) == (3, [["tuneline", "unheard-of", "FILE"]])
    with pytest.raises(pytest.fail.Exception, match="nothing is known here of how to run it"):
        Reader(Project(tmp_path), tmp_path).run(block, block.commands[0])
