"""studies.audit_language on the committed cells, and its rules on planted numbers."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from mechsub import stats
from mechsub.lab import audits, store, study
from mechsub.lab.findings import Drawn, Finding
from studies import audit_language
from studies.audit_language.claims import CLAIMS, Check, Reading

ROOT = Path(__file__).parent.parent


def audited(out, *flags) -> list[dict]:
    one = audit_language
    study.command(one.study, ["--out", str(out), *flags])
    (cell,) = [path.parent for path in (out / "audit_language").glob("*/records.jsonl")]
    return store.read_records(cell)


def test_the_stored_audit_says_what_the_stored_cells_say(tmp_path):
    names = {check.reading.study for claim in CLAIMS for check in claim.checks}
    for name in sorted(names):
        if (ROOT / "artifacts" / name).is_dir():
            (tmp_path / name).symlink_to(ROOT / "artifacts" / name)
    stored = store.read_records(ROOT / "artifacts" / "audit_language" / "default")
    assert audited(tmp_path) == stored
    verdicts = {row["row"]: row["verdict"] for row in audit_language.table(stored) if row["published"]}
    assert list(verdicts) == [claim.row for claim in CLAIMS]
    assert "not measured yet" not in (verdicts[18], verdicts[19], verdicts[22])


def test_without_cells_every_check_says_how_its_cell_is_made(tmp_path):
    rows = audited(tmp_path)
    assert all("missing" in row for row in rows)
    assert all(row["verdict"] == "not measured yet" for row in audit_language.table(rows) if row["published"])
    assert rows[0]["missing"] == "python -m studies.token_entanglement --model smollm2-135m-instruct"


def test_cells_of_another_model_are_not_taken_for_this_ones(tmp_path):
    for name in ("digits", "bottleneck"):
        shutil.copytree(ROOT / "artifacts" / name, tmp_path / name)
    rows = audited(tmp_path, "--model", "another")
    row = [row for row in rows if row["claim_row"] == "Zur 3"][-1]
    assert row["missing"] == "python -m studies.digits --model another"
    organisms = [row for row in rows if row["claim_row"] == "Zur 2"]  # a check that names its model is of that one
    assert organisms and not any("missing" in row for row in organisms)


def test_a_bound_is_read_as_the_value_is(monkeypatch):
    said = {
        "a/x": Finding("a/x", "a", stats.Interval(0.5, 0.4, 0.6, 9), Drawn(0.3, 0.35), null_label="shuffled"),
        "b/x": Finding("b/x", "b", 0.7, 0.5, 0.01),
    }
    monkeypatch.setattr(audit_language, "_finding", lambda reading, model, found, cells: said[reading.key])
    planted = Check("x", Reading("s", "a/x"), "above", Reading("s", "a/x", part="null"))
    row = audit_language._checked(planted, "m", {}, {})
    assert (row["bound"], row["mean"], row["n"]) == (0.3, 0.5, 9) and "p" not in row
    row |= {"expected": "above", "margin": 0.05}
    assert audits.outcome(row) == "yes" and audits.outcome({**row, "bound": 0.5}) == "open"
    apart = {**row, "bound_low": 0.2, "bound_high": 0.39}
    assert audits.outcome(apart) == "yes" and audits.outcome({**apart, "bound_high": 0.45}) == "open"
    assert audits.outcome({**apart, "expected": "below"}) == "no"
    wide = {**apart, "expected": "near", "margin": 0.5}
    assert audits.outcome(wide) == "yes" and audits.outcome({**wide, "bound_high": 0.95}) == "open"
    assert audits.outcome({**wide, "bound_high": 1.2, "bound_low": 1.15}) == "no"
    tested = audit_language._checked(Check("y", Reading("s", "b/x"), "near", 0.5), "m", {}, {}) | {"margin": 0.05}
    assert audits.outcome({**tested, "expected": "near"}) == "no"
    assert audits.outcome({**tested, "expected": "above"}) == "yes"
    assert audits.outcome({**tested, "expected": "below"}) == "no"
    assert {audits.outcome({**tested, "expected": word, "p": 0.5}) for word in ("above", "near")} == {"open"}


def test_a_p_of_something_else_than_the_bound_decides_nothing(monkeypatch):
    said = {"b/x": Finding("b/x", "b", 0.7, 0.5, 0.01)}
    monkeypatch.setattr(audit_language, "_finding", lambda reading, model, found, cells: said[reading.key])
    of_null = audit_language._checked(
        Check("y", Reading("s", "b/x"), "above", Reading("s", "b/x", {}, "null")), "m", {}, {}
    )
    assert of_null["p"] == 0.01
    other = audit_language._checked(Check("y", Reading("s", "b/x"), "above", 0.6), "m", {}, {})
    assert "p" not in other and audits.outcome({**other, "expected": "above"}) == "untested"
    told = {"claim_row": 1, "claim": "c", "published": "", "check": "y", "expected": "above"}
    found = {finding.key: finding for finding in audits.findings([told | of_null, told | other], "units")}
    assert (found["claim_1.1/value"].null, found["claim_1.1/value"].p) == (0.5, 0.01)
    assert found["claim_1.2/value"].p is None


def test_checks_have_p_adjusted_for_all_of_them():
    """The p of a check is below 0.05 where its interval decides, and nowhere else."""
    rng = np.random.default_rng(0)
    rows = []
    for expected in ("above", "below", "near") * 100:
        found = stats.student_t(rng.normal(rng.normal(), 1, size=5))
        rows.append({"expected": expected, "bound": 0.1, "margin": 0.5, "mean": found.mean, "low": found.low})
        rows[-1] |= {"high": found.high, "n": found.n}
    assert [audits.p_value(row) < 0.05 for row in rows] == [audits.outcome(row) != "open" for row in rows]
    above = stats.paired_difference([0.5, 0.7, 0.4], [0.0] * 3)
    row = {"expected": "above", "bound": 0.0, "mean": above.interval.mean, "n": 3}
    row |= {"low": above.interval.low, "high": above.interval.high}
    assert audits.p_value(row) == pytest.approx(above.p)
    percentile, missing = {**row, "high": row["high"] + 0.1}, {"missing": "python"}
    tested = {"p": 0.001, "mean": 1.0, "low": 1.0, "high": 1.0, "n": 0}
    adjusted = audits.adjusted([row, percentile, missing, tested])
    assert adjusted == [pytest.approx(2 * above.p), None, None, 0.003]


def test_a_reading_names_a_finding(tmp_path):
    shutil.copytree(ROOT / "artifacts" / "bottleneck", tmp_path / "bottleneck")
    wanted = Check("x", Reading("bottleneck", "no/key"), "above")
    claim = audit_language.claims.Claim("x", "x", "x", (wanted,))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(audit_language.claims, "CLAIMS", (claim,))
        audited(tmp_path)


def test_every_reading_names_a_study_and_options_that_it_has():
    for reading in (check.reading for claim in CLAIMS for check in claim.checks):
        if importlib.util.find_spec(f"studies.{reading.study}") is not None:
            assert importlib.import_module(f"studies.{reading.study}").Config(**reading.flags)
