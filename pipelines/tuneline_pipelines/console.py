"""What every verb does around its work: one line for what went wrong, the exit status, and --json."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from tuneline.errors import ConflictError, InputError
from tuneline.trouble import trouble

told = Console(stderr=True)
JSON = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]


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
    except OSError:  # the disk that stdout goes to is full: what waits would be tried again at the end, by Python
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    told.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def remark(text: str) -> None:
    """A line for the person, on stderr."""
    told.print(text, markup=False, highlight=False, soft_wrap=True)
