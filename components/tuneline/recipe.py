"""Reads recipes: from YAML, from the command line's key=value, from a pipeline's parameters, into config.py's sections.

What the schema does not allow is refused here, before a run starts, in one line with the key's path, what was given and
what is allowed.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from tuneline.config import SECTIONS, Recipe, Section
from tuneline.errors import InputError, without_credentials

S = TypeVar("S", bound=Section)
SHOWN = 200
"""Characters of a refused value that a message shows."""


class _TwiceError(Exception):
    """A key stands twice in one mapping."""


class _Once(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML's own loader silently takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # as written: what `<<` merges is not in it yet
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                raise _TwiceError(
                    f"line {line}: {key.value!r} stands in line {seen[key.value]} already; put both into one"
                )
            seen[key.value] = line
        return node


def _read(text: str) -> Any:
    return yaml.load(text, _Once)  # noqa: S506 - a SafeLoader


def validate(schema: type[S], values: Any, where: str = "") -> S:
    """Build a section or a recipe from plain values.

    Args:
        schema: a Section class.
        values: a mapping of its keys.
        where: the path to name in front of a key, such as `train`.

    Raises:
        InputError: unknown key, wrong type or impossible value; names the key's path, what was given, what is allowed.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        # a misspelt key is why another is lacking
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(_explain(schema, problems[0], where) + more) from None


def from_flat(schema: type[S], parameters: dict[str, Any]) -> S:
    """A section from flat pipeline parameters (`train_batch_size`); those of other sections are passed over.

    Raises:
        InputError: as validate.
    """
    section = next(name for name, known in SECTIONS.items() if known is schema)
    start = f"{section}_"
    values = {key.removeprefix(start): value for key, value in parameters.items() if key.startswith(start)}
    return validate(schema, values, section)


def _explain(schema: type[Section], problem: Any, where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join([where, *path] if where else path)
    if problem["type"] == "extra_forbidden":
        allowed = _keys(schema, path[:-1])
        close = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{key}: unknown key; {hint}allowed here: {', '.join(allowed)}"
    if problem["type"] == "missing":
        key = "data.train" if key == "data" else key
        of_recipe = schema is Recipe or schema in SECTIONS.values()
        how = f"; set it in the recipe or on the command line as {key}=VALUE" if of_recipe else ""
        return f"{key}: not given, and required{how}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # of a section as a whole
        return f"{key}.{message}"
    given = repr(problem["input"])
    if problem["type"] == "string_type" and isinstance(problem["input"], bool | int | float):
        message += "; quote it"
    shown = given if len(given) <= SHOWN else f"{given[:SHOWN]}…"
    return f"{key}: {without_credentials(shown)} given; {message[0].lower()}{message[1:]}"


def _keys(schema: type[Section], path: list[str]) -> list[str]:
    for part in path:
        if part.isdigit():  # a place in a list, whose sections the part before has named
            continue
        found = _section_in(_field(schema, part))
        if found is None:
            return []
        schema = found
    return [field.alias or name for name, field in schema.model_fields.items()]


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that a key holds: itself, one of a list, or one that may be left out."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _field(schema: type[Section], key: str) -> Any:
    for name, field in schema.model_fields.items():
        if key == (field.alias or name):
            return field.annotation
    return None


def load_recipe(path: Path, overrides: list[str]) -> Recipe:
    """Read a recipe file and apply `key.path=value` overrides.

    Args:
        path: a YAML file.
        overrides: such as `train.epochs=1`; the value is read as YAML unless the key holds text.

    Raises:
        InputError: the file is missing or no YAML mapping, or a key or value is refused.
    """
    tree = read_mapping(path, str(path), Recipe)
    for override in overrides:
        _apply(tree, override)
    return validate(Recipe, tree)


def read_mapping(path: Path, name: str, schema: type[Section]) -> dict[str, Any]:
    """The keys of a YAML file, not yet validated.

    Args:
        path: the file.
        name: what to call it in a message.
        schema: whose keys it may hold.

    Raises:
        InputError: it is missing or no YAML mapping.
    """
    try:
        tree = _read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); give a YAML file") from None
    except _TwiceError as error:
        raise InputError(f"{name}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date such as 2026-13-41
        raise InputError(f"{name}: not a YAML file: {error}") from None
    except RecursionError:
        raise InputError(f"{name}: not a YAML file: nested too deeply") from None
    if isinstance(tree, dict):  # a section whose keys are all commented out
        empty = {key for key, value in tree.items() if value is None and _section_in(_field(schema, str(key)))}
        return {key: value for key, value in tree.items() if key not in empty}
    if tree is None:
        raise InputError(f"{name}: is empty; sections are needed ({', '.join(_keys(schema, []))})")
    raise InputError(f"{name}: holds {type(tree).__name__}, not a mapping of sections ({', '.join(_keys(schema, []))})")


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r}: not an override; write key.path=value, such as train.epochs=1")
    *parents, last = key.split(".")
    schema: Any = Recipe
    node = tree
    for parent in parents:
        schema = _field(schema, parent) if isinstance(schema, type) and issubclass(schema, Section) else None
        child = node.get(parent)
        node[parent] = child = {} if child is None else child
        if not isinstance(child, dict):
            raise InputError(f"{key}: unknown key; {parent} holds a single value")
        node = child
    annotation = _field(schema, last) if isinstance(schema, type) and issubclass(schema, Section) else None
    node[last] = text if annotation is str else _scalar(key, text)


def _scalar(key: str, text: str) -> Any:
    try:
        return _read(text)
    except _TwiceError as error:
        raise InputError(f"{key}: {error}") from None
    except (yaml.YAMLError, ValueError):
        raise InputError(f"{key}: {text!r} given; not a YAML value") from None
