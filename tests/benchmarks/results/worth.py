"""The parts of the page that draw conclusions: is tuning all always best, and when is a Transformer not worth it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from tests.benchmarks.results.numbers import FEW_MODES, FewRow, Found, Row, ahead, verdict
from tests.benchmarks.results.plan import ALL, ARTICLE, HEAD, LINEAR, MODES, SCENARIOS, few_epochs
from tuneline.search.paired import Interval

VERDICTS = {"more": "beyond chance", "less": "worse beyond chance", "chance": "within chance"}
FULL = 0.97
"""A baseline's accuracy from which there is little left to win."""
PER_CLASS = 30
"""Training texts a class below which a task is short of labels."""


def spread(interval: Interval) -> str:
    """A score and its interval."""
    value, low, high = interval
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def points(interval: Interval) -> str:
    """A difference in points and its interval."""
    value, low, high = (100 * end for end in interval)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def told_verdict(interval: Interval) -> str:
    """A difference's verdict, in words."""
    return VERDICTS[verdict(interval)]


def mb(row: Row) -> str:
    """Its peak memory."""
    return f"{row.peak_mib * 2**20 / 1e6:,.0f}"


def short(name: str) -> str:
    """A task's name, without the rest of its title."""
    return SCENARIOS[name].title.split(",")[0].split(": ")[1]


def listed(names: Sequence[str]) -> str:
    """Names with commas and an and."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def tuned_parts(found: Found) -> str:
    """Is tuning all parameters always best?"""
    told = [line for name in SCENARIOS if (line := _parts_of(found, name))]
    if not told:
        return ""
    return "\n".join([
        "## Is tuning all parameters always best?", "",
        "![Accuracy against seconds of training](docs/images/partial-tuning.svg)", "", *told,
    ])  # fmt: skip


def _parts_of(found: Found, name: str) -> str:
    """Which ways of tuning a part are as good as tuning all, and what they cost."""
    full = found.row(name, ALL)
    rows = [row for row in found.rows[name] if row.over_all and row.mode != ARTICLE]
    if not full or not rows:
        return ""
    groups: dict[str, list[Row]] = {"more": [], "chance": [], "less": []}
    for row in rows:
        groups[verdict(row.over_all["accuracy"])].append(row)
    words = {
        "more": "better than tuning all, beyond chance", "chance": "within chance of tuning all",
        "less": "worse, beyond chance",
    }  # fmt: skip
    told = "; ".join(f"{words[group]}: {', '.join(map(_beside, of))}" for group, of in groups.items() if of)
    all_ = f"{full.score['accuracy'][0]:.3f} in {full.seconds:.0f} s"
    return f"- **{short(name)}** (all: {all_}). {told[:1].upper()}{told[1:]}."


def _beside(row: Row) -> str:
    value = 100 * row.over_all["accuracy"][0]
    return f"{MODES[row.mode]} ({value:+.1f} points, {row.seconds:.0f} s)"


def not_worth(found: Found) -> str:
    """When fine-tuning a Transformer is not worth it, from what was measured."""
    parts = [_beaten(found), _frozen(found), _few_labels(found), _latency(found)]
    return "\n\n".join(["## When fine-tuning a Transformer is not worth it", *filter(None, parts)])


def _beaten(found: Found) -> str:
    """Whether full fine-tuning beats the linear baseline, task by task, and why where it does not."""
    lines, compared, as_good = [], [], []
    for name in SCENARIOS:
        full, linear = found.row(name, ALL), found.row(name, LINEAR)
        if not full or not linear:
            continue
        compared.append(short(name))
        if verdict(full.over_linear["accuracy"]) != "more":
            as_good.append(short(name))
        accuracy, f1 = full.over_linear["accuracy"], full.over_linear["macro_f1"]
        words = {
            "more": "beats the linear baseline beyond chance",
            "chance": "does not beat the linear baseline beyond chance",
            "less": "is worse than the linear baseline, beyond chance",
        }[verdict(accuracy)]  # fmt: skip
        why = "" if verdict(accuracy) == "more" else f" {_why(found, name, full, linear)}"
        lines.append(
            f"- **{short(name)}**, {full.texts:,} training texts: full fine-tuning {words}, {points(accuracy)} points "
            f"of accuracy; macro F1 {points(f1)}, {told_verdict(f1)}.{why}"
        )
    if not lines:
        return ""
    where = listed(as_good) if as_good else f"none of {listed(compared)}"
    return "\n".join([
        f"**Where the linear baseline is as good.** On {where}, with these training texts. On the same test texts:", "",
        *lines,
    ])  # fmt: skip


def _why(found: Found, name: str, full: Row, linear: Row) -> str:
    tests, each = found.tests[name], full.texts / SCENARIOS[name].classes
    wrong = round((1 - linear.score["accuracy"][0]) * tests)
    if linear.score["accuracy"][0] >= FULL:
        return f"The baseline has all but {wrong} of {tests:,} test texts right: there is little left to win."
    if each < PER_CLASS:
        return f"There are {each:.0f} training texts a class, few to tune {SCENARIOS[name].classes} outputs."
    return "More training texts, or a larger checkpoint, would have to show it."


def _frozen(found: Found) -> str:
    """Where a frozen encoder is as good as a tuned one."""
    as_good = [name for name in SCENARIOS if (row := found.row(name, HEAD)) and row.over_all
               and verdict(row.over_all["accuracy"]) != "less"]  # fmt: skip
    measured = [name for name in SCENARIOS if (row := found.row(name, HEAD)) and row.over_all]
    if not measured:
        return ""
    if not as_good:
        return f"**Where a frozen encoder is as good.** On none of {listed([short(name) for name in measured])}."
    told = []
    for name in as_good:
        head, full = found.row(name, HEAD), found.row(name, ALL)
        assert head
        assert full
        times = full.seconds / head.seconds
        told.append(f"{short(name)} ({points(head.over_all['accuracy'])} points, in 1/{times:.0f} of the seconds)")
    return f"**Where a frozen encoder is as good.** With the head alone tuned, beside full fine-tuning: {listed(told)}."


def _few_labels(found: Found) -> str:
    if not found.few:
        return ""
    picture = ["", "![Accuracy against training texts](docs/images/few-labels.svg)"] if found.curves() else []
    lines = [
        "**With few labels.** Each seed draws texts of its own; mean accuracy, least to most. A handful of texts gets "
        "more epochs (the head ten at least), as was fixed before.", *picture, "",
        f"| task | training texts | epochs | {' | '.join(MODES[mode] for mode in FEW_MODES)} | full over linear |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [_few_line(row) for row in found.few]
    told = [_few_told(name, [row for row in found.few if row.scenario == name]) for name in SCENARIOS]
    commands = [
        f"# {short(row.scenario)}, {row.texts:,}: {MODES[mode]}\n{row.commands[mode]}"
        for row in found.few for mode in FEW_MODES if mode in row.commands
    ]  # fmt: skip
    return "\n".join([*lines, "", *filter(None, told), "", "```", "export OMP_NUM_THREADS=1", *commands, "```"])


def _few_line(row: FewRow) -> str:
    cells = []
    for mode in FEW_MODES:
        values = list(row.accuracy.get(mode, {}).values())
        cells.append(f"{fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else "-")
    won = ahead(row, ALL, LINEAR)
    draws = f"in {won[0]} of {won[1]} draws" if won else "-"
    scenario = SCENARIOS[row.scenario]
    shown = [short(row.scenario), f"{row.texts:,}", str(few_epochs(scenario, row.texts)), *cells, draws]
    return f"| {' | '.join(shown)} |"


def _few_told(name: str, rows: Sequence[FewRow]) -> str:
    """At how many texts which way has the best mean."""
    best: dict[str, list[str]] = {}
    for row in rows:
        means = {mode: fmean(values.values()) for mode in FEW_MODES if (values := row.accuracy.get(mode))}
        if len(means) == len(FEW_MODES):
            best.setdefault(max(means, key=means.__getitem__), []).append(f"{row.texts:,}")
    if not best:
        return ""
    told = [f"{MODES[mode]} with {listed(texts)} training texts" for mode, texts in best.items()]
    return f"- **{short(name)}**: the best mean has {listed(told)}."


def _latency(found: Found) -> str:
    lines, ratios = [], []
    for name in SCENARIOS:
        full, linear = found.row(name, ALL), found.row(name, LINEAR)
        if full and linear:
            ratios.append(full.latency_ms / linear.latency_ms)
            cells = [short(name), *(f"{row.latency_ms:.2f}" for row in (linear, full)), f"{ratios[-1]:.0f}"]
            cells += [f"{row.texts_per_second:,.0f}" for row in (linear, full)]
            cells += [f"{row.seconds:.1f}" for row in (linear, full)]
            lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return ""
    between = " to ".join(dict.fromkeys(f"{ratio:.0f}" for ratio in (min(ratios), max(ratios))))
    return "\n".join([
        f"**Where an answer must be quick or cheap.** The model takes {between} times as long for one text as the "
        "baseline, on the same core, in fp32, tokenizing included. One of the base size has eight times as many "
        "weights in its layers.", "",
        "| task | processor ms a text: linear | model | times | texts/s: linear | model | s to train: linear | full |",
        "|---|---|---|---|---|---|---|---|", *lines,
    ])  # fmt: skip
