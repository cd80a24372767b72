"""The pipeline of batch prediction: plan -> predict, a pod a shard -> merge. The DAG, and only the DAG."""

# The arguments that a type checker would miss below are output artifacts, which KFP fills in; a call gives a task.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from collections.abc import Callable
from typing import Any

from kfp import dsl

from tuneline.serve.component import merge, plan, predict


def build(configure: Callable[[str, Any], None] | None = None) -> Any:
    """The pipeline.

    Args:
        configure: called with the profile's step that each task is like, and the task.
    """

    @dsl.pipeline(name="tuneline-batch-predict")
    def batch_predict(
        model: str,
        files: str,
        column: str = "text",
        shards: int = 4,
        output: str = "",
        pair_column: str = "",
    ) -> dsl.Dataset:
        """A registered model's labels for the texts of a file or a folder.

        Args:
            model: MODEL@alias or MODEL/VERSION; an alias is resolved once, when the run starts.
            files: A CSV, TSV, JSON Lines or Parquet file, or a folder of them, where the pods see it.
            column: The column of texts.
            shards: How many pods share the texts.
            output: A .csv or .jsonl file to write the result to besides the run's artifact.
            pair_column: The column of second texts, for a model of pairs; empty for one of single texts.
        """
        # Not cached: an alias and a file may have moved. A shard names its version and input by content, and may be.
        planned = plan(
            model=model, files=files, column=column, shards=shards, output=output, pair_column=pair_column
        ).set_caching_options(enable_caching=False)  # fmt: skip
        with dsl.ParallelFor(planned.output) as shard:
            predicted = predict(shard=shard, column=column, pair_column=pair_column)
        merged = merge(
            parts=dsl.Collected(predicted.outputs["predictions"]),
            work=planned.output,
            files=files,
            column=column,
            output=output,
            pair_column=pair_column,
        ).set_caching_options(enable_caching=False)
        if configure:
            for step, task in (("prepare", planned), ("evaluate", predicted), ("prepare", merged)):
                configure(step, task)
        return merged.outputs["predictions"]

    return batch_predict
