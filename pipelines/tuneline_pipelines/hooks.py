"""What is told of a move: a command (TUNELINE_MOVE_COMMAND) and a webhook (TUNELINE_MOVE_WEBHOOK).

Both get the move as JSON: the command on stdin, the webhook as the body of a POST. Where TUNELINE_MOVE_SECRET is set,
the POST carries the body's HMAC-SHA256 as `X-Tuneline-Signature: sha256=HEX`. A hook that fails undoes nothing: the
champion has moved.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
from typing import Any
from urllib.parse import urlsplit

COMMAND, WEBHOOK, SECRET = "TUNELINE_MOVE_COMMAND", "TUNELINE_MOVE_WEBHOOK", "TUNELINE_MOVE_SECRET"
_SECONDS = 60


def run(move: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the hooks that the environment names, one after the other.

    Args:
        move: what a command with --json prints of the move.

    Returns:
        For each hook: hook (command or webhook), ok, and told, why it failed.
    """
    body = json.dumps(move).encode()
    done = []
    for name, call in ((COMMAND, _command), (WEBHOOK, _post)):
        if target := os.environ.get(name):
            told = call(target, body)
            done.append({"hook": "command" if call is _command else "webhook", "ok": not told, "told": told})
    return done


def _command(line: str, body: bytes) -> str:
    """Run the command line in a shell, its own output on stderr; gives why it failed."""
    try:
        done = subprocess.run(["/bin/sh", "-c", line], input=body, stdout=2, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"did not end in {_SECONDS} seconds"
    except OSError as error:
        return f"did not start: {error.strerror}"
    return "" if done.returncode == 0 else f"ended with status {done.returncode}"


def _post(url: str, body: bytes) -> str:
    """Post the move; gives why it failed."""
    import requests

    headers = {"Content-Type": "application/json"}
    if secret := os.environ.get(SECRET):
        headers["X-Tuneline-Signature"] = f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"
    try:
        answer = requests.post(url, data=body, headers=headers, timeout=10, allow_redirects=False)
    except requests.exceptions.RequestException as error:
        return f"{_host(url)}: {type(error).__name__}"
    return "" if answer.ok else f"{_host(url)}: answered {answer.status_code}"


def _host(url: str) -> str:
    """Of the webhook only this is told: its path is a secret at most services."""
    found = urlsplit(url)
    return f"{found.scheme}://{found.hostname or ''}"
