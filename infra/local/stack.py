"""A real stack on one machine, without containers: PostgreSQL, an S3 endpoint and MLflow with basic authentication.

python infra/local/stack.py run -- tuneline run     starts it, runs the command against it, stops it; its exit status
python infra/local/stack.py run                     keeps it up until Ctrl-C, and tells how another shell reaches it
python infra/local/stack.py env                     writes the generated secrets that compose.yaml asks for

Everything listens on the loopback interface, on free ports, under passwords made for this one start, and all data is
thrown away at the end. Passwords go to the servers by their environment and to people by a file of mode 0600, never by
an argument, which every user of the machine could read.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

USER, BUCKET, DATABASE = "tuneline", "mlflow", "mlflow"
GRACE_SECONDS, START_SECONDS = 15, 120
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StackError(Exception):
    """What is missing or did not start, in one line."""


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """As many different ones."""
    with ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def wait_until_healthy(url: str, server: subprocess.Popen[str]) -> None:
    """Wait for an MLflow server to answer.

    Raises:
        StackError: its process ended, or it did not answer in two minutes.
    """
    wait_until(lambda: answers(f"{url}/health"), server, url)


def wait_until(ready: Callable[[], bool], server: subprocess.Popen[str], name: str) -> None:
    """Wait until `ready` says so.

    Raises:
        StackError: the server's process ended first, or two minutes have passed.
    """
    until = time.monotonic() + START_SECONDS
    while not ready():
        if server.poll() is not None:
            raise StackError(f"{name}: the server ended with status {server.returncode}")
        if time.monotonic() > until:
            raise StackError(f"{name}: no answer in {START_SECONDS} seconds")
        time.sleep(0.2)


def answers(url: str) -> bool:
    """Whether a server answers there, within two seconds."""
    try:
        urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - a loopback address of our own
    except OSError:
        return False
    return True


class Stack:
    """The three servers, as a context.

    Args:
        folder: where data and logs go; other users need to be able to enter it where this one is root.
        s3_for_mlflow: makes of the S3 endpoint's address the one that MLflow is given, such as that of a proxy.

    Attributes:
        secrets: the passwords of this start, by name.
        mlflow_url: where MLflow answers.
    """

    def __init__(self, folder: Path, s3_for_mlflow: Callable[[str], str] = str) -> None:
        self.folder, self._s3_for_mlflow = folder, s3_for_mlflow
        names = ("postgres_password", "s3_access_key", "s3_secret_key", "mlflow_password", "flask_secret_key")
        self.secrets = {name: secrets.token_urlsafe(24) for name in names}
        self._ports = dict(zip(("postgres", "s3", "mlflow"), free_ports(3), strict=True))
        self._servers: dict[str, subprocess.Popen[str]] = {}
        self.mlflow_url = f"http://127.0.0.1:{self._ports['mlflow']}"
        self.s3_url = f"http://127.0.0.1:{self._ports['s3']}"

    def __enter__(self) -> Stack:
        try:
            self._start_postgres()
            self._start_s3()
            self.start_mlflow()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs, and no more: neither the database's password nor the bucket's keys."""
        return {
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.secrets["mlflow_password"],
        }

    def database(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's own tools on the database, such as pg_dump."""
        command = [str(postgres_folder() / tool), "-h", "127.0.0.1", "-p", str(self._ports["postgres"]), *arguments]
        environment = os.environ | {"PGUSER": USER, "PGPASSWORD": self.secrets["postgres_password"]}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def log(self, name: str) -> str:
        """What a server has printed: postgres, s3 or mlflow."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def start_mlflow(self) -> None:
        """Start MLflow and wait for it; again after kill_mlflow, on the same port."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._ports["mlflow"]),
            "--workers", "1", "--app-name", "basic-auth", "--artifacts-destination", f"s3://{BUCKET}",
            "--allowed-hosts", f"127.0.0.1:{self._ports['mlflow']},localhost:{self._ports['mlflow']}",
        ]  # fmt: skip
        server = self._start("mlflow", command, self._mlflow_environment())
        self._wait("mlflow", lambda: answers(f"{self.mlflow_url}/health"), server)

    def kill_mlflow(self) -> None:
        """End MLflow at once, as a crash does."""
        _end(self._servers.pop("mlflow"), signal.SIGKILL)

    def stop(self) -> None:
        """End the servers, the last one first."""
        for name in reversed(list(self._servers)):
            _end(self._servers.pop(name), signal.SIGINT if name == "postgres" else signal.SIGTERM)

    def _start_postgres(self) -> None:
        user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        data, password = self.folder / "postgres", self.folder / "postgres-password"
        data.mkdir(mode=0o700)
        _write_secret(password, self.secrets["postgres_password"])
        if user:
            shutil.chown(data, user)
            shutil.chown(password, user)
        initdb = [postgres_folder() / "initdb", "--pgdata", data, "--username", USER, "--pwfile", password,
                  "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]  # fmt: skip
        done = subprocess.run(initdb, user=user, cwd=data, capture_output=True, text=True, check=False)
        password.unlink()
        if done.returncode != 0:
            raise StackError(f"initdb failed: {' '.join(done.stderr.split())[-500:]}")
        command = [str(postgres_folder() / "postgres"), "-D", str(data), "-p", str(self._ports["postgres"])]
        for setting in ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"):
            command += ["-c", setting]
        server = self._start("postgres", command, {}, user)
        self._wait("postgres", lambda: self.database("pg_isready").returncode == 0, server)
        made = self.database("createdb", DATABASE)
        if made.returncode != 0:
            raise StackError(f"createdb failed: {made.stderr.strip()}")

    def _start_s3(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._ports["s3"])]
        server = self._start("s3", command, {})
        self._wait("s3", lambda: answers(self.s3_url), server)
        made = urllib.request.Request(f"{self.s3_url}/{BUCKET}", method="PUT")  # noqa: S310 - http, and our own
        urllib.request.urlopen(made, timeout=10).close()  # noqa: S310

    def _mlflow_environment(self) -> dict[str, str]:
        # The database's password reaches its driver by PGPASSWORD, so that no message about an address can show it.
        uri = f"postgresql+psycopg2://{USER}@127.0.0.1:{self._ports['postgres']}/{DATABASE}"
        auth = self.folder / "auth.ini"
        auth.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {uri}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
            encoding="utf-8",
        )
        return {
            "PGPASSWORD": self.secrets["postgres_password"],
            "MLFLOW_BACKEND_STORE_URI": uri,
            "MLFLOW_AUTH_CONFIG_PATH": str(auth),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.secrets["mlflow_password"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.secrets["flask_secret_key"],
            "MLFLOW_S3_ENDPOINT_URL": self._s3_for_mlflow(self.s3_url),
            "AWS_ACCESS_KEY_ID": self.secrets["s3_access_key"],
            "AWS_SECRET_ACCESS_KEY": self.secrets["s3_secret_key"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its job workers would take 1.5 GB
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # A request may need two connections at once: with fewer than its threads they wait for each other.
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "10",
            "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "20",
        }

    def _start(
        self, name: str, command: list[str], environment: Mapping[str, str], user: str | None = None
    ) -> subprocess.Popen[str]:
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR", "PYTHONPATH") if key in os.environ}
        with (self.folder / f"{name}.log").open("a", encoding="utf-8") as log:
            server = subprocess.Popen(
                command, env=kept | environment, cwd=self.folder, user=user, start_new_session=True, text=True,
                preexec_fn=_end_with_parent, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._servers[name] = server
        return server

    def _wait(self, name: str, ready: Callable[[], bool], server: subprocess.Popen[str]) -> None:
        try:
            wait_until(ready, server, name)
        except StackError as error:
            last = self.log(name).strip().splitlines()[-1:] or [""]
            raise StackError(f"{error}: {last[0][:300]} (log: {self.folder / name}.log)") from None


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when this program is killed outright, so that no server outlives it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(server: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if number == signal.SIGKILL:
            os.killpg(server.pid, number)
        server.send_signal(number)
    try:
        server.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # whatever it has started


def postgres_folder() -> Path:
    """Where PostgreSQL's programs are: Debian keeps them off the PATH.

    Raises:
        StackError: there is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise StackError("no PostgreSQL here; apt-get install postgresql")


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text, encoding="utf-8")


@contextmanager
def stack(s3_for_mlflow: Callable[[str], str] = str) -> Iterator[Stack]:
    """A stack in a folder of its own, which is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tuneline-stack-"))
    folder.chmod(0o711)  # the database's user passes through; only it can read its own part
    try:
        with Stack(folder, s3_for_mlflow) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(command: list[str]) -> int:
    """Start the stack, run a command against it (without one, wait to be stopped), and stop it.

    Returns:
        The command's exit status, as a shell has it.

    Raises:
        StackError: there is no such command, or a server did not start.
    """
    if command and not shutil.which(command[0]):
        raise StackError(f"{command[0]}: no such command")
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _stop)
    with stack() as running:
        if not command:
            return _stay(running)
        process = subprocess.Popen(command, env=os.environ | running.environment, preexec_fn=_end_with_parent)
        try:
            status = process.wait()
        finally:
            if process.poll() is None:
                _end_command(process)
        return status if status >= 0 else 128 - status


def _stop(number: int, _frame: object) -> None:
    """End by the first signal, and let no second one disturb the clearing up."""
    for other in STOPPING:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _end_command(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stay(running: Stack) -> int:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in running.environment.items()]
    _write_secret(running.folder / "environment", "\n".join(lines) + "\n")
    print(f"MLflow: {running.mlflow_url} (user {USER}); in another shell: . {running.folder / 'environment'}")
    print("Ctrl-C stops it and throws its data away.", flush=True)
    signal.pause()
    return 0


def write_env(path: Path) -> None:
    """Write the secrets that compose.yaml asks for, new ones, into a file that only its owner reads.

    Raises:
        StackError: the file is there; its passwords are those that the volumes were made with.
    """
    names = ("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "MLFLOW_PASSWORD", "FLASK_SECRET_KEY")
    try:
        _write_secret(path, "".join(f"{name}={secrets.token_urlsafe(24)}\n" for name in names))
    except FileExistsError:
        raise StackError(f"{path}: is there already, and the data knows its passwords; keep both") from None


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run", help="start, run a command, stop").add_argument("command", nargs=argparse.REMAINDER)
    verbs.add_parser("env", help="write .env for compose.yaml")
    given = parser.parse_args()
    try:
        if given.verb == "env":
            write_env(Path(__file__).parent / ".env")
            return 0
        return run(given.command[1:] if given.command[:1] == ["--"] else given.command)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
