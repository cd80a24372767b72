"""What the service counts, for Prometheus. Numbers, names of versions and labels; never a text."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_POWERS = tuple(float(2**power) for power in range(0, 15, 2))


class Meters:
    """The service's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "tuneline_requests", "Requests, by path and status.", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "tuneline_request_seconds", "From a request's first byte to its answer.", ["path"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._answers = Counter(
            "tuneline_answers", "Texts answered, by version and label.", ["version", "label"], registry=self.registry
        )
        self._waiting = Gauge("tuneline_waiting_texts", "Texts taken and not yet answered.", registry=self.registry)
        self._pass_rows = Histogram(
            "tuneline_pass_rows", "Texts, or windows of texts, in a pass of the network.", buckets=_POWERS,
            registry=self.registry,
        )  # fmt: skip
        self._pass_tokens = Histogram(
            "tuneline_pass_tokens", "Tokens in a pass of the network.", buckets=_POWERS, registry=self.registry
        )
        self._pass_seconds = Histogram(
            "tuneline_pass_seconds", "Seconds that a pass took.", buckets=_SECONDS, registry=self.registry
        )
        self._model = Gauge(
            "tuneline_model", "1 for the version that answers.", ["model", "version"], registry=self.registry
        )
        self._moves = Counter(
            "tuneline_version_changes", "Versions taken into use after the first.", registry=self.registry
        )
        self._refused = Counter(
            "tuneline_refused_versions", "Times that a version was found and not loaded.", ["version"],
            registry=self.registry,
        )  # fmt: skip
        self._looks = Counter(
            "tuneline_registry_looks", "Times that the registry was asked for the version, by result.", ["result"],
            registry=self.registry,
        )  # fmt: skip
        for result in ("ok", "failed"):
            self._looks.labels(result)

    def answered(self, path: str, status: int, seconds: float | None = None) -> None:
        """A request has got its answer; seconds are kept of those that ask for one of texts."""
        self._requests.labels(path, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(path).observe(seconds)

    def labelled(self, version: str, labels: Iterable[str]) -> None:
        """Texts have got these labels."""
        for label in labels:
            self._answers.labels(version, label).inc()

    def passed(self, texts: int, tokens: int, seconds: float) -> None:
        """A pass of the network is over."""
        self._pass_rows.observe(texts)
        self._pass_tokens.observe(tokens)
        self._pass_seconds.observe(seconds)

    def waits(self, change: int) -> None:
        """So many texts more wait, or fewer."""
        self._waiting.inc(change)

    def serves(self, model: str, version: str, moved: bool) -> None:
        """Another version answers from now on."""
        self._model.clear()
        self._model.labels(model, version).set(1)
        if moved:
            self._moves.inc()

    def refused(self, version: str) -> None:
        """A version was not loaded."""
        self._refused.labels(version).inc()

    def looked(self, ok: bool) -> None:
        """The registry was asked for the version that the alias names."""
        self._looks.labels("ok" if ok else "failed").inc()

    def page(self) -> tuple[bytes, str]:
        """All of them in Prometheus' text form, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
