"""The launcher of TrainJobs against a stand-in API server: every state a job can be found in, and every way it ends."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.components.conftest import model_config, prepare_rows
from tests.components.train.stand_in import Cluster, Job, Scene, holds
from tests.components.train.test_job_manifest import JOB, TWO
from tests.components.train.test_train import Heard, altered, losses
from tests.conftest import reviews
from tuneline.artifacts import PreparedData, read_json
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.tracking import KFP_RUN
from tuneline.train.job_manifest import ENVIRONMENT, JobSettings, job_name
from tuneline.train.record import FileRecorder, JobFailed
from tuneline.train.train import train, train_step
from tuneline.train.trainjob import fit

pytestmark = pytest.mark.medium


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A stand-in, and an environment that leads to it."""
    made = Cluster()
    monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv(KFP_RUN, raising=False)
    (tmp_path / "claim").mkdir()
    configure(monkeypatch, tmp_path)
    yield made
    made.close()


def configure(monkeypatch, tmp_path: Path, **changes: Any) -> None:
    settings = JobSettings.model_validate(JOB | {"mount_path": str(tmp_path / "claim")} | changes)
    monkeypatch.setenv(ENVIRONMENT, settings.model_dump_json())


@pytest.fixture
def work(cluster, prepared, tiny_checkpoint, tmp_path):
    """Run the launcher; gives the numbers it returned and what the recorder heard."""

    def start(heard: Heard | None = None) -> dict[str, float]:
        return fit(prepared, model_config(tiny_checkpoint), TWO, tmp_path / "model", heard or Heard())

    return start


@pytest.fixture
def name(cluster, prepared, tiny_checkpoint) -> str:
    return job_name(PreparedData.load(prepared), model_config(tiny_checkpoint), TWO, JOB["image"])


@pytest.fixture
def trains(tmp_path, trained) -> Scene:
    """The scene in which the pods have trained: numbers, model and result lie on the claim."""

    def scene(cluster: Cluster, job: Job) -> None:
        folder = tmp_path / "claim" / "tuneline" / job["metadata"]["name"]
        assert (folder / "data" / "manifest.json").is_file()
        recorder = FileRecorder(folder / "record.jsonl")
        recorder.metrics({"loss": 0.5}, 1)
        recorder.metrics({"loss": 0.25}, 2)
        shutil.copytree(trained, folder / "model")
        recorder.result({"train_seconds": 1.5}, folder / "model")

    return scene


def completes(cluster: Cluster, job: Job) -> None:
    holds(job, "Complete", "JobsCompleted")


def fails(cluster: Cluster, job: Job) -> None:
    holds(job, "Failed", "JobsFailed", message="the job has reached its backoff limit")


def waits(cluster: Cluster, job: Job) -> None:
    holds(job, "Suspended", "Suspended", message="TrainJob is suspended")


def goes_on(cluster: Cluster, job: Job) -> None:
    holds(job, "Suspended", "Resumed", status="False")


def runs(*lines: str) -> Scene:
    def scene(cluster: Cluster, job: Job) -> None:
        pod = cluster.pod(job["metadata"]["name"])
        cluster.print(pod["metadata"]["name"], *lines)

    return scene


def nothing(cluster: Cluster, job: Job) -> None:
    """A look at which all is as before."""


def test_a_job_is_created_waits_runs_and_its_model_and_numbers_come_back(
    cluster, work, trains, trained, tmp_path, capfd
):
    progress = "[train] 2/2 steps | loss 0.25 | ETA 0:00"
    cluster.scenes = [
        waits, goes_on, nothing, runs("[train] 1/2 steps | loss 0.5"), nothing, trains,
        lambda made, job: made.print(made.pods[0]["metadata"]["name"], progress), completes,
    ]  # fmt: skip
    heard = Heard()
    assert work(heard) == {"train_seconds": 1.5}
    assert heard.told == [({"loss": 0.5}, 1), ({"loss": 0.25}, 2)]
    assert {path.name for path in (tmp_path / "model").iterdir()} == {path.name for path in trained.iterdir()}
    assert cluster.calls == ["POST", "DELETE"]
    assert list((tmp_path / "claim" / "tuneline").iterdir()) == []
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("[train]")]
    assert [line.partition("/tuneline-")[0].removeprefix("[train] ") for line in said] == [
        "created TrainJob team", "TrainJob is suspended: it waits for a queue or a person (Suspended: TrainJob is "
        "suspended)", "TrainJob is starting", "1/2 steps | loss 0.5", "TrainJob is running",
        progress.removeprefix("[train] "),
    ]  # fmt: skip


def test_a_running_job_is_joined_not_started_twice(cluster, work, name, trains):
    cluster.put(name, {})
    cluster.scenes = [runs(), nothing, trains, completes]
    assert work() == {"train_seconds": 1.5}
    assert cluster.calls == ["DELETE"]


def test_a_step_that_races_another_joins_what_the_other_created(cluster, work, trains):
    create = cluster.create

    def too_late(namespace: str, body: Job) -> Any:
        cluster.create = create
        create(namespace, body)
        return create(namespace, body)

    cluster.create = too_late
    cluster.scenes = [runs(), trains, completes]
    assert work() == {"train_seconds": 1.5}
    assert len(cluster.pods) == 1


def test_a_finished_job_is_taken(cluster, work, name, trains, tmp_path):
    job = cluster.put(name, {})
    completes(cluster, job)
    cluster.scenes = [trains]
    assert work() == {"train_seconds": 1.5}
    assert cluster.calls == ["DELETE"]


def test_a_finished_job_whose_result_is_gone_is_replaced(cluster, work, name, trains, capfd):
    completes(cluster, cluster.put(name, {}))
    cluster.scenes = [nothing, trains, completes]
    assert work() == {"train_seconds": 1.5}
    assert cluster.calls == ["DELETE", "POST", "DELETE"]
    assert "finished earlier, and its result is gone; another takes its place" in capfd.readouterr().out


def test_a_job_that_failed_earlier_is_replaced_once_it_is_gone(cluster, work, name, trains, capfd):
    fails(cluster, cluster.put(name, {}))
    cluster.lingers = 3
    cluster.scenes = [nothing, trains, completes]
    assert work() == {"train_seconds": 1.5}
    assert cluster.calls == ["DELETE", "POST", "DELETE"]
    assert "failed earlier (JobsFailed: the job has reached its backoff limit)" in capfd.readouterr().out


def test_a_job_that_is_being_deleted_is_waited_out(cluster, work, name, trains):
    cluster.put(name, {})["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.lingers = 2
    cluster.scenes = [trains, completes]
    assert work() == {"train_seconds": 1.5}
    assert cluster.calls == ["POST", "DELETE"]


def test_a_job_whose_deletion_does_not_end_is_told_and_not_waited_for_without_end(
    cluster, work, name, monkeypatch, tmp_path, capfd
):
    configure(monkeypatch, tmp_path, start_timeout_seconds=1)
    job = cluster.put(name, {})
    job["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/stuck"]}
    cluster.lingers = 10**6
    with pytest.raises(JobFailed, match=r"is being deleted and does not go; what holds it: example\.com/stuck"):
        work()
    assert capfd.readouterr().out.count("is being deleted; waiting for that") == 1


def test_a_failed_job_is_told_in_one_line_and_left_to_be_looked_at(cluster, work, name):
    cluster.scenes = [runs("RuntimeError: out of memory"), fails]
    with pytest.raises(JobFailed) as caught:
        work()
    assert str(caught.value) == (
        f"TrainJob {name} failed (JobsFailed: the job has reached its backoff limit); its pods' logs tell more: "
        f"kubectl -n team describe trainjob {name}"
    )
    assert cluster.calls == ["POST"]


def test_bad_input_that_a_pod_finds_is_the_step_s_own(cluster, work, capfd):
    cluster.scenes = [runs("tuneline: error: model.name: x: no checkpoint there", "Traceback"), fails]
    with pytest.raises(InputError, match=r"^model\.name: x: no checkpoint there$"):
        work()
    assert "tuneline: error" not in capfd.readouterr().out


def test_after_preemption_the_new_pod_is_followed_and_no_number_is_recorded_twice(
    cluster, work, trains, tmp_path, capfd
):
    def first_attempt(made: Cluster, job: Job) -> None:
        folder = tmp_path / "claim" / "tuneline" / job["metadata"]["name"]
        FileRecorder(folder / "record.jsonl").metrics({"loss": 0.5}, 1)

    heard = Heard()
    cluster.scenes = [
        runs("[train] 1/2 steps"), first_attempt, waits, nothing, goes_on, runs("[train] 1/2 steps again"), trains,
        completes,
    ]  # fmt: skip
    work(heard)
    assert heard.told == [({"loss": 0.5}, 1), ({"loss": 0.25}, 2)]
    said = capfd.readouterr().out
    assert said.count("[train] 1/2 steps\n") == said.count("[train] 1/2 steps again\n") == 1
    assert "[train] TrainJob is suspended" in said
    assert "[train] the first pod was replaced (" in said


def test_a_job_deleted_by_someone_else_ends_the_step(cluster, work, name):
    cluster.scenes = [runs(), nothing, lambda made, job: made.jobs.clear()]
    with pytest.raises(JobFailed, match=f"TrainJob {name} was deleted while it was waited for"):
        work()


def test_a_job_replaced_by_someone_else_is_not_mistaken_for_ours(cluster, work, name):
    cluster.scenes = [runs(), nothing, lambda made, job: made.put(name, {})]
    with pytest.raises(JobFailed, match="was deleted while it was waited for"):
        work()


def test_a_stopped_step_deletes_its_job(cluster, store, prepared, tiny_checkpoint, tmp_path):
    from kfp import dsl

    recipe = Recipe.model_validate({"data": {"train": "a"}, "model": model_config(tiny_checkpoint), "train": TWO})
    flat = {key: value for key, value in recipe.flat().items() if key.startswith(("model_", "train_"))}
    cluster.scenes = [runs(), nothing, lambda made, job: os.kill(os.getpid(), signal.SIGTERM), *[nothing] * 1000]
    with pytest.raises(SystemExit) as caught:
        train_step(dsl.Dataset(uri=str(prepared)), dsl.Model(uri=str(tmp_path / "m")), dsl.Metrics(uri="x"), **flat)
    assert caught.value.code == 143
    assert cluster.calls == ["POST", "DELETE"]
    (run,) = store.search_runs([store.get_experiment_by_name("tuneline").experiment_id])
    assert run.info.status == "KILLED"


def test_a_job_whose_pods_do_not_start_in_time_is_deleted_and_the_reason_told(cluster, work, monkeypatch, tmp_path):
    configure(monkeypatch, tmp_path, start_timeout_seconds=1)
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    cluster.scenes = [lambda made, job: made.pod(job["metadata"]["name"], phase="Pending", containerStatuses=[waiting])]
    with pytest.raises(
        JobFailed, match=r"no pod runs after 1 s .ImagePullBackOff: no such image.; see profile.trainjob"
    ):
        work()
    assert cluster.calls == ["POST", "DELETE"]


def test_waiting_in_a_queue_is_not_counted_as_starting(cluster, work, trains, monkeypatch, tmp_path):
    configure(monkeypatch, tmp_path, start_timeout_seconds=4, poll_seconds=0.15)
    cluster.scenes = [waits, *[nothing] * 30, goes_on, runs(), trains, completes]
    assert work() == {"train_seconds": 1.5}


def test_a_model_other_than_the_pods_wrote_is_refused_and_its_job_deleted(cluster, work, trains, tmp_path):
    def tampered(made: Cluster, job: Job) -> None:
        trains(made, job)
        folder = tmp_path / "claim" / "tuneline" / job["metadata"]["name"]
        (folder / "model" / "config.json").write_text("{}")

    cluster.scenes = [runs(), tampered, completes]
    with pytest.raises(JobFailed, match=r"config\.json is missing, foreign or not as it was written"):
        work()
    assert cluster.calls == ["POST", "DELETE"]
    assert not (tmp_path / "model").exists()


def test_a_kept_job_stays_with_its_folder(cluster, work, name, trains, monkeypatch, tmp_path):
    configure(monkeypatch, tmp_path, keep=True)
    cluster.scenes = [runs(), trains, completes]
    work()
    assert cluster.calls == ["POST"]
    assert (tmp_path / "claim" / "tuneline" / name / "model").is_dir()


@pytest.mark.parametrize(
    "fault",
    [
        ("GET", "/trainjobs/", 503, {}),
        ("GET", "/trainjobs/", "drop", {}),
        ("GET", "/pods?", 500, {}),
        ("GET", "/log?", 429, {"Retry-After": "0"}),
        ("POST", "/trainjobs", 500, {}),
        ("DELETE", "/trainjobs/", 504, {}),
    ],
    ids=lambda fault: f"{fault[0]} {fault[2]}",
)
def test_what_passes_by_itself_is_tried_again(cluster, work, trains, capfd, monkeypatch, tmp_path, fault):
    configure(monkeypatch, tmp_path, patience_seconds=60)
    cluster.faults = [fault, fault, fault]
    cluster.scenes = [runs(), nothing, nothing, trains, completes]
    assert work() == {"train_seconds": 1.5}
    assert cluster.faults == []
    assert cluster.calls == ["POST", "DELETE"]
    assert "; trying again" in capfd.readouterr().out


def test_a_token_that_was_renewed_in_its_file_is_read_again(cluster, work, trains, tmp_path):
    cluster.kubeconfig(tmp_path / "kubeconfig", token="expired")
    cluster.refused = lambda: cluster.kubeconfig(tmp_path / "kubeconfig")
    cluster.scenes = [runs(), trains, completes]
    assert work() == {"train_seconds": 1.5}


def test_a_token_that_is_refused_ends_the_step(cluster, work, tmp_path):
    cluster.kubeconfig(tmp_path / "kubeconfig", token="wrong")
    with pytest.raises(
        InputError, match="cannot get in namespace team: 401: Unauthorized; the service account's token"
    ):
        work()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (("GET", "/trainjobs/", 403, {}), "cannot get in namespace team: 403: planted; .* needs a Role for trainjobs"),
        (("POST", "/trainjobs", 404, {}), "404: planted; is Kubeflow Trainer installed"),
        (
            ("POST", "/trainjobs", 403, {"message": "admission webhook denied: runtime tuneline-torch not found"}),
            "admission webhook denied: runtime tuneline-torch not found",
        ),
        (("GET", "/pods?", 403, {}), "cannot list pods in namespace team: 403"),
    ],
)
def test_what_does_not_pass_is_told_in_one_line(cluster, work, fault, told):
    cluster.faults, cluster.scenes = [fault], [runs()]
    with pytest.raises(InputError, match=told):
        work()


def test_a_cluster_that_does_not_come_back_leaves_the_job_to_the_next_try(cluster, work, trains):
    cluster.scenes = [runs()]
    cluster.faults = [("GET", "/log?", 503, {})] * 1000
    with pytest.raises(JobFailed, match="gave up after 3 s, the next try of this step takes over"):
        work()
    assert cluster.calls == ["POST"]
    cluster.faults, cluster.scenes = [], [nothing, trains, completes]
    assert work() == {"train_seconds": 1.5}
    assert cluster.calls == ["POST", "DELETE"]


def test_without_a_cluster_more_than_one_machine_is_refused(prepared, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with pytest.raises(InputError, match=r"^train\.distributed\.nodes: more than one given, and no cluster"):
        fit(prepared, model_config(tiny_checkpoint), TWO, tmp_path / "model")


def test_a_claim_that_is_not_mounted_is_told(cluster, work, tmp_path):
    shutil.rmtree(tmp_path / "claim")
    with pytest.raises(
        InputError, match=r"^profile\.trainjob\.mount_path: .*claim: no folder there; is shared mounted"
    ):
        work()
    assert cluster.calls == []


def test_a_claim_that_cannot_be_written_to_is_told(cluster, work, tmp_path):
    (tmp_path / "claim" / "tuneline").write_text("a file where a folder must be")
    with pytest.raises(InputError, match=r"^profile\.trainjob\.claim: shared: cannot write to "):
        work()


def test_data_that_an_earlier_try_left_damaged_is_written_anew(cluster, work, name, trains, prepared, tmp_path):
    folder = tmp_path / "claim" / "tuneline" / name / "data"
    shutil.copytree(prepared, folder)
    (folder / "train.arrow").write_bytes(b"cut short")
    seen: list[bytes] = []
    cluster.scenes = [lambda made, job: seen.append((folder / "train.arrow").read_bytes()), trains, completes]
    work()
    assert seen == [(prepared / "train.arrow").read_bytes()]


def test_training_that_nobody_waits_for_ends(tmp_path):
    lease = tmp_path / "lease"
    recorder = FileRecorder(tmp_path / "record.jsonl", lease, lease_seconds=0.0)
    lease.write_text("1")
    recorder.metrics({"loss": 1.0}, 1)
    lease.write_text("2")
    recorder.metrics({"loss": 1.0}, 2)
    with pytest.raises(InputError, match="the step that started this training has not been seen for 0 s"):
        recorder.metrics({"loss": 1.0}, 3)


@pytest.mark.slow
def test_two_pods_run_the_command_and_give_the_loss_curve_of_one_process(
    cluster, tiny_checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cluster.runs_pods = True
    checkpoint = altered(tiny_checkpoint, tmp_path / "no-dropout", hidden_dropout_prob=0.0)
    rows = reviews(80)
    data = prepare_rows(tmp_path, checkpoint, train=rows[:36], validation=rows[40:50], test=rows[50:60])
    alone, together = Heard(), Heard()
    train(data, model_config(checkpoint), TWO, tmp_path / "one", alone)
    numbers = fit(data, model_config(checkpoint), TWO, tmp_path / "two", together)
    assert cluster.calls == ["POST", "DELETE"]
    assert len(cluster.processes) == 2
    assert numbers["validation_loss"] == pytest.approx(losses(alone, "validation_loss")[-1], abs=1e-4)
    for kind in ("loss", "validation_loss"):
        assert losses(together, kind) == pytest.approx(losses(alone, kind), abs=1e-4)
    assert len(losses(together, "loss")) == 12
    assert read_json(tmp_path / "two" / "config.json")["id2label"] == {"0": "neg", "1": "pos"}
