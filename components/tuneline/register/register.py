"""register: Evaluation + TrainedModel -> RegisteredVersion.

The gate decides about aliases, not about the record: a refused model is registered under its tags, without an alias.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneline import registry
from tuneline.artifacts import Decision, read_json, write_json
from tuneline.config import RegisterConfig, from_flat
from tuneline.progress import say
from tuneline.register.gate import Verdict, judge
from tuneline.step import Artifact, step
from tuneline.tracking import StepRun


@dataclass(frozen=True)
class RegisteredVersion:
    """name, version, the aliases it holds, and the gate's verdicts."""

    name: str
    version: str
    aliases: list[str]
    verdicts: list[dict[str, object]]


def register(evaluation: Path, model: Path, settings: RegisterConfig, out: Path, run: StepRun) -> RegisteredVersion:
    """Judge the evaluation, register the model, move the aliases that it earned, and write the outcome as JSON.

    Args:
        evaluation: folder of Evaluation.
        model: folder of TrainedModel.
        settings: name and rules.
        out: the JSON file to write.
        run: the step's MLflow run, which will own the model's files.
    """
    metrics = read_json(evaluation / "metrics.json")["metrics"]
    decision = Decision.load(model)
    verdicts = judge(metrics, settings.rules)
    passed = all(verdict.passed for verdict in verdicts)
    tags = {
        "tuneline.gate": "passed" if passed else "refused",
        "tuneline.data_sha256": decision.data_sha256,
        "tuneline.base_model": decision.base_model,
        **{f"tuneline.gate.{verdict.rule}": _outcome(verdict) for verdict in verdicts},
        **{f"tuneline.metric.{name}": f"{value:.6f}" for name, value in metrics.items()},
    }
    version = registry.add_version(run, settings.name, model, tags)
    aliases = registry.set_aliases(settings.name, version) if passed else []
    result = RegisteredVersion(settings.name, version, aliases, [asdict(verdict) for verdict in verdicts])
    write_json(out, asdict(result))
    held = ", ".join(aliases) or "no alias: " + "; ".join(v.evidence for v in verdicts if not v.passed)
    say(f"[register] {settings.name} version {version} ({held})")
    return result


def _outcome(verdict: Verdict) -> str:
    return f"{'passed' if verdict.passed else 'refused'}: {verdict.evidence}"


def register_step(evaluation: Artifact, model: Artifact, out: Artifact, **parameters: Any) -> None:
    """The KFP component's work: an evaluation and a model in, a registered version out."""
    with step("register", parameters) as run:
        settings = from_flat(RegisterConfig, parameters)
        result = register(Path(evaluation.path), Path(model.path), settings, Path(out.path), run)
        out.metadata |= {"name": result.name, "version": result.version, "aliases": result.aliases}
        run.artifact(Path(out.path))
