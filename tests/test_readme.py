"""README, docs and the docstrings of studies say what the stored cells say."""

import re
from pathlib import Path

from mechsub.lab import store
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
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("concepts.md", "replicating.md"))]


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
INTERVAL = re.compile(r"-?\d\.\d{3}\s+\[-?\d\.\d{3},\s+-?\d\.\d{3}\]")
COMPARED = (  # whose answers are of these cells together
    (input_distributions, ("*",)),
    (input_distributions, ("inputs=blurred%3A1", "inputs=blurred%3A2")),
    (maximise, ("*",)),
    (factors, ("arms=aux", "n_classes=*")),
)


def stored_cells(study, patterns=("*",)):
    folder = ROOT / "artifacts" / study.__name__.rpartition(".")[2]
    return sorted(path.parent for some in patterns for path in folder.glob(f"{some}/provenance.json"))


def quoted():
    """Every interval that README may quote: those of the tables of all stored cells, and of cells compared."""
    rows = [row for study in STUDIES for cell in stored_cells(study) for row in study.table(store.read_records(cell))]
    for study, patterns in COMPARED:
        rows += study.table([row for cell in stored_cells(study, patterns) for row in store.read_records(cell)])
    return {interval for row in rows for value in row.values() for interval in INTERVAL.findall(str(value))}


def test_every_interval_in_readme_and_docstrings_is_a_stored_one():
    found = quoted()
    for text in (*(page.read_text() for page in PAGES), *(study.__doc__ for study in STUDIES)):
        intervals = set(INTERVAL.findall(text))
        assert intervals or re.search(r"^Answer: none yet", text, re.M)  # a study that has not been run
        assert {re.sub(r"\s+", " ", interval) for interval in intervals} <= found
