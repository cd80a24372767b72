"""The face of register: a KFP component that calls register_step."""

from kfp import dsl

from tuneline.images import REGISTER


@dsl.component(base_image=REGISTER, install_kfp_package=False)
def register(
    evaluation: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    version: dsl.Output[dsl.Artifact],
    register_name: str,
    register_rules: dict,
):
    """Judge the evaluation, register the model, and move the aliases that it earned."""
    from tuneline.register.register import register_step

    register_step(evaluation, model, version, register_name=register_name, register_rules=register_rules)
