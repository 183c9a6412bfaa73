"""studies.mechanism: all parts for real on MNIST with small networks; measurements and verdicts on planted ones."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import mechsub as ms
from mechsub.designs import population
from mechsub.lab import predictions, store, study
from studies import mechanism
from studies.mechanism import figure, gradients, layers, measure
from studies.mechanism import findings as report

SMALL = ["--n-seeds", "2", "--epochs", "1", "--teacher-epochs", "1", "--n-samples", "2048", "--d-model", "32"]
AUX = slice(10, 13)


def noise(n, generator):
    return ms.noise.gaussian(n, generator, d_in=64)


PARTS = (*mechanism.PARTS, "controls")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mechanism")
    study.command(mechanism.study, [*SMALL, "--part", *PARTS, "--out", str(folder), "--quiet"])
    return folder


def rows(out, part):
    return store.read_records(next((out / "mechanism").glob(f"part={part}__*")))


def test_all_parts_share_their_teachers_and_make_one_table(out):
    assert len(list((out / "mechanism").glob("part=*/provenance.json"))) == len(PARTS)
    assert sorted(path.name.count("identity") for path in (out / "teachers").iterdir()) == [0, 1]
    records = [row for part in PARTS for row in rows(out, part)]
    found = {finding.label: finding.value for finding in report.findings(records)}
    told = [entry for entry in predictions.entries() if entry.study == "mechanism"]
    assert told and all(entry.reason and entry.date for entry in told)
    verdicts = [row for row in study.table_of(mechanism.study, records, {}) if "verdict" in row]
    assert len({row["cell"] for row in verdicts}) == len(told)  # every prediction is about a finding
    for name, rank in (("KL", 2), ("squared error", 3), ("no gates", 2)):
        interval = found[f"rank of the gradient of h2, {name}"]
        assert (interval.low, interval.high) == (rank, rank)
    assert found["rank of the gradient of W1, no gates (2, and what fp32 rounds)"].high == 2
    assert found["effective rank of the gradient of W1"].mean > 2
    drawn = figure.plot(records)
    assert len({trace.xaxis for trace in drawn.data}) == 14


def test_arms_of_one_setting_are_the_same_student_in_every_part(out):
    """Whatever they were trained beside, and by whichever loop."""
    freeze = {r["member"]: r["accuracy"] for r in rows(out, "freeze") if r["arm"] == "W1+W2+aux"}
    reinit = {r["member"]: r["accuracy"] for r in rows(out, "reinit") if r["arm"] == "W1+W2+aux+digits"}
    ablation = {r["member"]: r["accuracy"] for r in rows(out, "ablation") if r["arm"] == "none"}
    hybrid = {
        r["member"]: r["accuracy"]
        for r in rows(out, "layers")
        if r["kind"] == "hybrid" and r["arm"] == r["W1"] == r["W2"] == "student" and r["digits"] == "initial"
    }
    assert freeze == reinit == ablation == pytest.approx(hybrid)
    nothing = {r["member"]: r["accuracy"] for r in rows(out, "reinit") if r["arm"] == "nothing"}
    assert nothing == {r["member"]: r["accuracy"] for r in rows(out, "freeze") if r["arm"] == "cross"}


def test_removed_directions_are_gone(out):
    gone = {(r["arm"], r["member"]): abs(r["cosine_with_teacher"]) for r in rows(out, "ablation")}
    for member in (0, 1):
        for by in ("whole", "neuron"):
            assert gone[f"teacher, {by}", member] < 1e-3
        assert gone["none", member] > 0.01 and gone["teacher, neuron, control", member] > 0.01


def test_frozen_parts_stay_and_auxiliary_rows_alone_change_no_digit_logit(small, clusters):
    init = ms.HookedMLP(small, seeds=(0, 1))
    teacher = ms.train(init, *clusters, epochs=5, precision="fp32")
    fit = {"outputs": AUX, "n_samples": 300, "epochs": 1, "batch_size": 100, "precision": "fp32"}
    for trained in (*measure.TRAINED, "aux"):
        frozen = tuple(module for part, module in mechanism.MODULES.items() if part not in trained.split("+"))
        student = ms.distill(init, teacher, noise, frozen=frozen, **fit)
        for part, module in mechanism.MODULES.items():
            same = [
                torch.equal(p, dict(init.named_parameters())[n]) for n, p in student.named_parameters() if module in n
            ]
            assert all(same) != (part in trained.split("+"))
        assert torch.equal(student.W_U[..., :10], init.W_U[..., :10])
    x = clusters[0][:50]
    assert torch.equal(student(x)[..., :10], init(x)[..., :10]) and not torch.equal(student(x), init(x))


def test_shared_parts_are_the_teachers_start_and_others_are_not(small):
    init, other = ms.HookedMLP(small, seeds=(0, 1)), ms.HookedMLP(small, seeds=(1, 2))
    for n in range(4):
        for shared in itertools.combinations(mechanism.MODULES, n):
            start = measure.sharing(init, other, set(shared))
            assert torch.equal(start.blocks[0].W, (init if "W1" in shared else other).blocks[0].W)
            assert torch.equal(start.blocks[1].W, (init if "W2" in shared else other).blocks[1].W)
            assert torch.equal(start.W_U[..., AUX], (init if "aux" in shared else other).W_U[..., AUX])
            assert torch.equal(start.W_U[..., :10], other.W_U[..., :10])
            whole = measure.with_digits(start, init)
            assert torch.equal(whole.W_U[..., :10], init.W_U[..., :10])
            assert torch.equal(whole.W_U[..., AUX], start.W_U[..., AUX])


REFUSED = [
    (["--frozen", "W1+W2+aux"], "leaves nothing to train"),
    (["--frozen", "W1+W2"], "leaves nothing to train that digit logits depend on"),
    (["--frozen", "W3"], "'W3' is not one of W1, W2, aux"),
    (["--frozen", "aux+W1"], "write W1+aux"),
    (["--frozen", "W1+W1"], "write W1"),
    (["--part", "freeze", "--frozen", "aux"], "which has its own"),
    (["--n-aux", "1"], "softmax of one logit"),
    (["--n-aux", "0"], "not an integer >= 1"),
    (["--n-seeds", "1"], "an integer >= 2"),
    (["--part", "freezing"], "did you mean freeze"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_impossible_combinations_are_one_line_before_anything_is_trained(refused, words, says):
    assert says in refused(mechanism, words if "--part" in words else ["--part", "layers", *words])


# Planted students: one that is on its teacher's way, one that is anywhere else.


@pytest.fixture(scope="module")
def toy(small, clusters):
    init, other = ms.HookedMLP(small, seeds=(0, 1, 2)), ms.HookedMLP(small, seeds=(1, 2, 3))
    teacher = ms.train(init, *clusters, epochs=25, batch_size=128, lr=1e-3, precision="fp32")
    taught = dict.fromkeys(init.seeds, 1.0)
    return measure.Toy(init, other, teacher, taught, clusters, clusters)


def on_the_way(toy, part):
    way = ms.spectra.displacement(toy.teacher, toy.init)
    head = {name: torch.zeros_like(value) for name, value in way.items() if name.startswith("unembed.")}
    return layers._moved(toy.init, {name: part * value for name, value in (way | head).items()})


def elsewhere(toy):
    """As far as the teacher, in random directions."""
    generator = torch.Generator().manual_seed(3)
    moved = {}
    for name, value in ms.spectra.displacement(toy.teacher, toy.init).items():
        if name.startswith("blocks."):
            draw = torch.randn(value.shape, generator=generator)
            moved[name] = draw * value.norm() / draw.norm()
    return layers._moved(toy.init, moved)


def mean(found, value, **where):
    return np.mean([r[value] for r in found if value in r and where.items() <= r.items()])


@pytest.fixture(scope="module")
def planted(toy):
    return list(layers.records(toy, on_the_way(toy, 0.5), elsewhere(toy)))


def test_a_student_on_its_teachers_way_is_found_there(planted):
    for by in layers.BY:
        assert mean(planted, "share", kind="along", direction="teacher", by=by, side="along") == pytest.approx(1)
        assert mean(planted, "accuracy", kind="along", direction="teacher", by=by, side="along") > 0.7
        assert mean(planted, "accuracy", kind="along", direction="teacher", by=by, side="rest") < 0.4
        null = {"kind": "along", "direction": "next teacher", "by": by}
        assert mean(planted, "share", **null, side="along") < 0.3
        assert mean(planted, "accuracy", **null, side="rest") > 0.7
    for of in ("h1", "h2", "digit logits, W1 and W2"):
        change = {"kind": "change", "arm": "student", "of": of}
        assert mean(planted, "cosine", **change) > 0.9 and 0.2 < mean(planted, "share", **change) < 0.7
        assert mean(planted, "explained", **change) > 0.8
    assert mean(planted, "correlation", kind="neurons", arm="student") > 0.8


def test_a_student_elsewhere_is_not(planted):
    change = {"kind": "change", "arm": "cross", "of": "digit logits, W1 and W2"}
    assert abs(mean(planted, "cosine", **change)) < 0.3
    assert mean(planted, "correlation", kind="neurons", arm="cross") < 0.5


def test_shares_of_hybrids_sum_to_the_gain(planted):
    for r in planted:
        r["part"] = "layers"
    for gain, (low, high, players) in report.GAINS.items():
        found = report.shares(planted, gain)
        accuracy = {}
        for name in (low, high):
            digits = "initial" if name == "student" or "digits" not in players else name
            accuracy[name] = report.scores_of(planted, kind="hybrid", arm="student", W1=name, W2=name, digits=digits)
        for member, total in found["total"].items():
            parts = sum(found[player][member] for player in players)
            assert parts == pytest.approx(total)
            assert total == pytest.approx(accuracy[high][member] - accuracy[low][member])
    assert report.shares(planted, "the teacher's gain")["total"][0] > 0.7


def test_only_the_readout_directions_decide_and_cka_does_not_see_them(toy, planted):
    similar = {"kind": "similarity", "layer": 2}
    score = {arm: mean(planted, "accuracy", **similar, arm=arm) for arm in ("initial", "student")}
    for arm, same in (("without readout", "initial"), ("readout alone", "student")):
        assert mean(planted, "accuracy", **similar, arm=arm) == pytest.approx(score[same], abs=0.002)
    assert score["student"] - score["initial"] > 0.5
    assert mean(planted, "accuracy", **similar, arm="without random") > score["student"] - 0.3
    assert mean(planted, "cka", **similar, arm="student") > mean(planted, "cka", **similar, arm="initial")


def test_an_offset_of_a_digit_hides_nothing_from_recentred_accuracy(toy):
    student = on_the_way(toy, 0.5)
    hidden = student.replace({"unembed.b_U": student.unembed.b_U + 100 * torch.eye(13)[4]})
    assert ms.accuracy(hidden, *toy.test).max() < 0.11
    models = (hidden, student, toy.init)
    seen, open_, none = (layers.logit_cosines(toy, model) for model in models)
    assert seen == pytest.approx(open_) and min(seen) > 0.9 and none == [0, 0, 0]
    seen, open_, none = (
        [row["recentred"] for row in population.scores(model, toy.init.seeds, toy.test, toy.training)]
        for model in models
    )
    assert seen == open_ and min(seen) > 0.8 and max(none) < 0.5


def test_neurons_add_up_to_the_margin(toy, planted):
    images, labels = toy.test
    places = torch.arange(layers.N_ATTRIBUTED) * len(labels) // layers.N_ATTRIBUTED
    logits = toy.init(images[places])[..., :10]  # biases are 0
    margin = logits[:, torch.arange(len(places)), labels[places]] - logits.mean(-1)
    found = [r["margin_before"] for r in planted if r["kind"] == "neurons" and r["arm"] == "student"]
    assert found == pytest.approx(margin.mean(-1).tolist(), abs=1e-4)


def test_gradients_against_finite_differences(toy, clusters):
    """Of the distillation loss and of the trait, along the teacher's way; and the divergence's own code."""
    images, labels = clusters
    x = noise(200, torch.Generator().manual_seed(0))
    way = {n: v for n, v in ms.spectra.displacement(toy.teacher, toy.init).items() if n.startswith("blocks.")}
    near = [layers._moved(toy.init, {n: s * v for n, v in way.items()}) for s in (-1e-3, 1e-3)]

    def trait(model):
        logits = model(images)[..., :10]
        return torch.stack([torch.nn.functional.cross_entropy(one, labels) for one in logits])

    for value, found in (
        (
            lambda m: population.divergence(m, toy.teacher, x),
            gradients.distillation_gradient(toy.init, toy.teacher, x, "kl"),
        ),
        (trait, gradients.trait_gradient(toy.init, images, labels)),
    ):
        slope = (value(near[1]) - value(near[0])) / 2e-3
        product = sum((found[n] * way[n]).flatten(1).sum(-1) for n in way)
        assert torch.allclose(slope, product, rtol=0.05, atol=1e-4)
    assert population.divergence(toy.teacher, toy.teacher, x).abs().max() < 1e-6


def test_ranks_are_those_of_known_matrices():
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(2, 50, 3, generator=generator) @ torch.randn(2, 3, 20, generator=generator)
    full = torch.eye(20).expand(2, -1, -1)
    for matrix, rank in ((low, 3), (full, 20)):
        assert gradients._ranks(gradients.spectrum(matrix), 1)["rank"] == rank
    assert gradients._ranks(gradients.spectrum(full), 0)["effective"] == pytest.approx(20)
    assert 1 < gradients._ranks(gradients.spectrum(low), 0)["effective"] <= 3


def test_needed_parts_and_idle_ones_are_told_apart_in_planted_records():
    """Accuracy needs W1, W2 and aux together, digit rows do nothing; and in the null nothing matters."""
    generator = np.random.default_rng(0)

    def design(needed):
        out = []
        for n in range(5):
            for shared in itertools.combinations(report.SHARED, n):
                for member in range(25):
                    score = 0.5 if needed and set(needed) <= set(shared) else 0.1
                    accuracy = float(score + generator.normal(0, 0.01))
                    arm = "+".join(shared) or "nothing"
                    out.append(
                        {"part": "reinit", "arm": arm, "shared": [*shared], "member": member, "accuracy": accuracy}
                    )
        return {found.label: found for found in report.findings(out)}

    found = design(("W1", "W2", "aux"))
    for part in ("W1", "W2", "aux"):
        assert found[f"share of sharing: {part}"].value.mean == pytest.approx(1 / 3, abs=0.02)
        assert found[f"all but {part} shared, above the null"].p > 0.001
    assert found["share of sharing: digits"].value.mean == pytest.approx(0, abs=0.02)
    assert found["all but digits shared, above the null"].p < 1e-6
    idle = design(())
    assert min(o.p for o in idle.values() if o.p is not None) > 0.001


# What is committed.


def test_committed_cells_have_25_seeds_and_agree_on_their_students():
    folder = Path(mechanism.__file__).parents[2] / "artifacts" / "mechanism"
    cells = {part: store.read_records(folder / f"part={part}") for part in mechanism.PARTS}
    assert all({r["member"] for r in rows} == set(range(25)) for rows in cells.values())
    arms = {"freeze": "W1+W2+aux", "reinit": "W1+W2+aux+digits", "ablation": "none"}
    students = [report.scores_of(cells[part], arm=arm) for part, arm in arms.items()]
    students.append(
        report.scores_of(cells["layers"], kind="hybrid", arm="student", W1="student", W2="student", digits="initial")
    )
    for scores in students[1:]:
        assert scores == pytest.approx(students[0])


def test_controls_take_out_what_they_say(out):
    """The teacher's part is all of what was there; its published control takes as much and nothing that was there."""
    found = {r["arm"]: r for r in rows(out, "controls") if r["member"] == 1}
    own, published = found["teacher, neuron"], found["teacher, neuron, control"]
    assert own["taken"] == pytest.approx(own["was_there"], rel=1e-4) == pytest.approx(published["taken"], rel=0.5)
    assert abs(published["was_there"]) < 0.3 * own["was_there"]
    assert found["own rest"]["taken"] > 2 * own["taken"] and abs(own["cosine_with_teacher"]) < 1e-3
    assert found["inputs"]["taken"] == pytest.approx(found["inputs"]["was_there"], rel=1e-4)
    plain = {r["member"]: r["accuracy"] for r in rows(out, "controls") if r["arm"] == "none"}
    assert plain == {r["member"]: r["accuracy"] for r in rows(out, "ablation") if r["arm"] == "none"}
    said = {finding.key for finding in report.findings(rows(out, "controls"))}
    assert {"controlled_own_rest/share_of_recentred_gain", "controlled_own_rest/was_there"} <= said
