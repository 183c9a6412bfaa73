"""Published claims about token entanglement: what was said, what mechsub measured on one model, and the verdict.

Claims 18 to 22 are the write-up's, by their numbers in its list; "Zur 1" to "Zur 4" are those of "Token Entanglement in
Subliminal Learning". Each is put as checks (studies/audit_language/claims.py) on findings of other studies, which a
claim says to be above or below a bound, or near it (within `--margin`); the bound may be the null that stands
beside the number; a bound with an interval of its own must be apart from the number's. No model is run here: a check
whose cell is missing says so, with the command that makes it.

A check says yes where the whole 95% interval is where the claim has it, no where it is wholly elsewhere, else open;
where the table gives a p-value and no interval, p >= 0.05 leaves it open, and near can be refuted only; where that p
tests anything but the bound, the check is untested. Verdicts are not corrected for the number of checks; beside them
stands the p of every check whose interval is Student's t or that has a p, adjusted by Holm over all checks. A claim is
confirmed if all its checks say yes, refuted if all say no, partly so if some say yes and some no, not supported if some
say no and the others nothing, open otherwise. Bounds and the margin are ours, chosen when much of what they judge was
known; those of Zur 2, and all but the first of Zur 4, are of 29 November 2026, after their results were known. Units
are animals, numbers or both, as in the study that is named.

    python -m studies.audit_language --margin 0.1
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import mechsub as ms
from mechsub import lab
from mechsub.lab import audits, finder, verdicts
from mechsub.lab import findings as found
from studies.audit_language import claims

UNIT = "replicates"
Said = dict[str, list[found.Finding]]  # by the command whose findings they are, each made once


@dataclass(frozen=True)
class Config:
    model: str = lab.option("smollm2-135m-instruct", "of the cells that are read")
    adapter: str = lab.option("", "of the cells that are read; none: the model as it is")
    margin: lab.Positive = lab.option(0.05, "margin: near means a difference of at most this")


Cells = Mapping[str, lab.Stored | None]  # by the flags of the command that makes one


def upstream(cfg: Config) -> dict:
    """All cells that a claim reads, where they are stored."""
    wanted = {}
    for check in (check for claim in claims.CLAIMS for check in claim.checks):
        for reading in (check.reading, check.bound):
            if isinstance(reading, claims.Reading) and (study := finder.find_study(reading.study)) is not None:
                options: dict = {**_named(study, cfg), **reading.flags}
                wanted[audits.cell_name(reading.study, reading.flags)] = lab.upstream(
                    reading.study, optional=True, **options
                )
    return wanted


def _named(study: lab.Study, cfg: Config) -> dict[str, str]:
    """The model and its adapter, for a study that has the choice."""
    if "model" not in {field.name for field in fields(study.Config)}:
        return {}
    return {"model": cfg.model, **({"adapter": cfg.adapter} if cfg.adapter else {})}


def run(cfg: Config, **cells: lab.Stored | None) -> Iterator[dict]:
    said: Said = {}
    for claim in claims.CLAIMS:
        told = {"claim_row": claim.row, "claim": claim.claim, "published": claim.published}
        if not claim.checks:
            yield told | {"check": "", "expected": "", "bound": 0.0, "missing": "no study of it has a cell"}
        for check in claim.checks:
            asked = told | {"check": check.text, "expected": check.claim}
            try:
                yield asked | _checked(check, cfg, said, cells)
            except audits.Missing as missing:
                bound = check.bound if isinstance(check.bound, float) else 0.0
                yield asked | {"bound": bound, "missing": str(missing)}
    yield {"provenance": {"null": "that of the table that is read", "unit": "animals, numbers or both, as there"}}


def _checked(check: claims.Check, cfg: Config, said: Said, cells: Cells) -> dict:
    finding, bound = _finding(check.reading, cfg, said, cells), check.bound
    value, around = finding.value, {}
    tested = finding.p is not None and not isinstance(value, ms.stats.Interval)
    if isinstance(bound, claims.Reading):
        bound = getattr(_finding(bound, cfg, said, cells), bound.part)
    of_bound = verdicts.is_null(bound, finding)
    if isinstance(check.bound, claims.Reading):
        around = {"bound_low": bound.low, "bound_high": bound.high} if isinstance(bound, ms.stats.Interval) else {}
        bound = getattr(bound, "mean", bound)
    known = isinstance(value, ms.stats.Interval)
    ends = {"low": value.low, "high": value.high, "n": value.n} if known else {"low": value, "high": value, "n": 0}
    p = {} if not tested else {"p": finding.p} if of_bound else {"apart": "its p tests its null, not the bound"}
    null = {} if finding.null is None else {"null": found.null_text(finding)}
    return {
        "bound": float(bound), **around, "mean": value.mean if known else value, **ends, **p, **null,
        "cells": [audits.cell_name(check.reading.study, check.reading.flags)],
    }  # fmt: skip


def _finding(reading: claims.Reading, cfg: Config, said: Said, cells: Cells) -> found.Finding:
    """What is said of a stored cell under the key of the reading."""
    study = finder.find_study(reading.study)
    command = f"python -m studies.{reading.study}{audits.words(reading.flags)}"
    if study is None:
        raise audits.Missing(command)
    if command not in said:
        cell = cells.get(audits.cell_name(reading.study, reading.flags))
        if cell is None:
            named = {name: word for name, word in _named(study, cfg).items() if name not in reading.flags}
            raise audits.Missing(command + audits.words(named))
        of_cell = found.cells(cell.records(), study.Config, study.needed("findings"))
        said[command] = found.all_findings(of_cell, study.part("comparisons"))
    return found.find(said[command], reading.key)


def table(records: list[dict]) -> list[dict]:
    return audits.table(records, Config, UNIT)


def plot(records: list[dict]):
    return audits.plot(records, Config, "Published claims about token entanglement", "the units of each study")


# Nothing is measured here, so there is nothing to probe: of an empty store this says only which cells are missing.
study = lab.Study(version=1, probes=())
