"""The sweep pipeline: prepare -> search, a pod a worker -> rank -> repeat -> conclude. The DAG, and only the DAG."""

# The arguments that a type checker would miss below are output artifacts, which KFP fills in; a call gives a task, and
# loops and their results stand for what a component takes.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl

from tuneline.search.component import conclude, prepare, rank, repeat, search


class Outputs(NamedTuple):
    """What a finished sweep leaves behind."""

    best: dsl.Artifact
    report: dsl.HTML
    metrics: dsl.Metrics


def build(pinned: bool, configure: Callable[[str, Any], None] | None = None) -> Any:
    """The pipeline.

    Args:
        pinned: data_pin will be given, so that an equal pin may reuse prepared data.
        configure: called with the profile's step that each task is like, and the task.
    """

    @dsl.pipeline(name="tuneline-sweep")
    def sweep(
        recipe: str,
        budget: str = "20trials",
        workers: list = ["1", "2", "3", "4"],  # noqa: B006 - KFP copies it into the pipeline
        study: str = "",
        data_pin: str = "",
    ) -> Outputs:
        """Better settings for a recipe, on its validation split, found by pods that share an Optuna study.

        Args:
            recipe: The recipe, as JSON; its sweep section says what is searched.
            budget: 20trials of all workers together, or 2h, 30m, 90s in which they work side by side.
            workers: The workers' names, a pod each.
            study: The study's name; made of recipe, data and space if empty. A study that is there is gone on with.
            data_pin: Content hash of sources and tokenizers; prepare refuses others. Never empty one by hand.
        """
        prepared = prepare(recipe=recipe, data_pin=data_pin).set_caching_options(enable_caching=pinned)
        # The plan is an artifact, because KFP's local runner (2.17) gives a loop's tasks their item in the place of a
        # parameter that another task gave.
        data, told = prepared.outputs["data"], {
            "recipe": recipe, "budget": budget, "study": study, "plan": prepared.outputs["plan"],
            "job": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "workers": workers,
        }  # fmt: skip
        with dsl.ParallelFor(workers) as worker:
            searched = search(data=data, worker=worker, **told).set_caching_options(enable_caching=False)
        ranked = rank(searched=dsl.Collected(searched.outputs["trials"]), **told)
        ranked.set_caching_options(enable_caching=False)
        with dsl.ParallelFor(ranked.output) as share:
            repeated = repeat(data=data, share=share, **told).set_caching_options(enable_caching=False)
        concluded = conclude(repeated=dsl.Collected(repeated.outputs["trials"]), **told)
        concluded.set_caching_options(enable_caching=False)
        if configure:
            like = {"prepare": [prepared], "sweep": [searched, repeated], "conclude": [ranked, concluded]}
            for name, tasks in like.items():
                for task in tasks:
                    configure(name, task)
        outputs = concluded.outputs
        return Outputs(best=outputs["best"], report=outputs["report"], metrics=outputs["metrics"])

    return sweep
