"""register: Evaluation + TrainedModel -> RegisteredVersion.

The gate decides about aliases, not about the record: a refused model is registered under its tags, without an alias.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline import lineage, registry
from tuneline.artifacts import Decision, read_json, write_json
from tuneline.config import RegisterConfig
from tuneline.errors import InputError, without_credentials
from tuneline.predictions import CHAMPION, TRAINING_FILE, Predictions, load_training_keys
from tuneline.progress import say
from tuneline.recipe import from_flat
from tuneline.register.gate import Evidence, Verdict, judge
from tuneline.register.serving import stock_arguments
from tuneline.step import Artifact, step
from tuneline.tracking import StepRun
from tuneline.trouble import trouble

if TYPE_CHECKING:
    import numpy as np


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
    stored = read_json(evaluation / "metrics.json")
    metrics = stored["metrics"] | stored["speed"]
    decision = Decision.load(model)
    evidence = _evidence(settings.name, metrics, evaluation, stored.get("champion", {}), run)
    verdicts = judge(evidence, settings.rules)
    passed = all(verdict.passed for verdict in verdicts)
    tags = {
        registry.GATE: registry.PASSED if passed else registry.REFUSED,
        "tuneline.data_sha256": decision.data_sha256,
        "tuneline.base_model": decision.base_model,
        lineage.SERVING: "; ".join(decision.beyond_stock()) or lineage.STOCK,
        lineage.STOCK_ARGUMENTS: stock_arguments(model),
        registry.TEST_SET: evidence.predictions.facts.get("test_sha256", ""),
        **{f"{registry.GATE}.{verdict.rule}": _outcome(verdict) for verdict in verdicts},
        **{f"tuneline.metric.{name}": f"{value:.6f}" for name, value in metrics.items()},
    }
    version = registry.add_version(run, settings.name, model, tags, evaluation)
    aliases = (registry.set_aliases if passed else registry.withdraw)(settings.name, version)
    result = RegisteredVersion(settings.name, version, aliases, [asdict(verdict) for verdict in verdicts])
    write_json(out, asdict(result))
    held = ", ".join(aliases) or "no alias"
    refused = ": " + "; ".join(verdict.evidence for verdict in verdicts if not verdict.passed) if not passed else ""
    say(f"[register] {settings.name} version {version} ({held}{refused})")
    return result


def _evidence(
    name: str, metrics: dict[str, float], evaluation: Path, compared: dict[str, Any], run: StepRun
) -> Evidence:
    """The evaluation, and what is known of the champion and of how often this test set has decided.

    Where the champion has changed since the evaluation, its answers are those that the registry holds, if any.
    """
    mine, owner = Predictions.load(evaluation), run.parent or run.run_id
    before = registry.decided_before(name, mine.facts.get("test_sha256", ""), owner)
    champion = registry.champion(name)
    if champion is None or champion.run_id == owner:  # a step that is run again has made the champion itself
        return Evidence(metrics, mine, decided_before=before)
    version, note = str(champion.version), compared.get("note", "")
    if (compared.get("name"), compared.get("version")) == (champion.name, version):
        answers, training = _handed(evaluation / CHAMPION, note)
    else:
        answers, training, note = _stored(run, champion, mine)
    return Evidence(metrics, mine, answers, version, training, note, before)


def _handed(folder: Path, note: str) -> tuple[Predictions | None, np.ndarray | None]:
    """The champion's answers and training keys, as evaluate has left them."""
    answers = None if note else Predictions.load(folder)
    return answers, load_training_keys(folder) if (folder / TRAINING_FILE).is_file() else None


def _stored(run: StepRun, champion: Any, mine: Predictions) -> tuple[Predictions | None, np.ndarray | None, str]:
    """The same of a champion that evaluate did not meet, from its run, and why there may be none."""
    note = "it became champion after this model was evaluated"
    try:
        answers = lineage.answers_on(run.api, champion, mine.facts)
        return answers, lineage.training_keys_of(run.api, champion), note
    except Exception as error:  # whatever it is, it is the champion's trouble and not this model's
        why = "damaged" if isinstance(error, InputError) else trouble(error) or f"{type(error).__name__}: {error}"
        return None, None, without_credentials(f"{note}, and what is stored of it cannot be read: {why}")[:500]


def _outcome(verdict: Verdict) -> str:
    return f"{'passed' if verdict.passed else 'refused'}: {verdict.evidence}"


def register_step(evaluation: Artifact, model: Artifact, out: Artifact, **parameters: Any) -> None:
    """The KFP component's work: an evaluation and a model in, a registered version out."""
    with step("register", parameters) as run:
        settings = from_flat(RegisterConfig, parameters)
        result = register(Path(evaluation.path), Path(model.path), settings, Path(out.path), run)
        out.metadata |= {"name": result.name, "version": result.version, "aliases": result.aliases}
        run.artifact(Path(out.path))
