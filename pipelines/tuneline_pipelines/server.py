"""Where a cluster's Kubeflow Pipelines answer, as a profile's `server` section tells it, and how to log in there.

A token or a cookie is never in the profile: it names the environment variable or the mounted file that holds it, which
is read when a request is made, because a cluster renews such files while a command waits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import AfterValidator, Field, model_validator

from tuneline.config import Name, Section
from tuneline.errors import InputError

if TYPE_CHECKING:
    from kfp_server_api import ApiClient

EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]


def _why_not(url: str) -> str:
    """What is wrong with a URL; nothing where it will do. It is not repeated: it may hold a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if not parts.hostname or parts.scheme not in ("http", "https"):
        return "not a URL; write http(s)://HOST[:PORT][/PATH]"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "carries a user, a password, a query or a fragment; a credential belongs under auth"
    return ""


Url = Annotated[str, AfterValidator(lambda value: value.rstrip("/"))]


class Auth(Section):
    """How requests are authenticated; at most one way, none where nothing is given."""

    token_env: EnvName | None = None
    """Environment variable that holds a bearer token."""
    token_file: Annotated[str, Field(pattern="^/")] | None = None
    """File that holds a bearer token, such as a projected service account token; read anew for every request."""
    cookie_env: EnvName | None = None
    """Environment variable that holds the login's session cookie as NAME=VALUE (Dex, oauth2-proxy)."""

    @model_validator(mode="after")
    def _one_way(self) -> Auth:
        if len(self.model_fields_set) > 1:
            raise ValueError(f"{sorted(self.model_fields_set)[-1]}: given beside another; give one way to log in")
        return self

    @property
    def source(self) -> str:
        """Where the credential comes from, to name in an error."""
        return f"${self.token_env or self.cookie_env}" if self.token_env or self.cookie_env else self.token_file or ""


class Server(Section):
    """A Kubeflow Pipelines server."""

    endpoint: Url
    """URL of the API, without /apis: http://ml-pipeline.kubeflow:8888, or https://kubeflow.example.com/pipeline."""
    ui: Url | None = None
    """URL of the UI where links should lead; empty takes the endpoint."""
    namespace: ObjectName | None = None
    """Namespace of experiments, pipelines and runs, where the server serves several."""
    experiment: Name | None = None
    """Experiment of the runs, in KFP and in MLflow; empty takes the recipe's register.name."""
    service_account: ObjectName | None = None
    """Kubernetes service account that the run's pods have; empty takes the server's default."""
    pipeline_root: Annotated[str, Field(pattern=r"^(s3|gs|minio)://[^@\s]+$")] | None = None
    """Where the steps' outputs are kept, such as s3://bucket/tuneline; empty takes the server's default."""
    auth: Auth = Auth()
    """How requests are authenticated."""
    ssl_ca_cert: str | None = None
    """File of the certificate authorities to trust; empty takes the public ones."""
    mlflow: Url | None = None
    """URL of MLflow's UI, for links."""
    mlflow_plugin: bool | None = None
    """Whether KFP's MLflow plugin is told the experiment; empty tells servers from 2.17 on, which know the field."""

    @model_validator(mode="after")
    def _plain(self) -> Server:
        for key in ("endpoint", "ui", "mlflow"):
            if why := _why_not(getattr(self, key) or "http://none"):
                raise ValueError(f"{key}: {why}")
        return self


def connect(server: Server) -> ApiClient:
    """A client of the server, which adds the credential to every request.

    Raises:
        InputError: what names a credential or a certificate leads to none.
    """
    from kfp_server_api import ApiClient, Configuration

    settings: Any = Configuration(host=server.endpoint)
    settings.retries = False  # retried where it is known whether a request may be sent twice
    settings.ssl_ca_cert = _existing(server.ssl_ca_cert) if server.ssl_ca_cert else None
    _use_proxy(settings, urlsplit(server.endpoint))
    if server.auth.token_env or server.auth.token_file:
        settings.api_key_prefix["authorization"] = "Bearer"
        settings.api_key["authorization"] = _credential(server.auth)
        settings.refresh_api_key_hook = lambda now: now.api_key.update(authorization=_credential(server.auth))
    return ApiClient(settings, cookie=_credential(server.auth) if server.auth.cookie_env else None)


def _use_proxy(settings: Any, endpoint: SplitResult) -> None:
    """Go through the proxy that HTTPS_PROXY or HTTP_PROXY names, unless NO_PROXY names the host."""
    from urllib3 import make_headers

    proxy = urlsplit(getproxies().get(endpoint.scheme, ""))
    if proxy.hostname and not proxy_bypass(endpoint.netloc):
        settings.proxy = f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}"
        if proxy.username:
            login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            settings.proxy_headers = make_headers(proxy_basic_auth=login)


def _existing(path: str) -> str:
    if not Path(path).is_file():
        raise InputError(f"profile.server.ssl_ca_cert: {path}: no such file")
    return path


def _credential(auth: Auth) -> str:
    if auth.token_file:
        where = "token_file"
        try:
            value = Path(auth.token_file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            raise InputError(f"profile.server.auth.token_file: {auth.token_file}: cannot be read") from None
    else:
        where = "token_env" if auth.token_env else "cookie_env"
        value = os.environ.get(auth.token_env or auth.cookie_env or "", "").strip()
    if not value:
        raise InputError(f"profile.server.auth.{where}: {auth.source} is empty; put the credential there")
    if not value.isprintable() or not value.isascii() or (auth.cookie_env and "=" not in value):
        form = "a cookie written NAME=VALUE" if auth.cookie_env else "a bearer token in one line"
        raise InputError(f"profile.server.auth.{where}: {auth.source} does not hold {form}")
    return value
