"""The faces of batch prediction: KFP components that call the steps of batch.py."""

from typing import List  # noqa: UP035 - kfp reads the annotations

from kfp import dsl

from tuneline.images import EVALUATE, PREPARE


@dsl.component(base_image=PREPARE, install_kfp_package=False)
def plan(
    model: str,
    files: str,
    column: str,
    shards: int,
    output: str,
    pair_column: str,
) -> list:
    """Resolve the model's alias, check the texts and list the shards."""
    from tuneline.serve.batch import plan_step

    return plan_step(model, files, column, shards, output, pair_column)


@dsl.component(base_image=EVALUATE, install_kfp_package=False)
def predict(
    predictions: dsl.Output[dsl.Dataset],
    shard: dict,
    column: str,
    pair_column: str,
):
    """Answer one shard."""
    from tuneline.serve.batch import predict_step

    predict_step(predictions, shard, column, pair_column)


@dsl.component(base_image=PREPARE, install_kfp_package=False)
def merge(
    parts: dsl.Input[List[dsl.Dataset]],  # noqa: UP006 - kfp reads the annotations
    predictions: dsl.Output[dsl.Dataset],
    work: list,
    files: str,
    column: str,
    output: str,
    pair_column: str,
):
    """Put the shards together and check that no row is missing."""
    from tuneline.serve.batch import merge_step

    merge_step(parts, predictions, work, files=files, column=column, output=output, pair_column=pair_column)
