"""Evaluate CEL: a JSON list of [expression, pod] on standard input, the results on standard output.

Run by .venv-checks/bin/python, which has cel-python. That knows no nested types such as `Object.spec.containers{...}`,
which an API server brings: they are given flat names, and become plain mappings. What the API server checks beyond it,
that each of those fields is one of a pod's, the caller does with the pod's schema.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import celpy
from celpy.celtypes import MessageType


def evaluate(expression: str, pod: Any) -> Any:
    """The value of an expression over `object`."""
    flat = re.sub(r"\bObject(\.\w+)*(?=\{)", lambda name: name[0].replace(".", "_"), expression)
    types = dict.fromkeys(re.findall(r"\b(Object\w*)\{", flat), MessageType)
    environment = celpy.Environment(annotations=types)
    return environment.program(environment.compile(flat)).evaluate({"object": celpy.json_to_cel(pod)})


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps([celpy.CELJSONEncoder.to_python(evaluate(expression, pod)) for expression, pod in asked]))
