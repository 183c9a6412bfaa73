"""studies.conditions, for real on MNIST with two seeds and narrow networks; verdicts on planted scores."""

import dataclasses

import numpy as np
import pytest
import torch

import mechsub as ms
from mechsub.designs import population
from mechsub.inputs import noise
from mechsub.lab import store, study
from mechsub.training import conv
from studies import conditions

SMALL = ["--n-seeds", "2", "--d-model", "16", "--teacher-epochs", "1", "--epochs", "2", "--n-samples", "1000"]


def run(out, *words, small=SMALL):
    command = [*small, *words, "--out", str(out)]
    study.command(conditions.study, command)


def records(out, **wanted):
    cells = (out / "conditions").glob("*/provenance.json")
    rows = [row for path in cells for row in store.read_records(path.parent)]
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A narrow channel, and one wider than the hidden state at a step size that learns it."""
    folder = tmp_path_factory.mktemp("conditions")
    run(folder, "--n-aux", "3")
    run(folder, "--n-aux", "48", "--lr", "0.003", "--batch-size", "32", "--n-samples", "3000", small=SMALL[:-2])
    return folder


def test_a_wide_channel_and_a_shared_start_teach_and_nothing_shared_does_not(out):
    found = {(r["arm"], r["member"]): r["accuracy"] for r in records(out, n_aux=48, last=True)}
    assert {arm for arm, _ in found} == set(conditions.TITLES)
    for member in (0, 1):
        assert found["all", member] > found["nothing", member] + 0.1
        assert found["nothing", member] < 0.25
        # 48 rows read every direction of 16 neurons.
        assert found["projected", member] == pytest.approx(found["teacher_body", member], abs=2e-3)


def test_a_narrow_channel_reads_less(out):
    found = {(r["arm"], r["member"]): r["accuracy"] for r in records(out, n_aux=3)}
    assert all(found["projected", member] < found["teacher_body", member] - 0.1 for member in (0, 1))


def test_rows_say_when_and_how_well(out):
    ends = [r for r in records(out, n_aux=3, last=True) if r["steps"]]
    assert {r["steps"] for r in records(out, n_aux=3)} == {0, 1, 2, 8} and {r["steps"] for r in ends} == {8}
    for r in ends:
        assert -1 <= r["cosine"] <= 1 and 0 <= r["under_teacher_head"] <= 1
        assert r["explained_on_noise"] <= 1 and r["explained_on_digits"] <= 1
    fit = {(r["arm"], r["member"]): r["explained_on_noise"] for r in ends}
    assert all(fit["all", member] > max(0.5, fit["nothing", member]) for member in (0, 1))


def test_students_are_those_of_distill(out):
    cfg = conditions.Config(n_aux=3, d_model=16, n_seeds=2, n_samples=1000, epochs=2)
    init = ms.HookedMLP(ms.MLPConfig(d_model=16, n_aux=3), seeds=(0, 1))
    teacher = ms.train(init, *ms.mnist("train"), epochs=1)
    student = ms.distill(
        init, teacher, noise.uniform, outputs=init.cfg.aux, n_samples=1000, epochs=2, loss="mse", lr=1e-3,
        batch_size=256,
    )  # fmt: skip
    found = {r["member"]: r["accuracy"] for r in records(out, n_aux=3, arm="all", last=True)}
    assert found == pytest.approx(dict(enumerate(ms.accuracy(student, *ms.mnist("test")).tolist())), abs=2e-4)
    # No loss reads the digit head: one student stands for all digit heads.
    starts = conditions._starts(cfg, init)
    swapped = starts["aux"].replace(conditions._rows(starts["aux"], init, init.cfg.digits))
    bodies = conditions._fitted(cfg, {"own": starts["aux"], "shared": swapped}, teacher, 1, {})
    assert all(torch.equal(a, b) for a, b in zip(*(s.blocks.parameters() for s in bodies.values()), strict=True))


def test_starts_share_what_they_say_and_nothing_else():
    cfg = conditions.Config(n_aux=5, d_model=16, n_seeds=2)
    init = ms.HookedMLP(ms.MLPConfig(d_model=16, n_aux=5), seeds=(3, 4))
    own, digits, aux = ms.HookedMLP(init.cfg, seeds=(4, 5)), init.cfg.digits, init.cfg.aux
    for name, start in conditions._starts(cfg, init).items():
        shared = conditions.BODIES[name]
        assert torch.equal(start.blocks[0].W, (init if "hidden" in shared else own).blocks[0].W)
        assert torch.equal(start.W_U[..., aux], (init if "aux" in shared else own).W_U[..., aux])
        assert not torch.equal(start.W_U[..., aux], (own if "aux" in shared else init).W_U[..., aux])
        assert torch.equal(start.W_U[..., digits], (init if "hidden" in shared else own).W_U[..., digits])


@pytest.mark.parametrize("kind", ["shallower", "deeper", "narrower", "wider", "convolutional"])
def test_students_of_another_architecture_share_the_rows_of_common_neurons(kind):
    cfg = conditions.Config(n_aux=5, d_model=16, n_seeds=2, student=kind, arms="heads")
    init = ms.HookedMLP(ms.MLPConfig(d_model=16, n_aux=5), seeds=(3, 4))
    starts, aux = conditions._starts(cfg, init), init.cfg.aux
    assert set(starts) == {"aux", "nothing"}
    n = min(16, starts["aux"].cfg.d_model)
    assert torch.equal(starts["aux"].W_U[:, :n, aux], init.W_U[:, :n, aux])
    assert torch.equal(starts["aux"].W_U[:, n:], starts["nothing"].W_U[:, n:])
    shape = {"shallower": (1, 16), "deeper": (3, 16), "narrower": (2, 8), "wider": (2, 32), "convolutional": (3, 16)}
    assert (starts["aux"].cfg.n_layers, starts["aux"].cfg.d_model) == shape[kind]


@pytest.mark.parametrize("words", [["--student", "convolutional"], ["--perturbation", "0.5", "--perturbed", "halfway"]])
def test_other_cells_run(tmp_path, monkeypatch, words):
    monkeypatch.setattr(conditions, "PARTS_OF_LENGTH", (1.0,))  # scoring takes most of the time
    run(tmp_path, "--n-aux", "3", "--arms", "heads", "--freeze-heads", "true", *words)
    arms = {r["arm"] for r in records(tmp_path)}
    assert arms == {"heads", "aux", "digits", "nothing", "projected", "teacher", "teacher_body"}


def test_the_convolutional_student_is_hooked_and_learns_what_it_is_shown():
    init = ms.HookedMLP(ms.MLPConfig(d_model=16, n_aux=4), seeds=(0, 1))
    net = conv.ConvNet(init.cfg, (1, 2))
    assert torch.equal(conv.ConvNet(init.cfg, (2,)).blocks[0].W[0], net.blocks[0].W[1])
    x = noise.uniform(50, torch.Generator().manual_seed(0))
    cache = ms.cache_activations(net, x)
    assert [v.shape[-1] for v in cache.values()] == [8 * 14 * 14, 16 * 7 * 7, 16]
    member = {name: value[1] for name, value in net.named_parameters()}
    assert torch.allclose(net(x)[1], conv._logits(member, x, slice(0, 14)), atol=1e-5)
    for frozen in ((), ("unembed",)):
        taught = conv.distill_each(
            {"a": net}, init, n_samples=512, loss="mse", epochs=4, lr=3e-3, batch_size=64, frozen=frozen, seed=0,
            snapshots={"a": {}},
        )["a"]  # fmt: skip
        wanted = init(x)[..., init.cfg.aux]
        before, after = ((model(x)[..., init.cfg.aux] - wanted).square().mean((1, 2)) for model in (net, taught))
        assert (after < 0.8 * before).all()
        assert torch.equal(taught.W_U, net.W_U) == bool(frozen)
        assert torch.equal(taught.W_U[..., :10], net.W_U[..., :10]) and not torch.equal(
            taught.blocks[0].W, net.blocks[0].W
        )


def test_perturbed_heads_are_off_by_the_stated_share():
    cfg = conditions.Config(n_aux=5, d_model=16, n_seeds=2, perturbation=0.5)
    model = ms.HookedMLP(ms.MLPConfig(d_model=16, n_aux=5), seeds=(3, 4))
    moved = conditions._displaced(cfg, model).W_U - model.W_U
    aux, digits = model.cfg.aux, model.cfg.digits
    sizes = moved[..., aux].flatten(1).norm(dim=1) / model.W_U[..., aux].flatten(1).norm(dim=1)
    assert torch.allclose(sizes, torch.full((2,), 0.5), atol=1e-5) and not moved[..., digits].any()
    assert conditions._displaced(cfg, model, "halfway") is model


def test_projections():
    W = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))
    for centred, rank in ((False, 5), (True, 4)):
        P = population.projection(W, centred=centred)
        assert torch.allclose(P @ P, P, atol=1e-5)
        assert P.diagonal(0, 1, 2).sum(-1).tolist() == pytest.approx([rank, rank], abs=1e-4)
    assert torch.allclose(population.projection(W, centred=False) @ W, W, atol=1e-5)
    assert not population.projection(torch.ones(1, 12, 5), centred=True).any()


REFUSED = [
    (["--n-aux", "0"], "not an integer >= 1"),
    (["--n-aux", "1", "--loss", "kl"], "softmax of one logit"),
    (["--n-seeds", "1"], "an integer >= 2"),
    (["--student", "deeper"], "use --arms heads"),
    (["--student", "recurrent"], "not one of same"),
    (["--student", "shallower", "--n-layers", "1", "--arms", "heads"], "no hidden layer left"),
    (["--student", "narrower", "--d-model", "1", "--arms", "heads"], "no neuron left"),
    (["--perturbed", "halfway", "--epochs", "1"], "--epochs 2"),
    (["--perturbation", "-1"], "finite number >= 0"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_impossible_combinations_are_one_line_before_anything_is_trained(refused, words, says):
    assert says in refused(conditions, words)


def planted(n=20, **means):
    """Records of one cell with these mean accuracies by arm."""
    defaults = dataclasses.asdict(conditions.Config())
    draws = np.random.default_rng(0)
    return [
        {**defaults, "arm": arm, "member": i, "steps": 395, "last": True}
        | dict.fromkeys(conditions.ACCURACIES, float(draws.normal(mean, 0.02)))
        for arm, mean in means.items()
        for i in range(n)
    ]


@pytest.mark.parametrize(("heads", "verdict"), [(0.1, "hit"), (0.6, "miss")])
def test_predictions_are_judged_on_planted_scores(heads, verdict):
    rows = planted(nothing=0.1, heads=heads)
    told = [row for row in study.table_of(conditions.study, rows, {}) if "verdict" in row]
    assert [(row["verdict"], row["predicted"]) for row in told] == [(verdict, "none")]  # that of n_aux = 3
    assert told[0]["cell"] == "prediction: nothing to heads/accuracy (n_aux=3, student=same)"
    assert not [row for row in study.table_of(conditions.study, planted(nothing=0.1, all=0.5), {}) if "verdict" in row]


def test_figures():
    rows = planted(nothing=0.1, heads=0.4)
    assert conditions.plot(rows).layout.showlegend is False
    more = [r | {"n_aux": 50} for r in rows]
    assert conditions.plot(rows + more).layout.xaxis.type == "log"


def test_one_member_is_the_same_in_any_ensemble():
    cfg = conditions.Config(n_aux=3, d_model=16, n_seeds=2, student="convolutional", arms="heads", n_samples=300)
    init = ms.HookedMLP(ms.MLPConfig(d_model=16, n_aux=3), seeds=(0, 1))
    both = conditions._fitted(cfg, conditions._starts(cfg, init), init, 1, {"aux": {}, "nothing": {}})
    one = conditions._fitted(
        cfg, conditions._starts(cfg, init.select([1])), init.select([1]), 1, {"aux": {}, "nothing": {}}
    )
    assert torch.allclose(both["aux"].blocks[0].W[1], one["aux"].blocks[0].W[0], atol=1e-6)
