"""tuneline plan: what it tells, that what it calls fitting fits, what it refuses, and that nothing is left of it."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console
from tests.components.conftest import write_csv
from tests.conftest import WORDS, reviews
from typer.testing import CliRunner, Result

from tuneline.config import ModelConfig, TrainConfig
from tuneline.prepare.prepare import prepare
from tuneline.recipe import load_recipe
from tuneline.train.forecast import STEP_MB, Forecast
from tuneline_pipelines.cli import app
from tuneline_pipelines.init import Columns, Where, next_commands, write
from tuneline_pipelines.outlook import Limit, show
from tuneline_pipelines.plan import _smaller

pytestmark = pytest.mark.medium

NUMBER, TEXT = {"type": "number", "minimum": 0}, {"type": "string"}
RANGE = {"type": "object", "properties": dict.fromkeys(("low", "expected", "high"), NUMBER),
         "required": ["low", "expected", "high"], "additionalProperties": False}  # fmt: skip


def thing(**keys: Any) -> dict[str, Any]:
    return {"type": "object", "properties": keys, "required": list(keys), "additionalProperties": False}


COUNT = {"type": "integer", "minimum": 1}
SPLITS = thing(train=COUNT, validation=COUNT, test=COUNT)
SCHEMA = thing(
    status={"const": "succeeded"}, model=TEXT,
    measured_on=thing(device=TEXT, threads=COUNT, processes={"const": 1}, how=TEXT, parameters=COUNT, steps=COUNT,
                      cpu_share=NUMBER),
    data=thing(rows=SPLITS, tokens=thing(train=COUNT, validation=COUNT), longest=COUNT, labels=COUNT,
               tokenized={"type": "number", "maximum": 1}, notes={"type": "array", "items": TEXT}),
    steps=thing(total=COUNT, epochs=COUNT, batch_size=COUNT),
    memory=thing(fits={"type": "boolean"}, peak_mb=NUMBER, limit_mb=NUMBER, limit_of=TEXT, on={"enum": ["CPU", "GPU"]},
                 host_mb=NUMBER, mb_per_1000_tokens=NUMBER, heaviest_pass_tokens=COUNT,
                 fitting=thing(pass_tokens=COUNT, batch_size=COUNT, measured_tokens=COUNT, peak_mb=NUMBER)),
    seconds=thing(prepare=NUMBER, start=RANGE, states=RANGE, steps=RANGE, validation=RANGE, checkpoints=RANGE,
                  total=RANGE),
    cost={"anyOf": [RANGE, {"type": "null"}]},
    disk_mb=thing(prepared=NUMBER, checkpoints=NUMBER, states=NUMBER, model=NUMBER, total=NUMBER, free=NUMBER),
    do={"type": "array", "items": TEXT, "minItems": 4, "maxItems": 4}, warnings={"type": "array", "items": TEXT},
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a temporary folder of its own that must end up empty."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


def small(checkpoint: Path, *more: str) -> list[str]:
    write_csv(Path("rows.csv"), reviews(240))
    return ["text", "data.train=rows.csv", f"model.name={checkpoint}", "model.max_length=32", *more]


def nothing_is_left(folder: Path, own_store: Path) -> bool:
    return not (own_store.exists() or (folder / "mlflow.db").exists() or any((folder / "temporary").iterdir()))


def test_a_plan_tells_all_that_scripts_rely_on_and_leaves_nothing(own_folder, own_store, tiny_checkpoint):
    done = command(*small(tiny_checkpoint, "train.epochs=2", "train.price_per_hour=3.6", "--json"))
    assert done.exit_code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    jsonschema.validate(found, SCHEMA)
    rows = found["data"]["rows"]
    assert sum(rows.values()) == 240
    assert found["steps"] == {"total": 2 * -(-rows["train"] // 16), "epochs": 2, "batch_size": 16}
    assert found["data"]["tokenized"] == 1
    total = found["seconds"]["total"]
    assert total["low"] <= total["expected"] <= total["high"]
    parts = sum(
        found["seconds"][name]["expected"] for name in ("start", "states", "steps", "validation", "checkpoints")
    )
    assert total["expected"] == pytest.approx(parts)
    meter = parts - found["seconds"]["start"]["expected"]
    assert found["cost"]["expected"] == pytest.approx(meter / 1000)
    assert found["memory"]["fits"]
    assert found["memory"]["peak_mb"] < found["memory"]["limit_mb"]
    assert found["memory"]["fitting"]["pass_tokens"] > 8192
    assert [step.split(":")[0] for step in found["do"]] == ["prepare", "train", "evaluate", "register"]
    assert nothing_is_left(own_folder, own_store)
    shown = io.StringIO()
    show(Console(file=shown, width=300), found)
    told = {line.split()[0]: line for line in shown.getvalue().splitlines()}
    assert f"{rows['train']} texts to train on" in told["data"]
    assert f"steps     {found['steps']['total']}: 2 epochs" in told["steps"]
    assert "fits" in told["memory"] and "by train.price_per_hour" in told["cost"] and "free here" in told["disk"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["train.lerning_rate=1"], "did you mean learning_rate?"),
        (["data.train=missing.csv"], "data.train: missing.csv: no such file"),
        (["model.name=./nowhere"], "model.name: ./nowhere: no checkpoint there"),
        (["model.max_length=9999"], "model.max_length: 9999 given"),
        (["data.max_train=1"], "data.max_train: a sample of 1 keeps no training row"),
        (["data.min_class_rows=500", "data.policy.small_class=fail"], "tuneline audit shows all"),
        (["train.distributed.nodes=2"], "no cluster to take them from"),
        (["train.distributed.nodes=2", "--profile", "cluster.yaml"], "needs a --profile with trainjob"),
        (["--profile", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["train.tune=top_layers", "train.top_layers=9"], "the checkpoint has 2 layers"),
        (["model.name=broken"], "cannot be loaded as a text classifier"),
    ],
)
def test_what_a_run_would_refuse_is_one_line_and_nothing_is_left(own_folder, own_store, tiny_checkpoint, more, told):
    Path("cluster.yaml").write_text("{}")
    Path("broken").mkdir()
    for file in tiny_checkpoint.iterdir():
        cut = file.read_bytes()[: 200 if file.suffix == ".safetensors" else None]
        (Path("broken") / file.name).write_bytes(cut)
    done = command(*small(tiny_checkpoint, *more, "--json"))
    assert done.exit_code == 2
    assert set(json.loads(done.stdout)) == {"status", "error"}
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told in line
    assert "temporary" not in line
    assert nothing_is_left(own_folder, own_store)


def test_what_a_cluster_lacks_here_and_what_a_group_of_processes_adds_is_told(tiny_checkpoint):
    Path("cluster.yaml").write_text("steps: {train: {memory_limit: 64Gi, accelerator: {count: 2}}}")
    more = ["train.distributed.gpus_per_node=2", "train.early_stopping=1", "--profile", "cluster.yaml", "--json"]
    done = command(*small(tiny_checkpoint, *more))
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA)
    assert found["memory"]["limit_mb"] == pytest.approx(2**35 / 1e6)
    assert "memory_limit 64Gi, for each of 2 processes" in found["memory"]["limit_of"]
    told = " | ".join(found["warnings"])
    for part in ("asks for a GPU", "with one of 2 processes", "may end the training sooner"):
        assert part in told


@pytest.mark.slow
def test_the_recipe_that_init_writes_passes_the_commands_that_it_names(own_folder, own_store):
    write_csv(Path("desk.csv"), [(text, label) for text, label in reviews(60)], ("body", "topic"))
    write("desk", "desk.csv", Columns("body", "topic", ("body", "topic"), 60, 2), Where.LAPTOP)
    assert load_recipe(Path("desk.yaml"), []).data.text_column == "body"
    for words in (line.split() for line in next_commands("desk", Where.LAPTOP)[:2]):
        assert words[0] == "tuneline"
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, done.stderr
    assert "train.pass_tokens=" in done.stdout
    assert not (own_folder / "mlflow.db").exists()


def forecast(*notes: dict[str, Any]) -> Forecast:
    start = {"kind": "start", "device": "cpu", "tuned": 0, "longest": 100, "rows": {"train": 1},
             "tokens": {"train": 1}, "texts": {"train": 1}, "read": {"train": 1}}  # fmt: skip
    return Forecast([start, *notes], TrainConfig(), 0.0)


def test_a_rehearsal_that_was_killed_is_tried_with_half_of_what_killed_it():
    heaviest = {"kind": "heaviest", "tokens": 4000, "places": 4000}
    passes = [{"kind": "pass", "tokens": n, "mb": 100 + n / 100, "seconds": 1} for n in (10, 1000)]
    died = forecast(heaviest, *passes, {"kind": "try", "tokens": 2000})
    assert _smaller(died, Limit(10_000, ""), killed=True) == 1000
    assert _smaller(died, Limit(10_000, ""), killed=False) == 3000
    assert _smaller(died, Limit(200, ""), killed=True) is None
    assert _smaller(forecast(), Limit(10_000, ""), killed=True) is None


@pytest.fixture(scope="module")
def wide_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose passes take hundreds of megabytes: tokens count, weights do not."""
    import shutil

    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("wide") / "checkpoint"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 4, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512,
        max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    shutil.copyfile(tiny_checkpoint / "tokenizer.json", folder / "tokenizer.json")
    return folder


@pytest.mark.slow
def test_what_is_called_fitting_fits_and_what_is_not_does_not(own_folder, wide_checkpoint):
    """Against the real training, in a process of its own, by the peak that it measured itself."""
    draw = random.Random(0)
    rows = [(" ".join(draw.choices(WORDS, k=draw.randrange(20, 90))), "ab"[number % 2]) for number in range(800)]
    write_csv(Path("long.csv"), rows)
    base = ["text", "data.train=long.csv", f"model.name={wide_checkpoint}", "model.max_length=96",
            "train.batch_size=128", "train.epochs=1", "train.precision=fp32", "--json"]  # fmt: skip
    whole = json.loads(command(*base).stdout)["memory"]
    assert whole["fits"]
    limit = whole["peak_mb"] - 0.5 * whole["mb_per_1000_tokens"] * whole["heaviest_pass_tokens"] / 1000
    Path("tight.yaml").write_text(f"steps: {{train: {{memory_limit: {int(limit)}M}}}}")
    done = command(*base, "--profile", "tight.yaml")
    assert done.exit_code == 0, done.stderr
    tight = json.loads(done.stdout)
    assert not tight["memory"]["fits"]
    assert tight["memory"]["peak_mb"] == pytest.approx(whole["peak_mb"], rel=0.1)
    tokens = tight["memory"]["fitting"]["pass_tokens"]
    assert 96 <= tokens < whole["heaviest_pass_tokens"]
    assert f"take train.pass_tokens={tokens}" in " | ".join(tight["warnings"])
    model = ModelConfig(name=str(wide_checkpoint), max_length=96)
    prepare(load_recipe_data(), model, own_folder / "data")
    real = {size: _trained(own_folder, model, size) + STEP_MB for size in (8192, tokens)}
    assert real[8192] > limit
    assert real[tokens] < limit
    assert whole["peak_mb"] == pytest.approx(real[8192], rel=0.2)


def load_recipe_data() -> Any:
    from tuneline.config import DataConfig

    return DataConfig(train="long.csv")


def _trained(folder: Path, model: ModelConfig, tokens: int) -> float:
    """Megabytes that a real training takes at most."""
    settings = TrainConfig(batch_size=128, epochs=1, precision="fp32", pass_tokens=tokens)
    config = {"model": model.model_dump(mode="json"), "train": settings.model_dump(mode="json")}
    (folder / "config.json").write_text(json.dumps(config))
    words = [sys.executable, "-m", "tuneline.train", folder / "data", folder / "out", folder / "config.json"]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ), check=True)
    return json.loads(done.stdout.splitlines()[-1])["train_peak_memory_mb"]


@pytest.mark.slow
def test_a_limit_that_not_even_one_text_meets_is_one_line(own_folder, own_store, tiny_checkpoint):
    Path("none.yaml").write_text("steps: {train: {memory_limit: 100M}}")
    done = command(*small(tiny_checkpoint, "--profile", "none.yaml"))
    assert done.exit_code == 2
    assert "takes more memory than the 100 MB of the profile's steps.train.memory_limit 100M" in done.stderr
    assert nothing_is_left(own_folder, own_store)
