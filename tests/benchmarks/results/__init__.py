"""RESULTS.md: the article's four scenarios on real text, every way of tuning beside the linear baseline.

Run: python -m tests.benchmarks.results, with the data sets in $TUNELINE_DATA. What a results file holds already is not
run again, so that the same command goes on after an interruption. A piece: --only imdb --modes all,head --seeds 1.
"""
