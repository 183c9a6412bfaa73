"""studies.factors and studies.teachers, for real on MNIST at two seeds and one epoch; verdicts on planted scores."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import mechsub as ms
from mechsub.designs import population
from mechsub.inputs import distributions, noise
from mechsub.lab import findings as lab
from mechsub.lab import predictions, store, study, verdicts
from mechsub.lab.findings import mean
from mechsub.training import distillation
from studies import factors
from studies.factors import figure, measure
from studies.factors import findings as report

SMALL = ["--n-seeds", "2", "--epochs", "1", "--teacher-epochs", "1", "--n-samples", "3000"]


def run(out, *words):
    study.command(factors.study, [*SMALL, "--out", str(out), *words])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two cells that differ in the student alone, and one of three classes."""
    folder = tmp_path_factory.mktemp("factors")
    run(folder, "--perturbation", "0", "3")
    run(folder, "--n-classes", "3", "--inputs", "subspace:40", "--signal", "0.5", "--batch-size", "64", "--lr", "0.002")
    return folder


def records(out, **wanted):
    cells = (out / "factors").glob("*/provenance.json")
    rows = [row for path in cells for row in store.read_records(path.parent)]
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_a_sweep_trains_its_teachers_once(out):
    assert sorted(path.parent.name for path in (out / "teachers").glob("*/provenance.json")) == [
        "epochs=1__n_seeds=2",
        "n_classes=3__epochs=1__n_seeds=2",
    ]
    cells = [p.parent for p in (out / "factors").glob("*perturbation*/provenance.json")]
    made = [store.read_provenance(cell) for cell in cells]
    assert made[0]["made_from"] == {"teachers/epochs=1__n_seeds=2": store.sums(out / "teachers/epochs=1__n_seeds=2")}
    assert {r["arm"] for r in records(out)} == set(factors.ARMS)
    assert {r["member"] for r in records(out)} == {0, 1}


def test_students_are_those_of_teachers_trained_with_their_auxiliary_rows(out):
    """The stored teacher has none; and studies.subliminal_accuracy trains the same pair."""
    init = ms.HookedMLP(seeds=(0, 1))
    teacher = ms.train(init, *ms.mnist("train"), epochs=1)
    student = ms.distill(init, teacher, noise.uniform, outputs=init.cfg.aux, n_samples=3000, epochs=1)
    for arm, model in (("teacher", teacher), ("aux", student)):
        expected = ms.accuracy(model, *ms.mnist("test")).tolist()
        key = "teacher_accuracy" if arm == "teacher" else "accuracy"
        found = {r["member"]: r[key] for r in records(out, arm="aux", perturbation=0.0, n_classes=10)}
        assert [found[0], found[1]] == expected
    stored = store.read_tensors(out / "teachers" / "epochs=1__n_seeds=2")
    whole = population.with_aux(init, stored)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), teacher.parameters(), strict=True))


def test_rows_of_aux_say_what_the_inputs_are(out):
    for row in records(out, arm="aux"):
        assert row["drive"] > 0 and row["gate_dimension"] > 2 and 0 < row["aux_digit_correlation"] < 1
        for score, kappa in zip(report.SCORES, report.KAPPAS, strict=True):
            assert row[kappa] == pytest.approx((row[score] * row["n_classes"] - 1) / (row["n_classes"] - 1))
    moved = [r for r in records(out, arm="aux") if r["perturbation"]]
    assert [r["displacement"] for r in moved] == pytest.approx([3, 3], rel=1e-4)
    assert all(r["displacement_in_teacher_steps"] > 3 for r in moved)


def test_three_classes_are_a_subset_for_every_seed(out):
    rows = records(out, n_classes=3, arm="digits")
    assert min(r["teacher_accuracy"] for r in rows) > 0.8
    assert min(r["accuracy"] for r in rows) > 0.5 and len(records(out, n_classes=3, arm="real")) == 2
    chosen = [r["classes"] for r in store.read_records(out / "teachers" / "n_classes=3__epochs=1__n_seeds=2")]
    assert all(len(some) == 3 and some == sorted(set(some)) for some in chosen) and chosen[0] != chosen[1]
    assert population.classes(5, 10) == list(range(10))
    assert set(population.classes(5, 2)) < set(population.classes(5, 7))
    images, labels = population.only(torch.arange(6)[:, None], torch.tensor([7, 2, 9, 7, 0, 2]), [2, 7])
    assert images[:, 0].tolist() == [0, 1, 3, 5] and labels.tolist() == [1, 0, 1, 0]


def test_a_student_of_another_start_is_scored_on_its_teachers_classes():
    images, labels = ms.mnist("test")
    model = ms.HookedMLP(ms.MLPConfig(n_classes=3), seeds=(7, 8))
    swapped = population.accuracies(model, (8, 7), images, labels)
    for i, seed in enumerate((8, 7)):
        some = population.only(images, labels, population.classes(seed, 3))
        assert swapped[i] == pytest.approx(float(distillation.accuracy(model, *some)[i]))
    assert swapped != population.accuracies(model, (7, 8), images, labels)


@pytest.mark.parametrize("where", ["hidden", "head", "all"])
def test_perturbations_have_the_stated_size_in_the_stated_place(where):
    model = ms.HookedMLP(ms.MLPConfig(d_in=20, d_model=16), seeds=(3, 4))
    near, far = (measure._perturbed(model, factors.Config(perturbation=s, perturb_where=where)) for s in (0.1, 0.4))
    for name, value in model.named_parameters():
        delta = dict(near.named_parameters())[name] - value
        touched = where == "all" or name.startswith({"hidden": "blocks.", "head": "unembed."}[where])
        size = delta.flatten(1).norm(dim=1) / value.flatten(1).norm(dim=1).clamp(min=1e-9)
        assert torch.allclose(size, torch.full((2,), 0.1 if touched and "W" in name else 0.0), atol=1e-5)
        assert torch.allclose(dict(far.named_parameters())[name] - value, 4 * delta, atol=1e-5)
    alone = measure._perturbed(model.select([1]), factors.Config(perturbation=0.1, perturb_where=where))
    assert torch.equal(alone.W_U[0], near.W_U[1])


REFUSED = [
    (["--n-aux", "0"], "not an integer >= 1"),
    (["--n-aux", "1"], "softmax of one logit"),
    (["--n-classes", "1"], "one class is right by chance"),
    (["--n-classes", "11"], "must be 2 to 10"),
    (["--n-seeds", "1"], "an integer >= 2"),
    (["--inputs", "subspace:785"], "1..784, the size of the input"),
    (["--inputs", "subspace:2.5"], "an integer"),
    (["--inputs", "subspace"], "needs its dimension"),
    (["--inputs", "uniform:1"], "takes no parameter"),
    (["--inputs", "gaussian:1.0"], "write gaussian:1"),
    (["--inputs", "blured:1"], "did you mean blurred"),
    (["--inputs", "power_law:nan"], "a finite number"),
    (["--signal", "1.5"], "at most 1"),
    (["--signal", "0.5", "--inputs", "images"], "made of images"),
    (["--perturbation", "inf"], "finite number >= 0"),
    (["--perturbation", "-1"], "finite number >= 0"),
    (["--perturb-where", "tail"], "not one of all, hidden, head"),
    (["--loss", "mse", "--temperature", "2"], "not read with --loss mse"),
    (["--n-samples", "3", "--epochs", "0"], "--epochs"),
]


def test_a_perturbation_orthogonal_to_the_gradient_keeps_the_loss_to_first_order():
    model = ms.HookedMLP(ms.MLPConfig(n_aux=0), seeds=(0, 1))
    gradient = measure._gradient(model, factors.Config())
    moved = {
        kind: measure._perturbed(model, factors.Config(perturbation=0.3, perturb_direction=kind))
        for kind in ("random", "orthogonal")
    }
    for name, start in model.named_parameters():
        if name.endswith(".b") or name.endswith("b_U"):
            continue
        delta = {kind: dict(m.named_parameters())[name] - start for kind, m in moved.items()}
        along = {
            k: (d * gradient[name]).sum((1, 2)).abs() / gradient[name].flatten(1).norm(dim=1) for k, d in delta.items()
        }
        assert (along["orthogonal"] < 1e-4 * start.flatten(1).norm(dim=1)).all()
        assert (along["orthogonal"] < along["random"]).all()
        assert torch.allclose(delta["orthogonal"].flatten(1).norm(dim=1), 0.3 * start.flatten(1).norm(dim=1))


def test_the_gradient_is_that_of_the_whole_training_set():
    """Against one step of plain gradient descent on all images at once."""
    model, images, labels = ms.HookedMLP(seeds=(3,)), *ms.mnist("train")
    stepped = ms.train(model, images, labels, epochs=1, batch_size=60_000, optimizer="sgd", lr=1.0, precision="fp32")
    for name, value in measure._gradient(model, factors.Config()).items():
        taken = dict(model.named_parameters())[name] - dict(stepped.named_parameters())[name]
        assert torch.allclose(value, taken, atol=1e-5)


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_impossible_combinations_are_one_line_before_anything_is_trained(refused, words, says):
    assert says in refused(factors, words)


@pytest.mark.parametrize("name", [*distributions.NOISE, *distributions.IMAGES])
def test_every_distribution_by_its_name(name):
    text = f"{name}:1" if name in distributions.PARAMETERS else name
    images = ms.mnist("test")[0][:1200]
    x = distributions.sampler(text, images)(7, torch.Generator().manual_seed(0))
    assert x.shape == (7, 784) and x.isfinite().all() and x.std() > 0.1
    if name in distributions.NOISE:
        many = distributions.sampler(text, images)(1500, torch.Generator().manual_seed(1))
        assert many.mean(0).abs().mean() < 0.06 * many.square().mean().sqrt()


# Predictions.


def scores(mean, n=25, seed=0, sd=0.1):
    return dict(enumerate(np.random.default_rng(seed).normal(mean, sd, n)))


def test_directions_are_not_found_in_noise():
    pairs = ([mean("aux/x", "", scores(0.5, seed=2 * i + k), unit="seeds") for k in (0, 1)] for i in range(200))
    found = [verdicts.trend("increases", pair)[0] for pair in pairs]
    assert found.count("hit") <= 14 and found.count("miss") <= 14  # 5 expected of each; P(15 or more) < 0.001


def test_every_prediction_is_about_a_flag_and_every_factor_has_one():
    told = [entry for entry in predictions.entries() if entry.study == "factors"]
    names = {field.name for field in dataclasses.fields(factors.Config)}
    for entry in told:
        recentred = entry.finding in ("aux/recentred", "aux/recentred_kappa")
        assert entry.author == "brief" or str(entry.date) == ("2026-11-29" if recentred else "2026-11-24")
        assert entry.author == "brief" or entry.reason
        assert (recentred or entry.finding in ("aux/accuracy", "aux/kappa")) and {entry.over, *entry.where} <= names
        for level in entry.levels:
            factors.Config(**{entry.over: level})
    machinery = {"arms", "n_seeds", "seed", "signal_moments", "inputs"}  # inputs: studies.input_distributions
    assert names - {entry.over for entry in told} == machinery


def planted(**sweeps):
    """Records of a grid in which aux accuracy, raw and recentred, is 0.5 + the first factor's place / 10."""
    import itertools

    rows = []
    defaults = dataclasses.asdict(factors.Config())
    for combination in itertools.product(*sweeps.values()):
        chosen = dict(zip(sweeps, combination, strict=True))
        place = next(iter(sweeps.values())).index(combination[0])
        for arm, base in (("aux", 0.5 + place / 10), ("cross_aux", 0.1)):
            for member, value in scores(base, seed=len(rows), sd=0.02).items():
                kappa = (value - 0.1) / 0.9
                own = {"arm": arm, "member": member, "teacher_accuracy": 0.94, "teacher_recentred": 0.91}
                own |= dict.fromkeys((*report.SCORES, "prior_matched"), value) | dict.fromkeys(report.KAPPAS, kappa)
                rows.append({**defaults, **chosen, **own})
    return rows


def found_in(rows):
    cells = lab.cells(rows, factors.Config, report.findings)
    return {finding.name: finding for finding in lab.all_findings(cells, report.comparisons)}


def test_cells_are_compared_with_the_default_one_and_judged():
    rows = planted(n_aux=[1, 3, 10])
    found = found_in(rows)
    assert "n_aux=3: aux_less_reference/accuracy" not in found  # it is the reference
    wide = found["n_aux=10: aux_less_reference/accuracy"]
    assert wide.value.low < 0.1 < wide.value.high and wide.p < 1e-5
    assert found["n_aux=10: aux-cross_aux/accuracy"].value.mean == pytest.approx(0.6, abs=0.02)
    judged = [(row["cell"].partition(":")[0], row["verdict"]) for row in report.table(rows) if "verdict" in row]
    assert judged == [("prediction", "hit"), ("claim of brief", "hit"), ("prediction", "hit")]
    reversed_ = report.table(planted(n_aux=[10, 3, 1]))
    assert next(row for row in reversed_ if "verdict" in row)["verdict"] == "miss"


def test_predictions_heed_their_conditions_and_classes_are_compared_by_kappa():
    rows = report.table(planted(signal=[0.5, 0.0], signal_moments=["plain", "matched"]))
    told = [row["cell"] for row in rows if "verdict" in row]
    over = "over signal (signal_moments="
    raw, recentred = (f"aux/{score} {over}" for score in ("accuracy", "recentred"))
    assert told == [
        *(f"prediction: {raw}plain)", f"claim of brief: {raw}plain)", f"prediction: {raw}matched)"),
        *(f"prediction: {recentred}plain)", f"prediction: {recentred}matched)"),
    ]
    rows = report.table(planted(n_classes=[2, 10]))
    assert {"kappa", "recentred kappa"} <= set(rows[0]) and not {"accuracy", "recentred"} & set(rows[0])


def test_laws_over_inputs_find_what_was_planted_and_not_noise():
    names = ["uniform", *(f"blurred:{k}" for k in range(1, 12))]
    rows = planted(inputs=names)  # accuracy rises from one to the next
    shuffled = np.random.default_rng(0).permutation(len(names))
    for row in rows:
        place = names.index(row["inputs"])
        row |= {
            "drive": place + 0.1 * row["member"],
            "input_dimension": float(shuffled[place]),
            "input_mean_share": 1.0,
        }
    named = found_in(rows)
    found = {finding.subject: finding for finding in named.values() if finding.score == "law"}
    again = {finding.subject: finding for finding in named.values() if finding.score == "recentred_law"}
    assert {subject: law.value for subject, law in again.items()} == {s: law.value for s, law in found.items()}
    assert set(found) == {"drive", "input_dimension"}  # a constant is no law
    assert found["drive"].value.mean == 1 and found["drive"].p < 1e-3
    null = found["input_dimension"].value
    assert null.low < 0 < null.high and null.n == 12
    few = [row for row in rows if row["inputs"] in names[:9]]
    assert not any(finding.score == "law" for finding in found_in(few).values())


def test_every_quantity_of_the_laws_is_in_the_rows(out):
    assert all(set(report.DESCRIBED) <= set(row) for row in records(out, arm="aux"))


def test_figures_of_none_one_two_and_three_swept_factors():
    kinds = [
        (planted(n_aux=[3]), "scatter"),
        (planted(lr=[1e-4, 1e-3, 1e-2]), "scatter"),
        (planted(fresh=[False, True]), "scatter"),
        (planted(d_model=[64, 256], target_noise=[0.0, 1.0]), "heatmap"),
        (planted(n_aux=[2, 3], d_model=[64, 256], fresh=[False, True]), "scatter"),
    ]
    for rows, kind in kinds:
        drawn = figure.plot(rows)
        assert drawn.data[0].type == kind
        values = [float(v) for trace in drawn.data for v in np.ravel(trace.z if kind == "heatmap" else trace.y)]
        assert values and not any(math.isnan(v) for v in values)
    assert figure.plot(kinds[1][0]).layout.xaxis.type == "log"
    assert figure.plot(kinds[2][0]).data[1].x == ("false", "true")


def test_a_stale_teacher_is_not_built_upon(out, capsys):
    path = out / "teachers" / "epochs=1__n_seeds=2" / "provenance.json"
    text, made = path.read_text(), store.read_provenance(path.parent)
    sums = made["read"]["images mnist"]["sha256"]
    other = {"images mnist": {"sha256": {**sums, "train images": "0" * 64}}}
    path.write_bytes(store._sealed({**made, "read": other}))
    try:
        with pytest.raises(SystemExit) as left:
            run(out, "--lr", "0.001")
        assert left.value.code == 1
        assert "is stale (the images mnist is not what it was made with" in capsys.readouterr().err
    finally:
        path.write_text(text)
