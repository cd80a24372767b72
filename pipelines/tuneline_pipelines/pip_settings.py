"""What pip on this machine is configured with, in a form that holds inside an image's build.

Indexes, proxies and certificates are taken over. A folder of wheels, or an index on the disk, is served on the loopback
interface while the build runs, which then shares the machine's network.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

_CARRIED = {"index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "timeout",
            "default-timeout", "retries"}  # fmt: skip
_LOCATIONS = {"index-url", "extra-index-url", "find-links"}


_PACKAGES = (".whl", ".tar.gz", ".zip", ".metadata", ".html", ".json")
"""How the names of files end that an index is made of."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; pip tells what it could not get."""

    def send_head(self) -> Any:
        """Serve packages and pages alone: what lies beside an index on a disk is nobody's business."""
        path = Path(self.translate_path(self.path))
        hidden = any(part.startswith(".") for part in path.relative_to(self.directory).parts)
        if hidden or not (path.is_dir() or path.name.endswith(_PACKAGES)):
            self.send_error(404)
            return None
        return super().send_head()


def _serve(folder: Path, port: int) -> ThreadingHTTPServer | None:
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(folder)))
    except OSError:  # taken, perhaps by another build
        return None


class Folders:
    """Folders of this machine that a build may read over HTTP."""

    def __init__(self) -> None:
        self.servers: list[ThreadingHTTPServer] = []

    def url(self, folder: Path) -> str:
        """Serve a folder on the loopback interface, at a port that its path tells.

        pip's settings name the port, and the engine's cache holds only while they stay the same.
        """
        first = 20000 + int(hashlib.sha256(str(folder).encode()).hexdigest(), 16) % 20000
        server = next(filter(None, (_serve(folder, port) for port in range(first, first + 100))))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    def close(self) -> None:
        """Stop serving."""
        for server in self.servers:
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def pip_files() -> Iterator[tuple[dict[str, bytes], bool]]:
    """The files for docker/pip, and whether the build must share the machine's network to reach what they name."""
    folders = Folders()
    try:
        yield _files(_configured(), folders), bool(folders.servers)
    finally:
        folders.close()


def _files(settings: dict[str, str], folders: Folders) -> dict[str, bytes]:
    lines, files = ["[global]"], {}
    for key, value in sorted(settings.items()):
        if key in _LOCATIONS:
            value = "\n    ".join(_reachable(key, place, folders) for place in value.split())
        if key in _CARRIED:
            lines.append(f"{key} = {value}")
    certificates = Path(settings.get("cert", ""))
    if certificates.is_file():
        files["certificates.pem"] = certificates.read_bytes()
        lines.append("cert = /pip/certificates.pem")
    return files | {"pip.conf": ("\n".join(lines) + "\n").encode()}


def _reachable(key: str, place: str, folders: Folders) -> str:
    """A location as the build reaches it. An index on the disk links to files beside it, so its parent is served."""
    folder = Path(unquote(urlparse(place).path) if place.startswith("file:") else place)
    if "://" in place.removeprefix("file://") or not folder.is_dir():
        return place
    return folders.url(folder) if key == "find-links" else folders.url(folder.parent) + folder.name


def _configured() -> dict[str, str]:
    """pip's own settings as it tells them; nothing where this environment has no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in found:
            found[section][key] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]
