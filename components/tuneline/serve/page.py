"""The documentation page, written here in full: FastAPI's own loads scripts from a CDN, and so needs a network.

It shows what /openapi.json says, and has a form to try it by. No other address is asked, which its policy forbids too.
"""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from tuneline.serve.bodies import MEDIA_TYPE

if TYPE_CHECKING:
    from tuneline.serve.service import Service

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ABOUT = (
    "Labels for texts, by a registered model. Every answer names the version that gave it, in the body and in the "
    'header X-Tuneline-Model. Every error is one line: {"error_code": ..., "message": ...}.'
)
_TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
_NUMBER = {"type": "number"}
_LABEL = {"label": {"type": "string"}, "score": _NUMBER}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1c2024 }
h2 { margin: 2.2rem 0 .3rem; font-size: 1.1rem; font-family: ui-monospace, monospace } h2 b { color: #0b6bcb }
pre, textarea { font: 13px/1.45 ui-monospace, monospace; background: #f4f5f7; border: 1px solid #d9dce1;
  border-radius: 6px; padding: .7rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere }
textarea { width: 100%; box-sizing: border-box } button { font: inherit; padding: .3rem 1rem }
table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0; vertical-align: top }
td:first-child { font-family: ui-monospace, monospace }
details { margin: .4rem 0 } summary { cursor: pointer }
@media (prefers-color-scheme: dark) { body { background: #16181b; color: #e4e6e9 } h2 b { color: #6db3f8 }
  pre, textarea { background: #202327; border-color: #3a3f45; color: inherit } a { color: #6db3f8 } }
"""
_SCRIPT = """
document.querySelectorAll('form').forEach(form => form.addEventListener('submit', async event => {
  event.preventDefault()
  const out = form.querySelector('pre')
  out.hidden = false
  out.textContent = '...'
  try {
    const answer = await fetch(form.dataset.path, {
      method: 'POST', headers: {'Content-Type': 'application/json'}, body: form.querySelector('textarea').value })
    const text = await answer.text()
    let shown = text
    try { shown = JSON.stringify(JSON.parse(text), null, 2) } catch {}
    out.textContent = answer.status + ' ' + (answer.headers.get('X-Tuneline-Model') || '') + '\\n' + shown
  } catch (error) { out.textContent = String(error) }
}))
"""


def described(path: str, service: Service) -> dict[str, Any]:
    """What OpenAPI says of a path that answers texts, as keyword arguments of the route."""
    options, pairs = service.options, service.served.pairs
    body, answer = (_predict if path == "predict" else _invocations)(pairs, options.max_texts)
    errors = {
        400: "Not such a body",
        408: "The body did not arrive in time",
        413: f"More than {options.max_texts} texts or {options.max_bytes} bytes",
        415: "Another Content-Type than application/json",
        503: "Too much waits, or it took too long; Retry-After says when to come again",
    }
    responses = {200: ("The answers, in the order of the texts", answer)}
    responses |= {status: (text, {"schema": _ERROR}) for status, text in errors.items()}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": {MEDIA_TYPE: body}}},
        "responses": {
            status: {"description": text, "content": {MEDIA_TYPE: schema}}
            for status, (text, schema) in responses.items()
        },
    }


_ERROR = {"type": "object", "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}}}


def _predict(pairs: bool, most: int) -> tuple[dict[str, Any], dict[str, Any]]:
    texts = _TEXTS | {"maxItems": most}
    properties = {"texts": texts} | ({"pairs": texts | {"description": "The second text of each."}} if pairs else {})
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    example = {"texts": ["where is my parcel"]} | ({"pairs": ["how do I track an order"]} if pairs else {})
    row = {"type": "object", "properties": _LABEL | {"scores": {"type": "object", "additionalProperties": _NUMBER}}}
    answer = {
        "model": {"type": "string"},
        "version": {"type": "string"},
        "predictions": {"type": "array", "items": row},
    }
    return {"schema": schema, "example": example}, {"schema": {"type": "object", "properties": answer}}


def _invocations(pairs: bool, most: int) -> tuple[dict[str, Any], dict[str, Any]]:
    item: dict[str, Any] = _TEXTS | {"minItems": 2, "maxItems": 2} if pairs else _TEXTS["items"]
    inputs = {"type": "array", "items": item, "minItems": 1, "maxItems": most}
    split = {
        "type": "object",
        "properties": {"columns": {"type": "array"}, "data": {"type": "array", "items": {"type": "array"}}},
        "required": ["columns", "data"],
    }
    records = {"type": "array", "items": {"type": "object"}, "maxItems": most}
    forms = {"inputs": inputs, "instances": inputs, "dataframe_split": split, "dataframe_records": records}
    one_of = [{"type": "object", "properties": {key: form}, "required": [key]} for key, form in forms.items()]
    data = [["where is my parcel"] + (["how do I track an order"] if pairs else [])]
    example = {"dataframe_split": {"columns": ["text"] + (["pair"] if pairs else []), "data": data}}
    row = {"type": "object", "properties": _LABEL, "additionalProperties": _NUMBER}
    answer = {"predictions": {"type": "array", "items": row}, "version": {"type": "string"}}
    return {"schema": {"oneOf": one_of}, "example": example}, {"schema": {"type": "object", "properties": answer}}


def html(api: dict[str, Any]) -> str:
    """The page of an OpenAPI description."""
    title = escape(api["info"]["title"])
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p>{escape(api['info']['description'])}"
        f"<p>Machine-readable: <a href=/openapi.json>/openapi.json</a>"
    ]
    for path, methods in api["paths"].items():
        parts += [_path(path, method, told) for method, told in methods.items()]
    return "".join(parts) + f"<script>{_SCRIPT}</script></html>"


def _path(path: str, method: str, told: dict[str, Any]) -> str:
    head = f"<h2><b>{method.upper()}</b> {escape(path)}</h2><p>{escape(told.get('summary', ''))}"
    content = told.get("requestBody", {}).get("content", {}).get(MEDIA_TYPE)
    if not content:
        return f"{head}: <a href='{escape(path)}'>{escape(path)}</a>"
    example = json.dumps(content["example"], indent=2, ensure_ascii=False)
    rows = "".join(
        f"<tr><td>{escape(str(status))}<td>{escape(one['description'])}" for status, one in told["responses"].items()
    )
    return (
        f"{head}<form data-path='{escape(path)}'><textarea rows={len(example.splitlines())} spellcheck=false "
        f"aria-label='body of {escape(path)}'>"
        f"{escape(example)}</textarea><p><button>Try it</button><pre hidden></pre></form><table>{rows}</table>"
        f"<details><summary>Body</summary><pre>{_shown(content['schema'])}</pre></details>"
        f"<details><summary>Answer</summary><pre>{_shown(told['responses']['200']['content']['application/json']['schema'])}"
        "</pre></details>"
    )


def _shown(schema: Any) -> str:
    return escape(json.dumps(schema, indent=1, ensure_ascii=False))
