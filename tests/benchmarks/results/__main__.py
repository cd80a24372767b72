"""python -m tests.benchmarks.results: see the package."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import tests.benchmarks.results as package
from tests.benchmarks.results import imbalance, runner
from tests.benchmarks.results.plan import (
    FEW,
    IMBALANCE,
    MODES,
    ROWS,
    SCENARIOS,
    SEEDS,
    TREATMENTS,
    Job,
    choosing,
    chosen,
    jobs,
    near_the_best,
)  # fmt: skip
from tests.benchmarks.rounds import ROOT
from tests.benchmarks.seed_tables import known

WORKERS = 2
PARTS = (ROWS, FEW, IMBALANCE)
RESULTS = Path(__file__).parents[1] / "results.jsonl"


def parser() -> argparse.ArgumentParser:
    """The words."""
    found = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.results", description=package.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    found.add_argument("--only", type=_some(SCENARIOS), default=list(SCENARIOS), help=",".join(SCENARIOS))
    found.add_argument("--modes", type=_some(MODES), default=list(MODES), help=",".join(MODES))
    found.add_argument("--parts", type=_some(PARTS), default=list(PARTS), help=f"{ROWS}, {FEW} labels, {IMBALANCE}")
    found.add_argument("--seeds", type=int, default=SEEDS)
    found.add_argument("--workers", type=int, default=WORKERS, help="jobs at a time, each on a core of its own")
    found.add_argument("--results", type=Path, default=RESULTS, help="the results file")
    found.add_argument("--plan", action="store_true", help="tell what is missing and how long it may take, and end")
    found.add_argument("--page", action="store_true", help="write the page from what is there, and train nothing")
    found.add_argument("--out", type=Path, default=ROOT, help="folder of RESULTS.md and docs/images")
    return found


def _some(known):
    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return read


def main() -> None:
    """Train what is missing, then write the page."""
    options = parser().parse_args()
    if not options.page:
        _work(options)
    if not options.plan:
        from tests.benchmarks.results.page import write

        print(f"written: {', '.join(str(path) for path in write(options.results, options.out))}")


def _work(options: argparse.Namespace) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command does
    os.environ["OMP_NUM_THREADS"] = "1"
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts what is in the background deaf to Ctrl-C
        signal.signal(number, signal.default_int_handler)
    rates = choosing(options.only, options.modes)
    near = near_the_best(known(options.results), options.only, options.modes)
    if options.plan:
        chosen_now = chosen(known(options.results))
        _tell(
            rates + near + jobs(options.parts, options.only, options.modes, options.seeds, chosen_now), options.results
        )
        if _lacks_treatments(options):
            print(f"and some 15 minutes of all cores for {TREATMENTS.command}")
        return
    try:
        failed = runner.work(runner.missing(rates, options.results), options.results, options.workers)
        near = near_the_best(known(options.results), options.only, options.modes)
        failed += runner.work(runner.missing(near, options.results), options.results, options.workers)
        wanted = jobs(options.parts, options.only, options.modes, options.seeds, chosen(known(options.results)))
        failed += runner.work(runner.missing(wanted, options.results), options.results, options.workers)
        if _lacks_treatments(options):
            print(f"{IMBALANCE}: {TREATMENTS.command}", flush=True)
            found = imbalance.measure()
            if isinstance(found, str):
                failed.append(found)
            else:
                runner.keep(options.results, found)
    except KeyboardInterrupt:
        sys.exit(f"stopped; the same command goes on with what {options.results} lacks")
    if failed:
        print("\n".join(["failed, and tried again by the same command:", *failed]), file=sys.stderr)


def _lacks_treatments(options: argparse.Namespace) -> bool:
    asked = IMBALANCE in options.parts and TREATMENTS.scenario in options.only
    return asked and bool(runner.missing([TREATMENTS], options.results))


def _tell(wanted: list[Job], path: Path) -> None:
    """What the file lacks, and a guess of how long it takes."""
    waiting = runner.missing(wanted, path)
    for job in waiting:
        print(f"{job.seconds():5.0f} s  {job.part} {job.mode}: {job.command}")
    minutes = sum(job.seconds() for job in waiting) / 60 / WORKERS
    print(f"{len(wanted) - len(waiting)} of {len(wanted)} are there; the rest may take {minutes:.0f} minutes")


if __name__ == "__main__":
    main()
