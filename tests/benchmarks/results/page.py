"""Writes RESULTS.md and its pictures. Sentences are chosen by the numbers, so that they stay true when those change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.results import imbalance, plots
from tests.benchmarks.results.numbers import Found, Row, read
from tests.benchmarks.results.plan import ALL, ARTICLE, FEW, LINEAR, MODES, SCENARIOS, Tried
from tests.benchmarks.results.published import PUBLISHED
from tests.benchmarks.results.worth import mb, not_worth, points, spread, told_verdict, tuned_parts

COMMAND = "python -m tests.benchmarks.results"
IMAGES = Path("docs/images")


def write(results: Path, out: Path) -> list[Path]:
    """Write the page and the pictures from what a results file holds.

    Args:
        results: the file.
        out: folder of RESULTS.md and docs/images.

    Raises:
        SystemExit: it holds nothing of this plan, or lines that do not go together.
    """
    found = read(results)
    if not any(found.rows.values()):
        raise SystemExit(f"{results}: holds no row of this plan; run {COMMAND}")
    pictures = [plots.tuning(found, out / IMAGES / "partial-tuning.svg")]
    if found.curves():
        pictures.append(plots.labels(found, out / IMAGES / "few-labels.svg"))
    page = out / "RESULTS.md"
    page.write_text(text(found), encoding="utf-8")
    return [page, *pictures]


def text(found: Found) -> str:
    """The page, in Markdown."""
    parts = [
        _head(found), *(_scenario(found, name) for name in SCENARIOS if found.rows[name]), tuned_parts(found),
        not_worth(found), imbalance.section(found.imbalance), _article(found), _settings(found),
    ]  # fmt: skip
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(found: Found) -> str:
    machines = "; ".join(
        f"{name} ({count} trainings)" if len(found.machines) > 1 else name
        for name, count in found.machines.most_common()
    )
    return f"""# Results

What fine-tuning gives on four tasks (spam, topic, intent, sentiment), on real text, beside what costs less. The
checkpoint is the embedded MiniLM (6 layers, 22 million parameters), a fifth of a model of the base size. *The article*
is the tutorial that this project grew from, whose [recipe](#the-articles-recipe) (Adam, 1e-5, ten epochs) many follow.

Made by `{COMMAND}` on {machines}, two trainings at a time with a core each.
{_lacking(found)}
Accuracy and macro F1 are means over seeds; their 95% intervals draw test texts again (a paired bootstrap, so that a
difference is one on the same texts) and know how far seeds differ (Student's t, which of three is wide). Each
difference is judged by itself: of twenty that are none, one may seem to be beyond chance. Seconds are those of one core
(processor time, the median over seeds) for all that a training does: loading, what frozen layers give, steps, and
validation after each epoch. MB is the most memory that the training's process had. The command below a table gives the
row's first seed (the next ones have `train.seed=1` and `train.seed=2`), with `TUNELINE_DATA` naming the folder of data
sets; that of the linear baseline is the run that shows it beside its model.

{_summary(found)}"""


def _lacking(found: Found) -> str:
    """What was not measured yet, in words."""
    if not found.lacking and found.imbalance:
        return ""
    jobs: dict[tuple[str, str, str], list[int]] = {}
    for job in found.lacking:
        jobs.setdefault((job.part, job.scenario, job.mode), []).append(job.seed)
    told = []
    for (part, scenario, mode), seeds in jobs.items():
        of = " with few labels" if part == FEW else ""
        told.append(f"{scenario} {MODES[mode]}{of} (seeds {', '.join(map(str, sorted(set(seeds))))})")
    told += [] if found.imbalance else ["the treatments of unequal classes"]
    return f"\n**Not complete**, what lacks: {'; '.join(told)}.\n"


def _summary(found: Found) -> str:
    lines = ["| task | linear baseline | full fine-tuning | difference, points | |", "|---|---|---|---|---|"]
    for name, scenario in SCENARIOS.items():
        linear, full = found.row(name, LINEAR), found.row(name, ALL)
        if linear and full:
            cells = [spread(row.score["accuracy"]) for row in (linear, full)]
            over = full.over_linear["accuracy"]
            shown = [scenario.title.split(",")[0], *cells, points(over), told_verdict(over)]
            lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def _scenario(found: Found, name: str) -> str:
    rows = found.rows[name]
    table = [
        "| | training texts | seeds | accuracy | macro F1 | accuracy over the linear baseline, points | seconds | MB |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
    ]
    commands = "\n".join(["export OMP_NUM_THREADS=1", *(f"# {MODES[row.mode]}\n{row.command}" for row in rows)])
    return "\n\n".join([
        f"## {SCENARIOS[name].title}", f"{found.tests[name]:,} test texts.{_in_scope(rows)}", "\n".join(table),
        f"**Published for a base-size model:** {PUBLISHED[name]}", f"```\n{commands}\n```",
    ])  # fmt: skip


def _line(row: Row) -> str:
    over = points(row.over_linear["accuracy"]) if row.over_linear else ""
    cells = [
        MODES[row.mode], f"{row.texts:,}", str(row.seeds) if row.mode != LINEAR else "",
        *(spread(row.score[name]) for name in ("accuracy", "macro_f1")), over, f"{row.seconds:.0f}", mb(row),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _in_scope(rows: Sequence[Row]) -> str:
    told = [f"{MODES[row.mode]} {row.in_scope:.3f}" for row in rows if row.in_scope is not None]
    if not told:
        return ""
    return (
        f" Accuracy and macro F1 count those that are out of scope too, of which training has few. On those in scope "
        f"alone, as published figures have it, the accuracy is: {', '.join(told)}."
    )


def _article(found: Found) -> str:
    told = []
    for name, scenario in SCENARIOS.items():
        row = found.row(name, ARTICLE)
        if row and row.over_all:
            over = row.over_all["accuracy"]
            task = scenario.title.split(",")[0]
            told.append(f"- {task}: {points(over)} points beside full fine-tuning, {told_verdict(over)}.")
    if not told:
        return ""
    return "\n".join([
        "## The article's recipe", "",
        "That of the tutorial which this project grew from: Adam at 1e-5 for ten epochs, dropout as the checkpoint has "
        "it, no warm-up, no weight decay. It has three to five tenths of the training texts, so that as many pass "
        "through the model as in full fine-tuning. What is done otherwise than the tutorial prints it: batches of 16 "
        "instead of one text, shuffled, cut at the recipe's length, and a rate that falls to zero, as it always does "
        "in `tuneline`.", "", *told,
    ])  # fmt: skip


def _settings(found: Found) -> str:
    lines = [
        "## Where the settings are from", "",
        "Epochs, batch size, cut and the rate of full fine-tuning on SMS Spam and IMDB are those of the recipes "
        "`sms_spam`, `ag_news`, `clinc150` and `imdb` (IMDB cut at 256 tokens instead of 384, for time). `head` takes "
        "ten epochs, since what is frozen is computed once. The other rates were chosen by validation accuracy (equals "
        "by log loss): on AG News for the tasks of few classes, on CLINC150 for itself. Of full fine-tuning, beside "
        "which all others stand, those within a standard error of the best one were trained with three seeds, and the "
        "lowest that was still within it is taken: large rates are what diverges.",
    ]  # fmt: skip
    if found.rates:
        lines += ["", "| chosen on | tuned | training texts | rate: validation accuracy |", "|---|---|---|---|"]
        at: dict[tuple[str, str, int], list[Tried]] = {}
        for one in found.rates:
            at.setdefault((one.scenario, one.mode, one.texts), []).append(one)
        for (name, mode, texts), of in at.items():
            shown = ", ".join(map(_tried, sorted(of, key=lambda one: one.rate)))
            lines.append(f"| {name} | {MODES[mode]} | {texts:,} | {shown} |")
    return "\n".join(lines)


def _tried(one: Tried) -> str:
    seeds = f" ({one.seeds} seeds)" if one.seeds > 1 else ""
    return f"{one.rate:.0e}: {one.accuracy:.3f}{seeds}".replace("e-0", "e-")
