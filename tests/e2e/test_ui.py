"""The MLflow UI in a real browser shows what a run recorded."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import free_port, reviews
from tests.e2e.conftest import Project, wait_until_healthy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="no chromedriver; apt install chromium-driver"),
]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1500,1000",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> tuple[Project, dict[str, Any]]:
    project = Project(tmp_path_factory.mktemp("project"))
    rows = "\n".join(f"{text},{label}" for text, label in reviews(400))
    (project.folder / "reviews.csv").write_text(f"text,label\n{rows}\n")
    result = project.succeed(
        "run", "text", "data.train=reviews.csv", f"model.name={tiny_checkpoint}", "model.max_length=32",
        "train.epochs=8", "train.learning_rate=0.01", "register.name=reviews", "register.rules.beats_baseline=false",
    )  # fmt: skip
    return project, result


@pytest.fixture(scope="module")
def searched(finished: tuple[Project, dict[str, Any]], tiny_checkpoint: Path) -> dict[str, Any]:
    """A sweep of four trials, in the same store."""
    return finished[0].succeed(
        "sweep", "text", "data.train=reviews.csv", f"model.name={tiny_checkpoint}", "model.max_length=32",
        "train.learning_rate=0.01", "register.name=search", "--budget", "4trials", "sweep.pruner=none",
        "sweep.space={train.learning_rate: {low: 0.001, high: 0.02, log: true}, train.epochs: {low: 1, high: 3}, "
        "train.tune: [all, head]}", "sweep.seeds=1",
    )  # fmt: skip


@pytest.fixture(scope="module")
def address(finished: tuple[Project, dict[str, Any]], searched: dict[str, Any]) -> Iterator[str]:
    del searched
    port = free_port()
    project, url = finished[0], f"http://127.0.0.1:{port}"
    with (project.folder / "ui.log").open("w") as log:  # a line for each request, which a pipe would not hold
        command = project.start("ui", "--port", str(port), output=log)
    try:
        wait_until_healthy(url, command)
        yield url
    finally:
        command.terminate()
        command.wait(timeout=30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


def page(browser: Any, address: str, wanted: list[str], picture: str) -> None:
    """Open a page, wait until it shows every wanted text, and keep a screenshot in $TUNELINE_SCREENSHOTS."""
    browser.get(f"{address}{'&' if '?' in address else '?'}workflowType=machine_learning")
    until = time.monotonic() + 60
    while missing := [text for text in wanted if text not in browser.find_element("tag name", "body").text]:
        assert time.monotonic() < until, f"not on the page: {missing}"
        time.sleep(0.5)
    if folder := os.environ.get("TUNELINE_SCREENSHOTS"):
        time.sleep(2)
        browser.save_screenshot(str(Path(folder) / picture))


def test_the_experiment_and_its_runs_are_listed(
    finished: tuple[Project, dict[str, Any]], address: str, browser: Any
) -> None:
    experiment = finished[0].store.get_experiment_by_name("reviews").experiment_id
    page(browser, f"{address}/#/experiments", ["reviews"], "experiments.png")
    name = finished[0].store.get_run(finished[1]["run_id"]).info.run_name
    page(browser, f"{address}/#/experiments/{experiment}/runs", [name], "runs.png")


def test_a_run_shows_its_metrics(finished: tuple[Project, dict[str, Any]], address: str, browser: Any) -> None:
    project, result = finished
    experiment = project.store.get_experiment_by_name("reviews").experiment_id
    accuracy = f"{result['metrics']['accuracy']:.4g}"
    wanted = ["accuracy", "baseline_accuracy", accuracy, "data_train", "reviews.csv", "Registered models\nreviews\nv1"]
    page(browser, f"{address}/#/experiments/{experiment}/runs/{result['run_id']}", wanted, "run.png")


def test_the_registered_model_shows_its_aliases(
    finished: tuple[Project, dict[str, Any]], address: str, browser: Any
) -> None:
    del finished
    page(browser, f"{address}/#/models/reviews", ["Version 1", "champion", "challenger"], "model.png")


def test_the_parallel_coordinates_of_a_sweeps_trials_show_what_was_searched_and_the_score(
    finished: tuple[Project, dict[str, Any]], searched: dict[str, Any], address: str, browser: Any
) -> None:
    store = finished[0].store
    experiment = store.get_experiment_by_name("search").experiment_id
    runs = [row["run_id"] for row in searched["trials"]]
    assert len(runs) == 4
    query = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
    page(browser, f"{address}/#/compare-runs?{query}", ["Parallel Coordinates Plot", "trial 0"], "compare.png")
    axes = wait_for_axes(browser)
    assert {"train_epochs", "train_learning_rate", "train_tune"} <= set(axes)
    assert "validation_macro_f1" in axes


def wait_for_axes(browser: Any) -> list[str]:
    """The names of the axes of the parallel coordinates, once they are drawn."""
    until = time.monotonic() + 60
    while not (found := browser.find_elements("css selector", ".parcoords .axis-title")):
        assert time.monotonic() < until, "no parallel coordinates"
        time.sleep(0.5)
    return [axis.get_attribute("textContent") for axis in found]


def test_the_chart_page_of_a_sweep_draws_bars_of_what_its_trials_cost_and_curves_of_their_scores(
    finished: tuple[Project, dict[str, Any]], searched: dict[str, Any], address: str, browser: Any
) -> None:
    experiment = finished[0].store.get_experiment_by_name("search").experiment_id
    page(browser, f"{address}/#/experiments/{experiment}/runs?compareRunsMode=CHART", ["best_seconds"], "sweep.png")
    unfold(browser)
    runs = [row["run_id"] for row in searched["trials"]]
    for cost in ("peak_memory_mib", "seconds"):
        (bars,) = wait_for_chart(browser, cost)
        assert (bars["type"], sorted(bars["y"])) == ("bar", sorted(runs))
    browser.find_element("css selector", "[placeholder='Search metric charts']").send_keys("validation_macro_f1")
    curves = wait_for_chart(browser, "validation_macro_f1")
    assert {curve["mode"].partition("+")[0] for curve in curves} <= {"lines", "markers"}
    drawn = {curve["name"].partition(" (")[0]: curve["x"] for curve in curves if curve["name"]}
    epochs = {row["overrides"].get("train.epochs") for row in searched["trials"]}
    assert {f"trial {number}" for number in range(4)} <= drawn.keys()
    assert {max(drawn[f"trial {number}"]) for number in range(4)} == epochs


def unfold(browser: Any) -> None:
    """Have the sweep's run show its trials, once its row is there and stays."""
    from selenium.common.exceptions import WebDriverException

    until = time.monotonic() + 60
    while True:
        try:
            browser.find_element("css selector", ".ag-row .ag-cell button").click()
            return
        except WebDriverException:
            if time.monotonic() > until:
                raise
        time.sleep(0.5)


CHART = """
const cards = [...document.querySelectorAll('[data-testid="experiment-view-compare-runs-card"]')];
const plot = cards.find(card => card.innerText.split('\\n')[0] === arguments[0])?.querySelector('.js-plotly-plot');
return plot?.data?.map(({type, mode, name, x, y}) => ({type, mode, name, x: [...x], y: [...y]}));
"""


def wait_for_chart(browser: Any, metric: str) -> list[dict[str, Any]]:
    """What a metric's chart draws, once it does of more than one run."""
    until = time.monotonic() + 60
    while not (found := browser.execute_script(CHART, metric)) or max(len(found), len(found[0]["y"])) < 2:
        assert time.monotonic() < until, f"not drawn: {metric}"
        time.sleep(0.5)
    return found
