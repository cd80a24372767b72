"""The face of evaluate: a KFP component that calls evaluate_step."""

from kfp import dsl

from tuneline.images import EVALUATE


@dsl.component(base_image=EVALUATE, install_kfp_package=False)
def evaluate(
    data: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    register_name: str,
):
    """Measure the model on the test split, beside a linear baseline and the champion of the registered name."""
    from tuneline.evaluate.evaluate import evaluate_step

    evaluate_step(data, model, evaluation, report, metrics, confusion, register_name=register_name)
