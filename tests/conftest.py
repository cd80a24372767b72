"""What all tests share: real data where it is, a tiny real checkpoint made on the spot, a store of their own."""

from __future__ import annotations

import builtins
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from infra.local.stack import free_port as free_port

from tuneline.step import OWNER_PID
from tuneline.storage import CHECKPOINTS

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command does: tests share their cores
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    # A shell starts what is in the background deaf to Ctrl-C, as nohup does to a closed terminal, and so would be the
    # commands that tests stop.
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
ROOT = Path(__file__).parent.parent
ALONE = {f"tests/e2e/test_{name}.py" for name in ("bad_input", "killed", "real_text", "sweep")}
"""Files whose tests share nothing that is dear, and may run in several processes."""
WORDS = ("good fine great nice lovely bad poor awful dull boring the a film was is very really not plot actors").split()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay in one process, and so do all that build and run images, whatever --dist says.

    Its own loadgroup does nothing with pytest 9.2 (xdist 3.8 writes the group to a node's id, which that pytest takes
    from elsewhere): each process built all images then.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith("tests/docker/"):
                return "docker"
            return nodeid if file in ALONE else file

    config.option.loadscopereorder = False  # the order below, not that of the number of tests
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: one core is not to wait for the other at the end."""
    first = ("tests/docker/", "tests/e2e/")
    items.sort(key=lambda item: next((n for n, start in enumerate(first) if item.nodeid.startswith(start)), len(first)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; a test that needs it skips without it, or fails where TUNELINE_REQUIRE_DATA=1."""
    folder = Path(os.environ.get("TUNELINE_DATA", ROOT / "../shared/data")).resolve()
    if not (folder / "imdb").is_dir():
        message = f"no real data in {folder}; set TUNELINE_DATA"
        if os.environ.get("TUNELINE_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(autouse=True)
def own_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """KFP's local runner puts a print of its own in the builtins, and with tasks in parallel leaves it there."""
    monkeypatch.setattr(builtins, "print", print)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has an MLflow store and a state folder of its own, and no hub.

    `mlflow.set_tracking_uri` outranks the environment and outlives the test: whoever calls it is told here,
    rather than the test that comes after it in some other order.
    """
    home = tmp_path / "home"
    monkeypatch.setenv("TUNELINE_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    # A run tells its steps by the environment where checkpoints are and whose they are; no test is a step of another's.
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "TUNELINE_PARENT_RUN_ID", CHECKPOINTS, OWNER_PID):
        monkeypatch.setenv(name, "")  # so that it is taken out again after a test that sets it in passing
        monkeypatch.delenv(name)
    yield home
    service = sys.modules.get("mlflow.tracking._tracking_service.utils")
    assert service is None or service._tracking_uri is None, "set MLFLOW_TRACKING_URI by monkeypatch instead"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_tiny_checkpoint`; to be read only."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


def write_tiny_checkpoint(folder: Path) -> Path:
    """A BERT of two layers with random weights and a word-level tokenizer, as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def until(condition: Callable[[], object], seconds: float = 20, pause: float = 0.005) -> None:
    """Wait until it is so, looking once a pause; it has to be within the seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(pause)


def trials_in(database: Path) -> list[Any]:
    """The trials of the one study in an SQLite file that another process works on; none before there is a study."""
    import optuna

    # A study is made after all tables: opening the storage before would make them too, in a race with that process.
    # It makes no file; read-only, it would refuse one whose writer was killed in a commit.
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as file:
        if file.execute("SELECT count(*) FROM studies").fetchone()[0]:
            patience = {"connect_args": {"timeout": 60}}
            storage = optuna.storages.RDBStorage(f"sqlite:///{database}", engine_kwargs=patience)
            (name,) = optuna.get_all_study_names(storage)
            return optuna.load_study(study_name=name, storage=storage).trials
    return []


def reviews(count: int, start: int = 0) -> list[tuple[str, str]]:
    """Distinct short reviews that a model of words can tell apart: text, label."""
    good, bad, other = WORDS[:5], WORDS[5:10], WORDS[10:]
    rows = []
    for number in range(start, start + count):
        side = good if number % 2 else bad
        filler = [other[(number >> shift) % len(other)] for shift in (1, 3, 5, 7)]
        rows.append(
            (f"{' '.join(filler)} {side[number % 5]} {side[number // 5 % 5]} {number}", "pos" if number % 2 else "neg")
        )
    return rows


@pytest.fixture
def nohup() -> Iterator[None]:
    """What is started is deaf to a closed terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def reviews_csv(tmp_path: Path) -> Path:
    """A CSV of 240 reviews with columns text and label."""
    import csv

    path = tmp_path / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows(reviews(240))
    return path
