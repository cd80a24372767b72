"""The service's paths. Every error is {"error_code": ..., "message": one line}, the shape of MLflow's own server.

POST /predict       {"texts": [...]} -> label, score and all scores of each
POST /invocations   the scoring protocol of `mlflow models serve`, for its clients
GET  /health /ready /metrics /docs /openapi.json; /ping and /version as MLflow has them
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

import tuneline
from tuneline.progress import say
from tuneline.serve import page
from tuneline.serve.batching import FullError
from tuneline.serve.bodies import MEDIA_TYPE, Form, RefusedError, own, scoring
from tuneline.serve.service import Service

if TYPE_CHECKING:
    import numpy as np

    from tuneline.serve.versions import Served

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
MODEL_HEADER = "X-Tuneline-Model"
_CODES = {
    413: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    500: "INTERNAL_ERROR",
    404: "ENDPOINT_NOT_FOUND",
}
Told = tuple[list[str], list[float]]
Shape = Callable[["Served", Told, "np.ndarray"], dict[str, Any]]


def app_of(service: Service) -> FastAPI:
    """The application around a service."""
    app = FastAPI(
        title=f"tuneline: {service.served.name}", version=tuneline.__version__, description=page.ABOUT,
        docs_url=None, redoc_url=None,
    )  # fmt: skip

    @app.post("/predict", summary="Label texts", **page.described("predict", service))
    async def predict(request: Request) -> Response:
        return await _measured(service, request, _answer(service, request, own, _own_shape))

    @app.post(
        "/invocations", summary="Label texts, by MLflow's scoring protocol", **page.described("invocations", service)
    )
    async def invocations(request: Request) -> Response:
        return await _measured(service, request, _answer(service, request, scoring, _scoring_shape))

    @app.get("/health", summary="Whether the process works")
    @app.get("/ping", include_in_schema=False)
    async def health() -> Response:
        alive = service.served.batcher.alive
        return _json({"status": "ok"}) if alive else _error(500, "the thread that answers has ended; restart")

    @app.get("/ready", summary="Whether requests should come here, and which version answers them")
    async def ready() -> Response:
        served = service.served
        if service.draining:
            return _error(503, "shutting down")
        return _json({"status": "ready", "model": served.name, "version": served.version}, 200, _named(served))

    @app.get("/version", include_in_schema=False)
    async def version() -> Response:
        return PlainTextResponse(tuneline.__version__)

    @app.get("/metrics", summary="Counts for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        text, kind = service.meters.page()
        return Response(text, headers={"Content-Type": kind})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page.html(app.openapi()), headers={"Content-Security-Policy": page.POLICY})

    if service.options.host in LOOPBACK:
        app.add_middleware(_OwnNames)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        status = error.status_code
        service.meters.answered("other", status)
        line = "no such path; see /docs" if status == 404 else f"{request.method} is not taken here; see /docs"
        return _error(status, line, dict(error.headers or {}))

    return app


class _OwnNames:
    """Answers only who asked for this machine by a name of its own.

    A foreign page whose name was pointed to 127.0.0.1 after it was loaded would else be let in by the browser.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            named = Headers(scope=scope).get("host", "")
            if named and named not in LOOPBACK and named.rpartition(":")[0] not in LOOPBACK:
                refused = _error(403, "Host: this service is this machine's alone; --host names another address")
                await refused(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _answer(service: Service, request: Request, form: Form, shape: Shape) -> Response:
    raw = await _body(request, service.options.max_bytes, service.options.timeout_seconds)
    served, probabilities = await service.ask(raw, form)
    return _json(shape(served, service.told(served, probabilities), probabilities), 200, _named(served))


def _own_shape(served: Served, told: Told, probabilities: np.ndarray) -> dict[str, Any]:
    answers = [
        {"label": label, "score": score, "scores": dict(zip(served.labels, row, strict=True))}
        for label, score, row in zip(*told, probabilities.tolist(), strict=True)
    ]
    return {"model": served.name, "version": served.version, "predictions": answers}


def _scoring_shape(served: Served, told: Told, probabilities: np.ndarray) -> dict[str, Any]:
    """The frame of the PyFunc as MLflow's server writes it, and the version besides, which its clients pass over."""
    rows = [
        {"label": label, "score": score, **dict(zip(served.columns, row, strict=True))}
        for label, score, row in zip(*told, probabilities.tolist(), strict=True)
    ]
    return {"predictions": rows, "version": served.version}


async def _body(request: Request, most: int, seconds: float) -> bytes:
    """The body, of which no more than `most` bytes are kept.

    Raises:
        RefusedError: it is of another kind, too large, or does not arrive.
    """
    _check_kind(request)
    large = RefusedError(f"the body is too large; at most {most} bytes", 413)
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                parts.append(part)
                if (size := size + len(part)) > most:
                    raise large
    except TimeoutError:
        raise RefusedError(f"the body did not arrive within {seconds:g} s", 408) from None
    return b"".join(parts)


def _check_kind(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != MEDIA_TYPE:
        raise RefusedError(f"Content-Type: {MEDIA_TYPE} is needed", 415)
    name, _, charset = parameters.strip().partition("=")
    if name.strip().lower() == "charset" and charset.strip().strip('"').lower() not in ("utf-8", "utf8", "us-ascii"):
        raise RefusedError("Content-Type: the charset must be utf-8", 415)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError("Content-Encoding: a compressed body is not taken", 415)


async def _measured(service: Service, request: Request, answer: Awaitable[Response]) -> Response:
    """The answer, or what went wrong as one; counted, and with the connection's end where the service ends."""
    started = time.perf_counter()
    try:
        response = await answer
    except RefusedError as error:
        # What is left of a body that was not read is not read, so that the connection cannot go on.
        response = _error(error.status, str(error), {"Connection": "close"} if error.status in (408, 413, 415) else {})
    except FullError as error:
        response = _error(503, str(error), {"Retry-After": str(error.seconds)})
    except TimeoutError:
        seconds = f"{service.options.timeout_seconds:g}"
        response = _error(503, f"not answered within {seconds} s", {"Retry-After": "1"})
    except ClientDisconnect:  # nobody hears the answer, and it is no failure of ours; 499 as nginx counts it
        response = _error(499, "the client went away")
    except Exception as error:
        say(f"[serve] error: {_place(error)}")
        response = _error(500, "the server failed; its log says where")
    if service.draining:
        response.headers["Connection"] = "close"
    service.meters.answered(request.scope["path"], response.status_code, time.perf_counter() - started)
    return response


def _place(error: Exception) -> str:
    """Where it happened. Its words are left out: they may be a text's."""
    frames = traceback.extract_tb(error.__traceback__)
    at = frames[-1] if frames else None
    return f"{type(error).__name__}" + (f" at {Path(at.filename).name}:{at.lineno} in {at.name}" if at else "")


def _named(served: Served) -> dict[str, str]:
    return {MODEL_HEADER: served.header}


def _error(status: int, line: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"error_code": _CODES.get(status, "BAD_REQUEST"), "message": line}, status, headers)


def _json(value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode(), status, headers, media_type=MEDIA_TYPE)
