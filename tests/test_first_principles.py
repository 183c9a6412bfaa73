"""The design, the refusal to train what was not predicted, and both parts at two seeds."""

import re

import pytest

from mechsub.designs import conditions
from mechsub.lab import cells, findings, store, study
from studies import first_principles
from studies.first_principles import design
from studies.first_principles import findings as found

SMALL = "+d_model=16+epochs=1+batch_size=64+n_samples=256"


def test_the_design_is_of_120_conditions_or_more_and_each_has_one_name():
    assert len(set(design.DESIGN)) == len(design.DESIGN) >= 120
    for text in (*design.DESIGN, *conditions.STORED):
        assert conditions.written(conditions.parsed(text)) == text
    assert sum(map(design.is_new, design.DESIGN)) >= 80
    assert design.is_new("images+epochs=1") and not design.is_new("images")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uniform+epochs=1+d_model=64", "write uniform[+]d_model=64[+]epochs=1"),
        ("uniform+d_model=256", "write uniform,"),
        ("unifrom", "did you mean uniform"),
        ("uniform+depth=3", "'depth' is not one of"),
        ("uniform+loss=l1", "loss is one of kl, mse, hard"),
        ("uniform+epochs=0", "epochs needs a number above 0"),
        ("uniform+n_aux=1", "teaches nothing"),
    ],
)
def test_conditions_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        conditions.parsed(text)


def test_fresh_conditions_are_no_part_of_the_first_design():
    fresh = design.FRESH
    assert len(set(fresh)) == 24 and not {*design.DESIGN, *conditions.STORED} & set(fresh)
    assert all(conditions.written(conditions.parsed(text)) == text for text in fresh)


def test_a_word_stands_for_the_fresh_conditions(capsys):
    study.command(first_principles.study, ["--condition", "fresh", "uniform", "--part", "quarters", "--dry-run"])
    said = capsys.readouterr().out
    assert said.count("part=quarters") == 25 and "condition=uniform\n" in said
    with pytest.raises(SystemExit):
        study.command(first_principles.study, ["--condition", "fresh", design.FRESH[0], "--dry-run"])
    assert "a value is given twice" in capsys.readouterr().err


def config(part, condition):
    return first_principles.Config(part=part, condition=condition, teacher_epochs=1, precision="fp32", n_seeds=2)


def test_students_are_trained_behind_their_predictions_only(tmp_path):
    """Both parts of two conditions; what is said of them."""
    names = [f"{inputs}{SMALL}" for inputs in ("uniform", "images")]
    wanted = rf"is missing; run python -m studies.first_principles --condition {re.escape(names[0])} .*first"
    with pytest.raises(ValueError, match=wanted):
        cells.make_cell(first_principles.study, config("train", names[0]), tmp_path)
    assert not (tmp_path / "teachers").exists()  # refused before anything was trained
    records = []
    for name in names:
        cells.make_cell(first_principles.study, config("predict", name), tmp_path)
        cell = cells.make_cell(first_principles.study, config("train", name), tmp_path)
        assert any("first_principles" in used for used in store.read_provenance(cell)["made_from"])
        records += list(store.read_records(cell))
        for part in found.FURTHER:
            assert "predicted" not in first_principles.upstream(config(part, name))
            more = cells.make_cell(first_principles.study, config(part, name), tmp_path)
            records += list(store.read_records(more))
    arms = {row["arm"] for row in records}
    staged = {f"{n}_stages{again}" for n in ("two", "four") for again in ("", "_again")}
    assert arms == {"untrained", "midpoint", "start", "again", "line", "student", "cross", "quarters", *staged}
    compared = found.comparisons(findings.cells(records, first_principles.Config, found.findings))
    keys = {finding.key for finding in compared}
    assert {"midpoint/recentred_error", "midpoint/s_1_bias", "untrained/raw_new_error"} <= keys
    assert {"two_stages_again/recentred_error", "quarters/s_1_error", "four_stages/recentred_largest"} <= keys
    assert found.table(records) and found.plot(records).data
