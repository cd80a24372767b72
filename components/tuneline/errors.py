"""The one way a step or a command says that its input is bad: a single line that tells what to do."""

import re

_USER_PART = re.compile(r"(?<=\bhf://)[^/\s]*@|(?<=\bs3://)[^/\s]*@|(?<=://)(?<!\bhf://)(?<!\bs3://)\S*@")
"""Up to the last @, for a password may hold a slash; names on a hub and in a bucket hold an @ of their own."""
_SECRET_QUERY = re.compile(
    r"([?&][^=&\s]*(?:pass|pwd|token|secret|key|signature|credential)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE
)


class InputError(Exception):
    """Bad input from a person: shown as one line, exit status 2, never as a traceback.

    Args:
        message: names the file, row, column or key, what was found, what is allowed and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class NotHereError(InputError):
    """What a key names is not to be seen from this machine; another machine may see it."""


class DivergedError(InputError):
    """A training whose loss is no number any more: its settings are bad."""


class ConflictError(InputError):
    """Somebody else has moved first what a command expected where it was: shown as one line, exit status 3."""


class ServiceError(Exception):
    """A server that a run depends on did not do its part: shown as one line, exit status 1."""


def how_to_install(extra: str) -> str:
    """What to type where the libraries of an extra of the package are lacking."""
    return f"pip install -e '.[{extra}]' in tuneline's checkout"


def without_credentials(text: str) -> str:
    """The text with the user's part, which may hold a password, and secrets of the query taken out of every URI."""
    return _SECRET_QUERY.sub(r"\1***", _USER_PART.sub("", text))
