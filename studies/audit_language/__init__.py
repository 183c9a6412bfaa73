"""Published claims about token entanglement: what was said, what mechsub measured on one model, and the verdict.

Claims 18 to 22 are the brief's, by their number in the audit list; "Zur 1" to "Zur 4" are those of "Token Entanglement
in Subliminal Learning". Each is put as checks (studies/audit_language/claims.py) on numbers of other studies' tables,
which a claim says to be above or below a bound, or near it (within `--margin`); the bound may be the null that stands
beside the number; a bound with an interval of its own must be apart from the number's. No model is run here: a check
whose cell is missing says so, with the command that makes it.

A check says yes where the whole 95% interval is where the claim has it, no where it is wholly elsewhere, else open;
where the table gives a p-value and no interval, p >= 0.05 leaves it open, and near can be refuted only. A claim is
confirmed if all its checks say yes, refuted if all say no, partly so if some say yes and some no, not supported if
some say no and the others nothing, open otherwise. Units are animals, numbers or both, as in the study that is named.

Answer (SmolLM2-135M-Instruct, artifacts/audit_language/default). Refuted: the softmax bottleneck couples animals to
numbers (holding all numbers costs a write less than holding tokens of their norm and frequency, -0.034 [-0.043,
-0.025]); it is numbers that are entangled (the directions agree by 0.119 [0.062, 0.172], words like them more). Partly:
a shared output direction is the reason (cosines do tell the pairs, 0.107 [0.076, 0.141] and 0.103 [0.068, 0.141] beyond
other animals', and carry little, 0.058 [0.021, 0.105] and 0.007 [-0.054, 0.069]); a number's score tells how much it
raises the animal (as published -0.142 [-0.183, -0.100], less other animals' means 0.145 [0.108, 0.182]). Not supported:
more than half of the animals have such a number (none beats the best of ten random ones, 0.000 [0.000, 0.035], and a
random number does it for a third); animals differ in entanglement (the pair itself is 0.023 [0.010, 0.037] of the
squared log ratio). Open: the reported animals stand for all, and both ways (open in whole numbers, 0.006 [-0.036,
0.070]). Partly too, on mechsub's own organisms: it comes with instruction tuning (20; with 1,110 number tokens tuning
adds 0.471 [0.383, 0.559] nats to the 0.178 [0.153, 0.204] that the base model has, with 110 nothing).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import mechsub as ms
from mechsub import lab
from mechsub.lab import audits, finder
from mechsub.lab.study import table_of
from studies.audit_language import claims

UNIT = "replicates"
Tables = dict[str, list[dict]]  # by the command that prints them, each made once


@dataclass(frozen=True)
class Config:
    model: str = lab.option("smollm2-135m-instruct", "of the cells that are read")
    adapter: str = lab.option("", "of the cells that are read; none: the model as it is")
    margin: lab.Positive = lab.option(0.05, "a difference within this is near")


Cells = Mapping[str, lab.Stored | None]  # by the flags of the command that makes one


def upstream(cfg: Config) -> dict:
    """All cells that a claim reads, where they are stored."""
    wanted = {}
    for check in (check for claim in claims.CLAIMS for check in claim.checks):
        for reading in (check.reading, check.bound):
            if isinstance(reading, claims.Reading) and (study := finder.find_study(reading.study)) is not None:
                options = {**reading.flags, **_named(study, cfg)}
                wanted[_name(reading)] = lab.upstream(reading.study, optional=True, **options)
    return wanted


def _name(reading: claims.Reading) -> str:
    return f"{reading.study}{audits.words(reading.flags)}"


def _named(study: lab.Study, cfg: Config) -> dict[str, str]:
    """The model and its adapter, for a study that has the choice."""
    if "model" not in {field.name for field in fields(study.Config)}:
        return {}
    return {"model": cfg.model, **({"adapter": cfg.adapter} if cfg.adapter else {})}


def run(cfg: Config, **cells: lab.Stored | None) -> Iterator[dict]:
    tables: Tables = {}
    for claim in claims.CLAIMS:
        told = {"claim_row": claim.row, "claim": claim.claim, "published": claim.published}
        if not claim.checks:
            yield told | {"check": "", "expected": "", "bound": 0.0, "missing": "no study of it has a cell"}
        for check in claim.checks:
            asked = told | {"check": check.text, "expected": check.claim}
            try:
                yield asked | _checked(check, cfg, tables, cells)
            except audits.Missing as missing:
                bound = check.bound if isinstance(check.bound, float) else 0.0
                yield asked | {"bound": bound, "missing": str(missing)}
    yield {"provenance": {"null": "that of the table that is read", "unit": "animals, numbers or both, as there"}}


def _checked(check: claims.Check, cfg: Config, tables: Tables, cells: Cells) -> dict:
    row = _row(check.reading, cfg, tables, cells)
    value, bound = row[check.reading.column], check.bound
    around = {}
    if isinstance(bound, claims.Reading):
        bound = _row(bound, cfg, tables, cells)[bound.column]
        around = {"bound_low": bound.low, "bound_high": bound.high} if isinstance(bound, ms.stats.Interval) else {}
        bound = _leading(bound)
    known = isinstance(value, ms.stats.Interval)
    ends = {"low": value.low, "high": value.high, "n": value.n} if known else {"low": value, "high": value, "n": 0}
    p = {"p": row["p"]} if not known and isinstance(row.get("p"), float) else {}
    null = {"null": str(row["null"])} if row.get("null") not in (None, "") else {}
    return {
        "bound": float(bound), **around, "mean": value.mean if known else value, **ends, **p, **null,
        "cells": [_name(check.reading)],
    }  # fmt: skip


def _row(reading: claims.Reading, cfg: Config, tables: Tables, cells: Cells) -> Mapping:
    """The one row of the table of a stored cell that the reading names."""
    study = finder.find_study(reading.study)
    command = f"python -m studies.{reading.study}{audits.words(reading.flags)}"
    if study is None:
        raise audits.Missing(command)
    if command not in tables:
        cell = cells.get(_name(reading))
        if cell is None:
            raise audits.Missing(command + audits.words(_named(study, cfg)))
        tables[command] = table_of(study, cell.records(), {})
    rows = [row for row in tables[command] if reading.row.items() <= row.items()]
    if len(rows) != 1:
        raise ValueError(f"the table of {command} has {len(rows)} rows with {dict(reading.row)}; the audit reads one")
    return rows[0]


def _leading(value) -> float:
    """Of an interval its mean, of a null in words the number that it begins with."""
    if isinstance(value, str):
        return float(value.split()[0].rstrip(","))
    return float(getattr(value, "mean", value))


def table(records: list[dict]) -> list[dict]:
    return audits.table(records, Config, UNIT)


def plot(records: list[dict]):
    return audits.plot(records, Config, "Published claims about token entanglement", "the units of each study")


# Nothing is measured here, so there is nothing to probe: of an empty store this says only which cells are missing.
study = lab.Study(version=1, probes=())
