"""README says what the stored cells say, and its example runs."""

import re
from pathlib import Path

import pytest

from mechsub import store
from studies import hidden_alignment, subliminal_accuracy

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def cell_rows(study, cell):
    return study.table(store.read_records(ROOT / "artifacts" / cell))


def quoted():
    """Every interval that README may quote."""
    rows = cell_rows(subliminal_accuracy, "subliminal_accuracy/default")
    rows += cell_rows(subliminal_accuracy, "subliminal_accuracy/loss=mse")
    rows += cell_rows(hidden_alignment, "hidden_alignment/default")
    return {str(value) for row in rows for value in row.values()}


def test_every_interval_in_readme_and_docstrings_is_a_stored_one():
    for text in (README, subliminal_accuracy.__doc__, hidden_alignment.__doc__):
        intervals = set(re.findall(r"-?\d\.\d{3}\s\[-?\d\.\d{3}, -?\d\.\d{3}\]", text))
        assert len(intervals) >= 3
        assert {re.sub(r"\s", " ", found, count=1) for found in intervals} <= quoted()


@pytest.mark.slow
def test_the_notebook_example_runs():
    exec(re.search(r"```python\n(.*?)```", README, re.S).group(1), {})
