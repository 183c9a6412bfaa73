"""studies.learning_curves: a real cell, and its comparisons on planted curves."""

import dataclasses

import pytest

from mechsub.lab import predictions, store, study
from mechsub.lab.findings import Cell
from mechsub.lab.verdicts import Entry
from studies import learning_curves

SMALL = ["--d-model", "16", "--epochs", "1", "--teacher-epochs", "1", "--precision", "fp32", "--n-seeds", "2"]
STEPS = (0, 59, 295, 590, 4012)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    out = tmp_path_factory.mktemp("curves")
    study.command(learning_curves.study, [*SMALL, "--inputs", "uniform", "--out", str(out), "--quiet"])
    (path,) = (out / "learning_curves").glob("*/records.jsonl")
    return store.read_records(path.parent)


def test_a_student_is_followed(records):
    by_step = {step: [row for row in records if row["step"] == step] for step in (0, 30, 59)}
    assert len(records) == 6 and all(row["shares"] == [0.0, 0.0] for row in by_step[0])
    for member in (0, 1):
        left = [by_step[step][member]["divergence"] for step in by_step]
        assert left[0] > left[1] > left[2] > 0
        assert by_step[59][member]["shares"][0] > 0
    said = {finding.key for finding in learning_curves.findings(records)}
    assert {"step_59/recentred", "step_59/s_1", "step_0/divergence"} <= said
    assert learning_curves.plot(records).data and learning_curves.table(records)


def planted(name: str, early: float, late: float) -> Cell:
    """A distribution with these recentred accuracies at 295 and at 4,012 steps, of four seeds.

    Its divergences begin at a height of their own.
    """
    first = 10.0 ** (len(name) % 3)
    grow = dict(zip(STEPS, (0.1, early / 2, early, (early + late) / 2, late), strict=True))
    cell = [
        {
            "arm": f"step_{step}",
            "step": step,
            "member": seed,
            "shares": [value, value / 2],
            "divergence": first * (1 - value),
        }
        | dict.fromkeys(("raw", "recentred", "prior_matched"), value + seed / 1000)
        for step, value in grow.items()
        for seed in range(4)
    ]
    options = dataclasses.asdict(learning_curves.Config(inputs=name))
    return Cell(options, cell, findings=learning_curves.findings(cell))


def test_slow_and_poor_distributions_are_told_apart():
    cells = [planted("uniform", 0.8, 0.9), planted("centred", 0.5, 0.89), planted("images", 0.2, 0.3)]
    said = {finding.key: finding.value for finding in learning_curves.comparisons(cells)}
    assert said["centred/made_up"].mean == pytest.approx(29 / 30) and said["images/made_up"].mean == pytest.approx(0)
    assert "uniform/made_up" not in said and "all_steps/s_1_rank" not in said  # three distributions have no order
    more = [planted(f"subspace:{3**i % 700 + i}", 0.3 + 0.02 * i, 0.4 + 0.03 * i) for i in range(1, 9)]
    said = {finding.key: finding for finding in learning_curves.comparisons([*cells, *more])}
    assert said["all_steps/s_1_rank"].value.mean == pytest.approx(1) and said["all_steps/s_1_rank"].n == 11
    assert said["all_steps/divergence_rank"].value.mean < -0.99
    assert said["step_295/divergence_rank"].value.mean < -0.99
    assert learning_curves.comparisons(cells[:1]) == []


def test_cells_that_differ_in_more_than_inputs_are_not_mixed():
    cells = [planted("uniform", 0.8, 0.9), planted("images", 0.2, 0.3)]
    other = [dataclasses.replace(cell, options={**cell.options, "loss": "mse"}) for cell in cells[:1]]
    other.append(dataclasses.replace(planted("images", 0.2, 0.8), options={**cells[1].options, "loss": "mse"}))
    for order in (cells + other, other + cells):
        said = {finding.name: finding.value for finding in learning_curves.comparisons(order)}
        assert said["loss=kl: images/made_up"].mean == pytest.approx(0)
        assert said["loss=mse: images/made_up"].mean > 0.5


def test_what_is_said_of_several_cells_is_judged():
    cells = [planted("uniform", 0.8, 0.9), planted("centred", 0.5, 0.89)]
    entry = Entry("learning_curves", "centred/made_up", "above", 0.5)
    (verdict,) = predictions.judged(entry, cells, lambda: learning_curves.comparisons(cells))
    assert verdict.word == "hit"
    (verdict,) = predictions.judged(entry, cells, list)
    assert verdict.word == "untested"
    own = Entry("learning_curves", "step_295/recentred", "above", 0.4, where={"inputs": "centred"})
    (verdict,) = predictions.judged(own, cells, list)
    assert verdict.word == "hit"
