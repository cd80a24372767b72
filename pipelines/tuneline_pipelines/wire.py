"""One request to a Kubeflow Pipelines server: its failures in one line each, and again where one may pass."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

from kfp_server_api import ApiException
from kfp_server_api.exceptions import OpenApiException
from urllib3.exceptions import HTTPError, SSLError

from tuneline.errors import InputError, without_credentials
from tuneline_pipelines.server import Server, connect

Run: TypeAlias = Any
"""A V2beta1Run: to a type checker every attribute of kfp_server_api's generated models is None."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds between the attempts of one request; a server's Retry-After takes their place."""
LONGEST_PAUSE = 300.0
TIMEOUT = (10, 90)
"""Seconds to connect and to wait for an answer; creating a run includes what the server's own plugins do."""


class RemoteError(InputError):
    """The server refused, or could not be reached: one line that names it, never its credentials."""


class UnreachableError(RemoteError):
    """The server does not answer now; it may later."""


class NotThereError(RemoteError):
    """The server knows no such thing."""


class _PassingError(Exception):
    """A failure that may pass: what happened, and after how many seconds the server wants to be asked again."""

    def __init__(self, what: str, pause: float | None) -> None:
        super().__init__(what)
        self.pause = pause


class _ExistsError(RemoteError):
    """Something of that name was made already."""


class Wire:
    """A server, asked with patience.

    Attributes:
        again: how many requests were sent again so far.

    Args:
        server: the profile's section.
        note: hears, in a sentence, that a request is tried again.
        pause: waits; takes seconds.
    """

    def __init__(
        self, server: Server, note: Callable[[str], None] = lambda _: None, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.server, self.note, self.pause = server, note, pause
        self.api = connect(server)
        self.again = 0

    def call(self, ask: Callable[..., Any], *values: Any, found: Callable[[], Any] | None = None, **more: Any) -> Any:
        """Send a request, again where it failed in passing.

        Args:
            ask: a method of kfp_server_api.
            values: its arguments.
            found: looks for what the request creates; called before it is sent again, and where it exists already.
            more: its keyword arguments.

        Raises:
            RemoteError: it is refused, or every attempt failed.
        """
        problem: Exception | None = None
        for pause in (*PAUSES, None):
            try:
                return self._ask(ask, *values, **more)
            except _ExistsError:
                if found is None or (there := found()) is None:
                    raise
                return there
            except _PassingError as error:
                problem = error
                if pause is not None:
                    self._wait(error, pause)
            if found is not None and (there := found()) is not None:
                return there
        raise UnreachableError(f"{self}: {problem}, {len(PAUSES) + 1} times; try again later")

    def __str__(self) -> str:
        return f"Kubeflow Pipelines at {self.server.endpoint}"

    def _wait(self, problem: _PassingError, pause: float) -> None:
        self.again += 1
        seconds = problem.pause if problem.pause is not None else pause * random.uniform(0.8, 1.2)
        self.note(f"{self}: {problem}; trying again in {seconds:.0f} s")
        self.pause(seconds)

    def _ask(self, ask: Callable[..., Any], *values: Any, **more: Any) -> Any:
        try:
            answer = ask(*values, _request_timeout=TIMEOUT, **more)
        except ApiException as error:
            raise self._explained(error) from None
        except SSLError as error:
            raise self._unsafe(str(error)) from None
        except (HTTPError, OSError) as error:
            raise _PassingError(f"no answer ({type(error).__name__})", None) from None
        except OpenApiException:  # our own call has another form than the API: a bug, and shown as one
            raise
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            # From reading an answer of another form; or kfp_server_api stumbled over an error without a body.
            known = error.__context__
            raise (self._explained(known) if isinstance(known, ApiException) else self._other()) from None
        if not more.get("_preload_content", True):
            return answer
        if "json" not in (self.api.last_response.getheader("content-type") or ""):
            raise self._other()
        return answer

    def _other(self) -> RemoteError:
        return RemoteError(f"{self}: something else than its API answers there; is profile.server.endpoint right?")

    def _unsafe(self, why: str) -> RemoteError:
        return RemoteError(f"{self}: no safe connection ({why[:200]}); is profile.server.ssl_ca_cert right?")

    def _explained(self, error: ApiException) -> Exception:
        status, why = error.status or 0, self._hidden(_message(error))
        if status == 0:
            return self._unsafe(str(error.reason)) if "SSLError" in str(error.reason) else self._other()
        if status == 429 or status >= 500:
            return _PassingError(f"{status} {error.reason}{f' ({why})' if why else ''}", _retry_after(error))
        if status == 401 or 300 <= status < 400:
            source = self.server.auth.source
            what = f"{source} is expired or wrong; renew it" if source else "name a token or a cookie there"
            return RemoteError(f"{self}: asks for a login ({status}); profile.server.auth: {what}")
        if status == 403:
            return RemoteError(f"{self}: not allowed: {why or error.reason}")
        kind = {404: NotThereError, 409: _ExistsError}.get(status, RemoteError)
        return kind(f"{self}: {why or error.reason} ({status})")

    def _hidden(self, said: str) -> str:
        """Without the credential, which a server may repeat where it refuses it."""
        for value in (self.api.configuration.api_key.get("authorization"), self.api.cookie):
            said = said.replace(value, "***") if value else said
        return said

    def text(self, path: str, base: str | None = None, query: dict[str, str] | None = None, **parts: str) -> str:
        """A plain text that the server hands out beside its typed API; asked for once.

        Args:
            path: with a {part} for each of `parts`.
            base: another URL than the endpoint.
            query: the query's values.
            parts: what stands for the parts, as it is.

        Raises:
            RemoteError: it has none there.
        """
        try:
            answer = self._ask(
                self.api.call_api, path, "GET", path_params=parts, query_params=list((query or {}).items()),
                auth_settings=["Bearer"], _host=base, _preload_content=False, _return_http_data_only=True,
            )  # fmt: skip
        except _PassingError as problem:
            raise UnreachableError(f"{base or self.server.endpoint}: {problem}") from None
        text = answer.data.decode("utf-8", errors="replace")
        if text.lstrip()[:9].lower() == "<!doctype":
            raise NotThereError(f"{base or self.server.endpoint}: a page, not a text")
        return text


def _message(error: ApiException) -> str:
    """What the server says in words, in one line; nothing where it answers with a page."""
    try:
        body = json.loads(error.body or "")
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    said = body.get("message") or body.get("error_message") or body.get("error") or ""
    return without_credentials(" ".join(str(said).split()))[:400]


def _retry_after(error: ApiException) -> float | None:
    """Retry-After in seconds, given as such or as a date; at most LONGEST_PAUSE."""
    value = error.headers.get("Retry-After") if error.headers else None
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_PAUSE) if seconds == seconds else None
