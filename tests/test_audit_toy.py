"""studies.audit_toy on copies of committed cells, and its rules on planted checks."""

import dataclasses
import importlib
import importlib.util
import shutil
from pathlib import Path

import pytest

from mechsub.lab import audits, store, study
from studies import audit_toy
from studies.audit_toy.claims import CLAIMS

ROOT = Path(__file__).parent.parent
READ = ("subliminal_accuracy/default", "subliminal_accuracy/loss=mse", "hidden_alignment/default")


def audited(out) -> list[dict]:
    study.command(audit_toy.study, ["--out", str(out), "--rerun"])
    return store.read_records(out / "audit_toy" / "default")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    for cell in READ:
        shutil.copytree(ROOT / "artifacts" / cell, folder / cell)
    return folder


def test_stored_cells_are_judged_and_missing_ones_say_how_they_are_made(out):
    records = audited(out)
    assert list(dict.fromkeys(row["claim_row"] for row in records)) == [*range(1, 18), 23]
    verdicts = {row["row"]: row["verdict"] for row in audit_toy.table(records) if row["published"]}
    assert (verdicts[2], verdicts[3], verdicts[4], verdicts[23]) == ("partly", "partly", "partly", "refuted")
    assert all(verdicts[row] == "not measured yet" for row in range(5, 18))
    missing = {row["check"]: row["missing"] for row in records if "missing" in row}
    assert missing["256 neurons less 64"] in (
        "python -m studies.factors --arms aux",
        "python -m studies.factors --arms aux --d-model 64",
    )
    assert set(store.read_provenance(out / "audit_toy" / "default")["made_from"]) == set(READ)


def test_the_figure_says_what_it_leaves_out(out):
    records = store.read_records(out / "audit_toy" / "default")
    said = [a.text for a in audit_toy.plot(records).layout.annotations]
    missing = sum("missing" in row for row in records)
    assert any(f"Checks without a point: {missing} not measured yet" in text for text in map(unwrapped, said))
    twice = records + [row | {"margin": 0.1} for row in records]
    assert any("This is the first of 2 cells." in unwrapped(a.text) for a in audit_toy.plot(twice).layout.annotations)


def unwrapped(text: str) -> str:
    return text.replace("<br>", " ")


def test_a_check_is_the_paired_sum_of_the_cells_that_it_names(out):
    rows = {row["check"]: row for row in store.read_records(out / "audit_toy" / "default")}
    cell = store.read_records(out / READ[0])
    scores = {(r["arm"], r["member"]): r["accuracy"] for r in cell}
    found = rows["teacher with the initial digit head less teacher"]
    mean = sum(scores["teacher_body_initial_head", i] - scores["teacher", i] for i in range(25)) / 25
    assert found["mean"] == pytest.approx(mean) and found["n"] == 25 and found["low"] < mean < found["high"]
    recentred = {(r["arm"], r["member"]): r["recentred"] for r in cell}
    mean = sum(recentred["teacher_body_initial_head", i] - recentred["teacher", i] for i in range(25)) / 25
    assert found["recentred"][0] == pytest.approx(mean)
    assert "recentred" not in rows["debiased CKA of layer 2 with the teacher"]  # which is no accuracy
    null = rows["debiased CKA of layer 2 with the teacher"]["null"]
    assert 0.6 < null[0] < 0.75


def test_a_recentred_check_has_a_recentred_null_and_a_level_is_of_one_score_alone():
    records = store.read_records(ROOT / "artifacts" / "audit_toy" / "default")
    sweeps = [row for row in records if row.get("null") and "recentred" in row]
    assert len(sweeps) > 10 and all(abs(row["recentred_null"][0]) < 0.2 for row in sweeps)
    (level,) = [row for row in records if row["bound"] == 0.772]
    assert "recentred" not in level and 0 < level["null"][0] < 0.2
    told = {f.key: f for f in audit_toy.findings(records)}
    assert told["claim_14.1/recentred"].null.mean == pytest.approx(0, abs=0.05)


def test_a_cell_of_another_version_counts_as_missing(out, tmp_path):
    shutil.copytree(out, tmp_path / "o")
    path = tmp_path / "o" / READ[0] / "provenance.json"
    path.write_bytes(store._sealed({**store.read_provenance(path.parent), "version": 0}))
    rows = [row for row in audited(tmp_path / "o") if row["claim_row"] in (2, 4, 23)]
    assert all(row["missing"] == "python -m studies.subliminal_accuracy --loss kl" for row in rows)


def test_flags_with_several_values_are_a_sweep():
    flags = {"entry": "open", "seed": (100, 105)}
    assert list(audit_toy._combinations(flags)) == [{"entry": "open", "seed": 100}, {"entry": "open", "seed": 105}]
    assert audits.words(flags) == " --entry open --seed 100 105"


def check(expected, low, high, bound=0.0):
    return {"expected": expected, "bound": bound, "low": low, "high": high, "margin": 0.05}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (check("above", 0.01, 0.1), "yes"),
        (check("above", -0.01, 0.1), "open"),
        (check("above", -0.2, -0.1), "no"),
        (check("below", 0.5, 0.7, 0.772), "yes"),
        (check("below", 0.8, 0.9, 0.772), "no"),
        (check("near", -0.04, 0.04), "yes"),
        (check("near", -0.04, 0.06), "open"),
        (check("near", 0.06, 0.2), "no"),
        ({"missing": "python"}, "missing"),
    ],
)
def test_outcomes_of_checks(row, says):
    assert audits.outcome(row) == says


@pytest.mark.parametrize(
    ("outcomes", "says"),
    [
        (["yes", "yes"], "confirmed"),
        (["no"], "refuted"),
        (["yes", "no", "open"], "partly"),
        (["yes", "open"], "open"),
        (["open"], "open"),
        (["no", "open"], "not supported"),
        (["missing"], "not measured yet"),
        (["no", "missing"], "refuted (by 1 of 2 checks)"),
    ],
)
def test_verdicts_of_claims(outcomes, says):
    rows = {"yes": check("above", 1, 2), "no": check("above", -2, -1), "open": check("above", -1, 1)}
    rows["missing"] = {"missing": "x"}
    assert audits.verdict([rows[word] for word in outcomes]) == says


def test_recentred_checks_give_a_verdict_of_their_own():
    plain, other = check("above", 0.1, 0.2), check("above", 0.3, 0.4)
    assert audits.recentred([plain, other]) == []  # no check is about accuracy
    of_accuracy = plain | {"recentred": [-0.15, -0.2, -0.1, 25]}
    assert audits.verdict([of_accuracy]) == "confirmed" and audits.verdict(audits.recentred([of_accuracy])) == "refuted"
    assert audits.verdict(audits.recentred([of_accuracy, other])) == "partly"


def test_every_check_names_cells_that_its_study_can_make():
    for claim in CLAIMS:
        for wanted in (scores for one in claim.checks for _, scores in one.terms):
            if importlib.util.find_spec(f"studies.{wanted.study}") is None:
                continue  # a study that is not written yet: its cells are missing
            Config = importlib.import_module(f"studies.{wanted.study}").Config
            names = {field.name for field in dataclasses.fields(Config)}
            assert all(Config(**flags) and set(flags) <= names for flags in audit_toy._combinations(wanted.flags))


@pytest.mark.skipif(not (ROOT / "artifacts/audit_toy/default").is_dir(), reason="no audit is stored")
def test_the_stored_audit_is_what_the_stored_cells_say(tmp_path):
    stored = store.read_records(ROOT / "artifacts/audit_toy/default")
    named = store.read_provenance(ROOT / "artifacts/audit_toy/default")["made_from"]
    for cell in named:
        shutil.copytree(ROOT / "artifacts" / cell, tmp_path / cell)
    again = audited(tmp_path)
    assert [row.keys() for row in again] == [row.keys() for row in stored]
    for row, before in zip(again, stored, strict=True):
        for name, value in row.items():  # another numpy may add up in another order
            numbers = all(isinstance(each, float) for each in (value if isinstance(value, list) else [value]))
            assert value == (pytest.approx(before[name], abs=1e-9) if numbers else before[name])
