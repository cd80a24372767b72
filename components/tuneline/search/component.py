"""The faces of the sweep pipeline: KFP components that call the steps of cluster.py."""

from typing import List  # noqa: UP035 - kfp reads the annotations

from kfp import dsl

from tuneline.images import PREPARE, SWEEP


@dsl.component(base_image=PREPARE, install_kfp_package=False)
def prepare(data: dsl.Output[dsl.Dataset], plan: dsl.Output[dsl.Artifact], recipe: str, data_pin: str):
    """Prepare data for every value of model.* that is searched, and plan the study."""
    from tuneline.search.cluster import prepare_step

    prepare_step(data, plan, recipe, data_pin)


@dsl.component(base_image=SWEEP, install_kfp_package=False)
def search(
    data: dsl.Input[dsl.Dataset],
    trials: dsl.Output[dsl.Artifact],
    plan: dsl.Input[dsl.Artifact],
    recipe: str,
    budget: str,
    study: str,
    job: str,
    workers: list,
    worker: str,
):
    """Train trials of the study that the workers share, until the budget is spent."""
    from tuneline.search.cluster import search_step

    search_step(data, trials, worker, plan=plan, recipe=recipe, budget=budget, study=study, job=job, workers=workers)


@dsl.component(base_image=SWEEP, install_kfp_package=False)
def rank(
    searched: dsl.Input[List[dsl.Artifact]],  # noqa: UP006 - kfp reads the annotations
    plan: dsl.Input[dsl.Artifact],
    recipe: str,
    budget: str,
    study: str,
    job: str,
    workers: list,
) -> list:
    """Find the finalists, and share out their trainings with other seeds."""
    from tuneline.search.cluster import rank_step

    return rank_step(plan=plan, recipe=recipe, budget=budget, study=study, job=job, workers=workers)


@dsl.component(base_image=SWEEP, install_kfp_package=False)
def repeat(
    data: dsl.Input[dsl.Dataset],
    trials: dsl.Output[dsl.Artifact],
    plan: dsl.Input[dsl.Artifact],
    recipe: str,
    budget: str,
    study: str,
    job: str,
    workers: list,
    share: dict,
):
    """Train a share of the finalists with other seeds."""
    from tuneline.search.cluster import repeat_step

    repeat_step(data, trials, share, plan=plan, recipe=recipe, budget=budget, study=study, job=job, workers=workers)


@dsl.component(base_image=SWEEP, install_kfp_package=False)
def conclude(
    repeated: dsl.Input[List[dsl.Artifact]],  # noqa: UP006 - kfp reads the annotations
    best: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    plan: dsl.Input[dsl.Artifact],
    recipe: str,
    budget: str,
    study: str,
    job: str,
    workers: list,
):
    """Pick the winner and tell of it."""
    from tuneline.search.cluster import conclude_step

    conclude_step(best, report, metrics, plan=plan, recipe=recipe, budget=budget, study=study, job=job, workers=workers)
