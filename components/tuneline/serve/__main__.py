"""The service in a container, where the submitter's command is not: python -m tuneline.serve MODEL@alias --port 8080.

The options are those of `tuneline serve`, which are the fields of Options.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields

from tuneline.errors import InputError
from tuneline.progress import ERROR_MARK, FAILED_MARK
from tuneline.serve.service import Options
from tuneline.trouble import trouble


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 after a signal, 2 for bad input, 1 where the registry did not do its part."""
    parser = argparse.ArgumentParser(prog="python -m tuneline.serve", description=__doc__)
    parser.add_argument("model", help="MODEL@alias, which is followed, or MODEL/VERSION")
    for field in fields(Options):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    chosen = vars(parser.parse_args(arguments))
    try:
        from tuneline.serve.server import serve
        from tuneline.threads import within_quota

        within_quota()
        serve(chosen.pop("model"), Options(**chosen))
    except InputError as error:
        print(f"{ERROR_MARK}{error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not (why := trouble(error)):
            raise
        print(f"{FAILED_MARK}{why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
