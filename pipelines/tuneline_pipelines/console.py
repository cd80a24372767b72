"""What every verb does around its work: one line for what went wrong, the exit status, and --json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Annotated, Any, NoReturn, TextIO, cast

import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.exceptions import TyperException

from tuneline.errors import ConflictError, InputError
from tuneline.progress import Lasting, silence
from tuneline.trouble import trouble

told = Console(file=cast(TextIO, Lasting(lambda: sys.stderr)))
"""For a person; that the terminal is gone, or the disk full that stderr goes to, stops no work."""
ORDER = (
    "init", "audit", "plan", "run", "runs", "compare", "ui", "sweep", "choose", "imbalance", "predict", "serve",
    "promote", "rollback", "history", "trace", "reproduce", "build", "compile", "submit", "logs", "cancel", "doctor",
)  # fmt: skip
"""The verbs as --help lists them: in the order in which a person comes to need them."""
JSON = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]


class Verbs(TyperGroup):
    """The verbs; the wrong use of one ends as all bad input does: in one line, with exit status 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs in their order."""
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def main(self, args: Sequence[str] | None = None, *more: Any, standalone_mode: bool = True, **values: Any) -> Any:
        """Run the verb that these words, or those of the process, name."""
        words = list(sys.argv[1:] if args is None else args)
        if not standalone_mode or not words:  # without a word it is help that is asked for
            return super().main(args, *more, standalone_mode=standalone_mode, **values)
        try:
            sys.exit(super().main(args, *more, standalone_mode=False, **values) or 0)
        except TyperException as error:
            context = getattr(error, "ctx", None)
            seen = f"; see `{context.command_path} --help`" if context else ""
            message = " ".join(getattr(error, "format_message", error.__str__)().split()).rstrip(".")
            try:
                fail(f"{message[:1].lower()}{message[1:]}{seen}", 2, "--json" in words)
            except typer.Exit as ended:
                sys.exit(ended.exit_code)
        except typer.Abort:
            sys.exit(130)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose bad input ends in one line and exit status 2, a conflict in 3, and whose interruption says so."""

    @wraps(function)
    def guarded(*args: Any, **values: Any) -> None:
        end = partial(fail, as_json=bool(values.get("as_json")))
        try:
            function(*args, **values)
            sys.stdout.flush()  # a full disk is told here, and not by Python at its end
        except ConflictError as error:
            end(str(error), 3)
        except InputError as error:
            end(str(error), 2)
        except KeyboardInterrupt:
            end(
                "interrupted; nothing was registered after this point, and the same command goes on from what is saved",
                130,
            )
        except BrokenPipeError:
            raise
        except Exception as error:
            if why := trouble(error):
                end(why, 1)
            if isinstance(error, OSError):
                end(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
            raise

    return guarded


def fail(message: str, code: int, as_json: bool = False) -> NoReturn:
    """End the command with one line, and its exit status."""
    try:
        if as_json:
            print(json.dumps({"status": "failed", "error": message}))
        sys.stdout.flush()
    except OSError:  # the disk that stdout goes to is full
        silence(sys.stdout)
    told.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def remark(text: str) -> None:
    """A line for the person, on stderr."""
    told.print(text, markup=False, highlight=False, soft_wrap=True)
