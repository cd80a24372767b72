"""The face of prepare: a KFP component that calls prepare_step."""

from kfp import dsl

from tuneline.images import PREPARE


@dsl.component(base_image=PREPARE, install_kfp_package=False)
def prepare(
    data: dsl.Output[dsl.Dataset],
    data_train: str,
    data_validation: str,
    data_test: str,
    data_text_column: str,
    data_label_column: str,
    data_validation_share: float,
    data_test_share: float,
    data_max_train: int,
    data_max_validation: int,
    data_max_test: int,
    data_seed: int,
    data_pin: str,
    model_name: str,
    model_max_length: int,
    model_truncation_side: str,
):
    """Read, check, split and tokenize labelled text."""
    from tuneline.prepare.prepare import prepare_step

    prepare_step(
        data,
        data_pin,
        data_train=data_train,
        data_validation=data_validation,
        data_test=data_test,
        data_text_column=data_text_column,
        data_label_column=data_label_column,
        data_validation_share=data_validation_share,
        data_test_share=data_test_share,
        data_max_train=data_max_train,
        data_max_validation=data_max_validation,
        data_max_test=data_max_test,
        data_seed=data_seed,
        model_name=model_name,
        model_max_length=model_max_length,
        model_truncation_side=model_truncation_side,
    )
