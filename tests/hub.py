"""A stand-in for the Hugging Face hub: one model, over real HTTP, for the hub's own client."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34


@contextmanager
def serving(name: str, folder: Path, branch: str = "main") -> Iterator[str]:
    """Serve a folder's files as the model `name`, at the commit COMMIT of its only branch; gives the address."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{name}/tree/"):
                self._send(
                    json.dumps([_entry(file, body) for file, body in files.items()]).encode(), "application/json"
                )
            elif path in (f"/api/models/{name}/revision/{revision}" for revision in (branch, COMMIT)):
                known = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in sorted(files)]}
                self._send(json.dumps(known).encode(), "application/json")
            elif path.startswith(f"/{name}/resolve/") and (file := path.rpartition("/")[2]) in files:
                self._send(files[file], "application/octet-stream")
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 - as http.server calls it

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{_oid(body)}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


def _entry(file: str, body: bytes) -> dict[str, str | int]:
    return {"type": "file", "path": file, "size": len(body), "oid": _oid(body)}
