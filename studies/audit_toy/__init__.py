"""The write-up's claims about the toy: what was published for each, what mechsub measured, and the verdict.

Every claim (studies/audit_toy/claims.py, by its number in the list of the write-up's claims) is put as one or more
checks, each a sum of scores in stored cells of other studies, paired by seed, that the claim says is above or below a
bound, or near it (within `--margin`). Nothing is trained here: a check whose cell is missing says so, with the command
that makes it.

A check says yes where the whole 95% interval (Student-t over seeds) is where the claim has it, no where it is wholly
elsewhere, else open. A claim is confirmed if all its checks say yes, refuted if all say no, partly so if some say yes
and some no, not supported if some say no and the others nothing, open otherwise. Bounds and the margin are ours, chosen
when six seeds of these quantities were known; every check stands by its own interval, not corrected for the others.
Beside a check of auxiliary-only students is its null: the same sum of their cross-initialisation students. Beside a
check of raw accuracies, which are the write-up's, is the same sum of recentred ones (`mechsub.accuracies`) with its
null, and beside the verdict the one that these give.

    python -m studies.audit_toy --rerun
"""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import mechsub as ms
from mechsub import lab
from mechsub.lab import audits
from mechsub.lab.findings import Finding
from studies.audit_toy import claims

NULL = "cross_aux"
_RECENTRED = {"accuracy": "recentred", "kappa": "recentred_kappa"}
_OF_NULLS = ("accuracy", "kappa", "debiased_cka", "stitch_into_teacher")  # scores that the null's rows have too


@dataclass(frozen=True)
class Config:
    margin: lab.Positive = lab.option(0.05, "margin: near means a difference of at most this")


Cells = Mapping[str, lab.Stored | None]  # by the flags of the command that makes one


def upstream(cfg: Config) -> dict:
    """All cells that a claim reads, where they are stored. A cell that holds every arm serves where some would."""
    wanted = {}
    for scores in [*_pair(), *(scores for claim in claims.CLAIMS for c in claim.checks for _, scores in c.terms)]:
        for flags in _combinations(scores.flags):
            for arms in _arms(flags):
                wanted[audits.cell_name(scores.study, flags | arms)] = lab.upstream(
                    scores.study, optional=True, **(flags | arms)
                )
    return wanted


def _arms(flags: Mapping) -> tuple[dict, ...]:
    return ({}, {"arms": "every"}) if flags.get("arms") == "aux" else ({},)


def run(cfg: Config, **cells: lab.Stored | None) -> Iterator[dict]:
    for claim in claims.CLAIMS:
        told = {"claim_row": claim.row, "claim": claim.claim, "published": claim.published}
        for check in claim.checks or (None,):
            try:
                yield told | (_checked(check, cells) if check else _pairing(cells))
            except audits.Missing as missing:
                yield told | _asked(check) | {"missing": str(missing)}
    yield {"provenance": {"null": "the same sum of cross-initialisation students", "unit": "seed"}}


def _checked(check: claims.Check, cells: Cells) -> dict:
    interval = ms.stats.student_t(_sum(check.terms, cells))
    row = _asked(check) | {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
    row["cells"] = list(dict.fromkeys(audits.cell_name(scores.study, scores.flags) for _, scores in check.terms))
    students = all(s.rows.get("arm") in ("aux", "student_aux") and s.value in _OF_NULLS for _, s in check.terms)
    beside = [(factor, s._replace(rows={**s.rows, "arm": NULL})) for factor, s in check.terms] if students else []
    if beside:
        null = ms.stats.student_t(_sum(beside, cells))
        row["null"] = [null.mean, null.low, null.high]
    if (recentred := _by_recentred(check.terms, cells)) is not None:
        row["recentred"] = [recentred.mean, recentred.low, recentred.high, recentred.n]
        if beside and (theirs := _by_recentred(beside, cells)) is not None:
            row["recentred_null"] = [theirs.mean, theirs.low, theirs.high]
    return row


def _by_recentred(terms: Sequence[tuple[float, claims.Scores]], cells: Cells) -> ms.stats.Interval | None:
    """The same difference of recentred scores; None of a level, or where a term is no accuracy or not stored so."""
    differs = abs(sum(factor for factor, _ in terms)) < 1e-9
    if not differs or not all(scores.value in _RECENTRED for _, scores in terms):
        return None
    try:
        return ms.stats.student_t(_sum([(a, s._replace(value=_RECENTRED[s.value])) for a, s in terms], cells))
    except audits.Missing:
        return None


def _asked(check: claims.Check | None) -> dict:
    if check is None:
        text = "squared error less KL: width of the unpaired interval over the paired one"
        return {"check": text, "expected": "near", "bound": 1.0}
    return {"check": check.text, "expected": check.claim, "bound": check.bound}


def _sum(terms, cells: Cells) -> list[float]:
    each = [(factor, _scores(scores, cells)) for factor, scores in terms]
    common = sorted(set.intersection(*(set(found) for _, found in each)))
    return [sum(factor * found[member] for factor, found in each) for member in common]


def _scores(wanted: claims.Scores, cells: Cells) -> dict[int, float]:
    """Member -> score, of all stored cells that these flags name; a flag may have several values, as in a sweep."""
    found: dict[int, float] = {}
    for flags in _combinations(wanted.flags):
        for row in _rows(wanted.study, flags, cells):
            if all(row.get(key) == value for key, value in wanted.rows.items()) and wanted.value in row:
                found[row["member"]] = row[wanted.value]
    if len(found) < 2:
        raise audits.Missing(f"python -m studies.{wanted.study}{audits.words(wanted.flags)}")
    return found


def _combinations(flags: Mapping) -> Iterator[dict]:
    several = {key: value if isinstance(value, tuple) else (value,) for key, value in flags.items()}
    for values in itertools.product(*several.values()):
        yield dict(zip(several, values, strict=True))


def _rows(study: str, flags: dict, cells: Cells) -> list[dict]:
    for arms in _arms(flags):
        cell = cells.get(audits.cell_name(study, flags | arms))
        if cell is not None:
            return cell.records()
    return []


def _pair() -> list[claims.Scores]:
    return [claims.accuracy("student_aux", loss) for loss in ("mse", "kl")]


def _pairing(cells: Cells) -> dict:
    """Width of the unpaired 1.96 s.d. interval of a difference of two arms over that of Student's t, paired by seed."""
    a, b = (_scores(scores, cells) for scores in _pair())
    paired = ms.stats.paired_difference([a[i] for i in sorted(a)], [b[i] for i in sorted(a)]).interval
    plain = 2 * 1.96 * math.sqrt(sum(statistics.pvariance(list(x.values())) / len(x) for x in (a, b)))
    ratio = plain / (paired.high - paired.low)
    names = [audits.cell_name(scores.study, scores.flags) for scores in _pair()]
    return _asked(None) | {"mean": ratio, "low": ratio, "high": ratio, "n": paired.n, "cells": names}


def findings(cell: list[dict]) -> list[Finding]:
    return audits.findings(cell, "seeds")


def table(records: list[dict]) -> list[dict]:
    return audits.table(records, Config, "seeds")


def plot(records: list[dict]):
    return audits.plot(records, Config, "The write-up's claims about the toy", "seeds")


# Nothing is measured here, so there is nothing to probe: of an empty store this says only which cells are missing.
study = lab.Study(version=3, probes=())
