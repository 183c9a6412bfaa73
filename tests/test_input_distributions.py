"""studies.input_distributions, for real on MNIST at two seeds and one epoch; its law on planted quantities."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr

import mechsub as ms
from mechsub.designs import population
from mechsub.inputs import distributions
from mechsub.lab import findings as lab
from mechsub.lab import predictions, store, study
from mechsub.measures import tangent
from studies import input_distributions as study_of_inputs
from studies.input_distributions import figure, findings, measure
from studies.input_distributions import law as input_law

SMALL = ["--n-seeds", "2", "--epochs", "1", "--teacher-epochs", "1", "--n-samples", "3000", "--n-described", "64"]


def run(out, *words):
    study.command(study_of_inputs.study, [*SMALL, "--out", str(out), *words])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    run(folder, "--inputs", "mixed:0.5", "perlin:7")
    return folder


def records(out, name):
    return [row for path in (out / "input_distributions").glob("*/provenance.json")
            for row in store.read_records(path.parent) if row["inputs"] == name]  # fmt: skip


def test_students_are_those_of_studies_factors_or_trained_here(out):
    """Those of factors are read from its cell; the others are what distill alone gives."""
    (cell,) = (path.parent for path in (out / "factors").glob("*/provenance.json"))
    assert store.read_provenance(cell)["config"]["signal"] == 0.5
    of_both = (store.read_records(cell), (r for r in records(out, "mixed:0.5") if r["arm"] != "inputs"))
    theirs, ours = ({(r["arm"], r["member"]): [r[s] for s in population.SCORES] for r in rows} for rows in of_both)
    assert ours == theirs and len(ours) == 4
    init = ms.HookedMLP(seeds=(0, 1))
    (path,) = (out / "teachers").glob("*/provenance.json")
    teacher = population.with_aux(init, store.read_tensors(path.parent))
    student = ms.distill(init, teacher, ms.noise.perlin_noise(7), outputs=init.cfg.aux, n_samples=3000, epochs=1)
    found = [r for r in records(out, "perlin:7") if r["arm"] == "aux"]
    assert [r["accuracy"] for r in found] == ms.accuracy(student, *ms.mnist("test")).tolist()
    unlabelled = ms.mnist("train")[0][: population.UNLABELLED]
    expected = ms.accuracies(student, *ms.mnist("test"), unlabelled)
    for score in ("recentred", "prior_matched"):
        assert [r[score] for r in found] == expected[score].tolist()


def test_every_quantity_of_the_law_is_in_the_rows(out):
    wanted = set(predictions.told()["law"]["quantities"])
    for name in ("mixed:0.5", "perlin:7"):
        aux = [r for r in records(out, name) if r["arm"] == "aux"]
        assert len(aux) == 2 and all(wanted <= set(row) for row in aux)
        assert all(0 < row["drive"] and -1 <= row["least_squares_gain"] <= 1 for row in aux)
        (drawn,) = (r for r in records(out, name) if r["arm"] == "inputs")
        assert len(drawn["radial_power"]) == 15 and len(drawn["gate_spectrum"]) == 9
    shares = [records(out, name)[0]["input_mean_share"] for name in ("mixed:0.5", "perlin:7")]
    assert shares[0] > 0.3 > 0.1 > shares[1]  # images have a mean image, gradient noise has none


def test_quantities_know_a_student_that_goes_the_teachers_way():
    """A teacher that moved its hidden layers where the auxiliary logits pull them is followed, a random one is not."""
    reference = ms.HookedMLP(seeds=(0,))
    named = dict(reference.named_parameters())
    x = ms.noise.uniform(1024, torch.Generator().manual_seed(1))
    digits = tuple(side[:200] for side in ms.mnist("test"))

    def measured(direction):
        hidden = {name: value for name, value in direction.items() if name.startswith("blocks.")}
        scale = 0.5 / float(tangent.dot(hidden, hidden).sqrt())
        teacher = reference.replace({name: named[name] + scale * value for name, value in hidden.items()})
        return measure._of_member(reference, teacher, x, digits, 0)["quantities"]

    at = tangent.tangent(reference, x, reference.cfg.aux)
    pulled = tangent.pull(at, torch.tensor([1.0, -1.0, 0.0]).expand_as(at.logits))
    draw = torch.Generator().manual_seed(2)
    with_channel, random = (
        measured(pulled),
        measured({n: torch.randn(v.shape, generator=draw) for n, v in named.items()}),
    )
    for quantity in ("least_squares_gain", "least_squares_cosine", "gradient_cosine", "gradient_gain"):
        assert with_channel[quantity] > 0.6 > 0.2 > abs(random[quantity]), quantity
    assert with_channel["drive_share"] > 50 and random["drive_share"] == pytest.approx(1, rel=0.6)
    still = measure._of_member(reference, reference, x, digits, 0)["quantities"]
    assert still["drive"] == still["least_squares_gain"] == still["gradient_cosine"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--inputs", "mixd:0.5"], "did you mean mixed"),
        (["--inputs", "mixed:0"], "share of images"),
        (["--inputs", "mixed:0.50"], "share of images"),
        (["--inputs", "perlin:5"], "2, 4, 7, 14"),
        (["--inputs", "covariance_matched:1"], "takes no parameter"),
        (["--inputs", "subspace:785"], "the size of the input"),
        (["--inputs", "perlin:4", "--n-seeds", "1"], "an integer >= 2"),
        (["--n-described", "8"], "at least 16"),
    ],
)
def test_impossible_distributions_are_one_line(refused, words, says):
    assert says in refused(study_of_inputs, words)


def test_every_default_distribution_has_a_family_and_every_contrast_its_cells():
    told = predictions.told()
    for name in distributions.STUDIED:
        study_of_inputs.Config(inputs=name)
        assert findings.family(name, told["law"]["families"]) in told["law"]["families"]
    claims = [entry for entry in predictions.entries() if entry.study == "input_distributions" and entry.claim]
    assert {name for entry in claims for name in entry.levels} <= set(distributions.STUDIED)
    assert findings.family("mixed_at_moments:1", told["law"]["families"]) == "images"


# The law.

FAMILIES = [f"family {i // 4}" for i in range(28)]


def planted(seed=0, n_seeds=25):
    """accuracy [seed, distribution], its members' noise included."""
    draw = np.random.default_rng(seed)
    return draw.permutation(np.linspace(0.1, 0.8, 28)) + draw.normal(0, 0.1, (n_seeds, 28))


def test_isotonic_regression_and_ranks_are_those_of_scipy():
    draw = np.random.default_rng(0)
    x, y = np.sort(draw.normal(size=(5, 12)), 1), draw.normal(size=(5, 12))
    levels = input_law._isotonic(x, y, np.ones(x.shape))
    for found, one in zip(levels, y, strict=True):
        assert np.allclose(found, isotonic_regression(one).x)
    tied = x.round()
    for found, a, b in zip(input_law._isotonic(tied, y, np.ones(x.shape)), tied, y, strict=True):
        groups, place = np.unique(a, return_inverse=True)
        means = np.bincount(place, b) / np.bincount(place)
        assert np.allclose(found, isotonic_regression(means, weights=np.bincount(place)).x[place]) and len(groups) < 12
    found = input_law._correlation(input_law._ranks(tied), input_law._ranks(y))
    assert np.allclose(found, [spearmanr(a, b).statistic for a, b in zip(tied, y, strict=True)])


def test_what_is_held_out_is_not_fitted():
    draw = np.random.default_rng(1)
    x, y, groups = draw.normal(size=(1, 28)), draw.normal(size=(1, 28)), np.arange(28)[None] // 4
    before = input_law.held_out(x, y, groups)
    changed = np.where(groups == 3, 100.0, y)
    assert np.array_equal(input_law.held_out(x, changed, groups)[groups == 3], before[groups == 3])
    # A rising law is interpolated between the fitted points, and constant beyond them.
    line = np.arange(28.0)[None]
    found = input_law.held_out(line, 2 * line, groups)[0]
    assert np.allclose(found[4:24], 2 * np.arange(4, 24)) and (found[:4] == 8).all() and (found[24:] == 46).all()


def test_a_planted_law_is_found_and_beats_the_others():
    accuracy, draw = planted(), np.random.default_rng(5)
    quantities = {f"noise {i}": draw.normal(size=28) + draw.normal(0, 0.1, (25, 28)) for i in range(6)}
    quantities["saturating"] = -np.tanh(4 * accuracy) + draw.normal(0, 0.02, accuracy.shape)  # falls
    found = input_law.laws(accuracy, quantities, FAMILIES, n_resamples=100, n_permutations=99)
    best = found[0]
    assert (best.quantity, best.verdict, best.p) == ("saturating", "law", 0.01)
    assert 0.5 < best.score.low < best.score.mean <= 1 and best.fitted < -0.9 and best.error < 0.05
    assert all(law.verdict == "nothing" for law in found[1:])
    baseline = input_law.error(np.zeros(accuracy.shape), accuracy, FAMILIES)
    assert 0.1 < baseline < 0.25 and min(law.error for law in found[1:]) > 0.5 * baseline


def test_laws_are_not_found_in_noise():
    """The best of three quantities that have nothing to do with accuracy."""
    draw, small = np.random.default_rng(7), []
    for i in range(16):
        accuracy = planted(i, n_seeds=2)
        noise = {f"noise {k}": draw.normal(size=(1, 28)) + np.zeros((2, 1)) for k in range(3)}
        best = input_law.laws(accuracy, noise, FAMILIES, n_resamples=2, n_permutations=39, seed=i)[0]
        small.append(best.p <= 0.05)
    assert sum(small) <= 4  # 0.8 expected; P(5 or more) is 0.001


def made_up():
    """Records of all distributions in which the drive orders accuracy, and a contrast turns out as predicted."""
    defaults = dataclasses.asdict(study_of_inputs.Config(inputs="uniform"))
    quantities = predictions.told()["law"]["quantities"]
    draw, rows = np.random.default_rng(3), []
    for name, base in zip(distributions.STUDIED, draw.permutation(np.linspace(0.1, 0.8, 28)), strict=True):
        constant = {quantity: draw.normal() for quantity in quantities}
        for member in range(10):
            noise = draw.normal(0, 0.02)
            learned, chance = base + noise, 0.1 + draw.normal(0, 0.01)
            scores = ("accuracy", "recentred", "prior_matched")
            own = constant | dict.fromkeys(scores, learned) | {"drive": 10**base + noise, "arm": "aux"}
            null = dict.fromkeys(scores, chance) | {"arm": "cross_aux"}
            rows += [defaults | {"inputs": name, "member": member, "teacher_accuracy": 0.94} | r for r in (own, null)]
        rows.append(defaults | {"inputs": name, "arm": "inputs", "radial_power": [1.0] * 15})
    return rows


def test_table_and_figure_of_a_whole_grid(monkeypatch):
    few = functools.partial(input_law.laws, n_resamples=40, n_permutations=59)
    monkeypatch.setattr(input_law, "laws", few)
    rows = made_up()
    told = findings.table(rows)
    accuracies = [row["accuracy"].mean for row in told if row.get("arm") == "aux" and row["cell"] != "all"]
    assert len(accuracies) == 28 and accuracies == sorted(accuracies, reverse=True)
    cells = lab.cells(rows, study_of_inputs.Config, findings.findings)
    compared = {finding.key: finding for finding in findings.comparisons(cells)}
    claims = [finding for finding in compared.values() if finding.label.startswith("claim")]
    assert sum(finding.score == "recentred" for finding in claims) == sum(f.score == "accuracy" for f in claims) == 14
    assert len(claims) == 29 and all(0 <= finding.p <= 1 for finding in claims)
    for score in ("accuracy", "recentred"):
        assert sum(key.endswith(f"_less_uniform/{score}") for key in compared) == 27
    verdicts = [row["verdict"] for row in told if str(row["cell"]).startswith("prediction: aux/accuracy over inputs")]
    assert len(verdicts) > 20 and set(verdicts) <= {"hit", "miss", "open"}
    laws = {key.partition("/")[0]: f for key, f in compared.items() if key.endswith("/verdict")}
    assert laws["drive"].value == laws["drive_recentred"].value == "law" and len(laws) == 34
    assert {next(iter(laws)), list(laws)[17]} == {"drive", "drive_recentred"}
    drawn = figure.plot(rows)
    assert [note.text for note in drawn.layout.annotations[:3]][2] == "Which quantity predicts families held out?"
    one = [row for row in rows if row["inputs"] == "images"]
    alone = findings.table(one)
    assert [row["arm"] for row in alone if "verdict" not in row] == ["aux", "cross_aux", "aux, above the null"]
    assert figure.plot(one).data
