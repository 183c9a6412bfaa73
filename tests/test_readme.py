"""README and docs say what the stored cells say; docstrings have no answers."""

import re
from pathlib import Path

from mechsub.lab import finder, store
from mechsub.lab.study import table_of
from studies import (
    association,
    audit_language,
    audit_toy,
    base_vs_instruct,
    bottleneck,
    channel,
    conditions,
    contributions,
    digits,
    factors,
    hidden_alignment,
    input_distributions,
    lens_trajectory,
    matched_tokens,
    maximise,
    mechanism,
    more_classes,
    next_token,
    planted_shares,
    pretrained,
    recipe_search,
    steering,
    subliminal_accuracy,
    token_entanglement,
    unembed_projection,
)

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("results.md", "concepts.md", "replicating.md"))]


STUDIES = (
    channel,
    association,
    factors,
    subliminal_accuracy,
    hidden_alignment,
    token_entanglement,
    unembed_projection,
    lens_trajectory,
    matched_tokens,
    digits,
    mechanism,
    input_distributions,
    conditions,
    recipe_search,
    maximise,
    audit_language,
    audit_toy,
    pretrained,
    more_classes,
    next_token,
    bottleneck,
    contributions,
    base_vs_instruct,
    planted_shares,
    steering,
)
INTERVAL = re.compile(r"-?\d\.\d{3,}\s+\[-?\d\.\d{3,},\s+-?\d\.\d{3,}\]")
COMPARED = (  # whose answers are of these cells together
    (input_distributions, ("*",)),
    (input_distributions, ("inputs=blurred%3A1", "inputs=blurred%3A2")),
    (maximise, ("*",)),
    (factors, ("arms=aux", "n_classes=*")),
)


def stored_cells(study, patterns=("*",)):
    folder = ROOT / "artifacts" / study.__name__.rpartition(".")[2]
    return sorted(path.parent for some in patterns for path in folder.glob(f"{some}/provenance.json"))


def rows_of(study, cells):
    records = [row for cell in cells for row in store.read_records(cell)]
    return table_of(finder.find_study(study.__name__.rpartition(".")[2]), records, {})


def quoted():
    """Every interval that README may quote: those of the tables of all stored cells, and of cells compared."""
    rows = [row for study in STUDIES for cell in stored_cells(study) for row in rows_of(study, [cell])]
    for study, patterns in COMPARED:
        rows += rows_of(study, stored_cells(study, patterns))
    return {interval for row in rows for value in row.values() for interval in INTERVAL.findall(str(value))}


MARKED = re.compile(r"<!--=[^>]*-->-?[\d.]+ \[[^\]]*\]")


def test_every_interval_in_readme_and_docstrings_is_a_stored_one():
    found = quoted()
    for text in (*(page.read_text() for page in PAGES), *(study.__doc__ for study in STUDIES)):
        text = MARKED.sub("", text)  # tests/test_pages.py holds these to the findings that they name
        assert {re.sub(r"\s+", " ", interval) for interval in INTERVAL.findall(text)} <= found


def test_answers_of_the_toy_are_not_in_docstrings():
    toy = (
        audit_toy, channel, conditions, digits, factors, input_distributions, maximise, mechanism, more_classes,
        next_token, pretrained, recipe_search, subliminal_accuracy, bottleneck,
    )  # fmt: skip
    assert [study.__name__ for study in toy if INTERVAL.search(study.__doc__)] == []
