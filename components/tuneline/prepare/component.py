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
    data_pair_column: str,
    data_group_column: str,
    data_time_column: str,
    data_validation_from: str,
    data_test_from: str,
    data_encoding: str,
    data_delimiter: str,
    data_label_map: dict,
    data_label_order: list,
    data_corrections: str,
    data_validation_share: float,
    data_test_share: float,
    data_max_train: int,
    data_max_validation: int,
    data_max_test: int,
    data_seed: int,
    data_near_duplicates: float,
    data_min_class_rows: int,
    data_label_errors: bool,
    data_policy: dict,
    data_workers: int,
    data_pin: str,
    model_name: str,
    model_max_length: int,
    model_long_texts: str,
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
        data_pair_column=data_pair_column,
        data_group_column=data_group_column,
        data_time_column=data_time_column,
        data_validation_from=data_validation_from,
        data_test_from=data_test_from,
        data_encoding=data_encoding,
        data_delimiter=data_delimiter,
        data_label_map=data_label_map,
        data_label_order=data_label_order,
        data_corrections=data_corrections,
        data_validation_share=data_validation_share,
        data_test_share=data_test_share,
        data_max_train=data_max_train,
        data_max_validation=data_max_validation,
        data_max_test=data_max_test,
        data_seed=data_seed,
        data_near_duplicates=data_near_duplicates,
        data_min_class_rows=data_min_class_rows,
        data_label_errors=data_label_errors,
        data_policy=data_policy,
        data_workers=data_workers,
        model_name=model_name,
        model_max_length=model_max_length,
        model_long_texts=model_long_texts,
    )
