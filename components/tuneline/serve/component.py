"""The faces of batch prediction: KFP components that call the steps of batch.py."""

# pyright: reportInvalidTypeForm=false
from typing import List, NamedTuple  # noqa: UP035 - kfp reads the annotations

from kfp import dsl

from tuneline.images import EVALUATE, PREPARE


@dsl.component(base_image=PREPARE, install_kfp_package=False)
def plan(
    model: str,
    files: str,
    column: str,
    shards: int,
    output: str,
) -> NamedTuple("Plan", [("version", str), ("weights", str), ("rows", int), ("work", list)]):
    """Resolve the model's alias, check the texts and list the shards."""
    from tuneline.serve.batch import plan_step

    return plan_step(model, files, column, shards, output)


@dsl.component(base_image=EVALUATE, install_kfp_package=False)
def predict(
    predictions: dsl.Output[dsl.Dataset],
    model: str,
    weights: str,
    column: str,
    shard: dict,
):
    """Answer one shard."""
    from tuneline.serve.batch import predict_step

    predict_step(predictions, model, weights, column, shard)


@dsl.component(base_image=PREPARE, install_kfp_package=False)
def merge(
    parts: dsl.Input[List[dsl.Dataset]],  # noqa: UP006 - kfp reads the annotations
    predictions: dsl.Output[dsl.Dataset],
    rows: int,
    model: str,
    files: str,
    column: str,
    output: str,
):
    """Put the shards together and check that no row is missing."""
    from tuneline.serve.batch import merge_step

    merge_step(parts, predictions, rows, model=model, files=files, column=column, output=output)
