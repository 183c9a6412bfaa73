"""README says what the stored cells say, and its example runs."""

import re
from pathlib import Path

import pytest

from mechsub import store
from studies import (
    audit_toy,
    digits,
    hidden_alignment,
    lens_trajectory,
    matched_tokens,
    maximise,
    mechanism,
    recipe_search,
    subliminal_accuracy,
    token_entanglement,
    unembed_projection,
)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


STUDIES = (
    subliminal_accuracy,
    hidden_alignment,
    token_entanglement,
    unembed_projection,
    lens_trajectory,
    matched_tokens,
    digits,
    mechanism,
    recipe_search,
    maximise,
    audit_toy,
)


def stored_cells(study):
    name = study.__name__.rpartition(".")[2]
    return sorted(path.parent for path in (ROOT / "artifacts" / name).glob("*/provenance.json"))


def quoted():
    """Every interval that README may quote: those of the tables of all stored cells."""
    rows = [row for study in STUDIES for cell in stored_cells(study) for row in study.table(store.read_records(cell))]
    return {str(value) for row in rows for value in row.values()}


def test_every_interval_in_readme_and_docstrings_is_a_stored_one():
    found = quoted()
    for text in (README, *(study.__doc__ for study in STUDIES)):
        intervals = set(re.findall(r"-?\d\.\d{3}\s+\[-?\d\.\d{3},\s+-?\d\.\d{3}\]", text))
        assert len(intervals) >= 2
        assert {re.sub(r"\s+", " ", interval) for interval in intervals} <= found


@pytest.mark.slow
def test_the_notebook_examples_run():
    known = {}
    for example in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(example, known)
