"""The one way a step or a command says that its input is bad: a single line that tells what to do."""


class InputError(Exception):
    """Bad input from a person: shown as one line, exit status 2, never as a traceback.

    Args:
        message: names the file, row, column or key, what was found, what is allowed and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
