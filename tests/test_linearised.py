"""The student of the linearised problem, against the one that is trained where both must agree."""

import pytest
import torch
from torch.func import functional_call, jvp

import mechsub as ms
from mechsub.models.mlp import ACTIVATIONS
from mechsub.training import linearised
from mechsub.training.fitting import member_parameters

X = torch.randn(120, 12, generator=torch.Generator().manual_seed(0))
FIT = {"epochs": 3, "batch_size": 32, "precision": "fp32"}


def networks(**shape):
    start = ms.HookedMLP(ms.MLPConfig(d_in=12, d_model=8, n_classes=3, n_aux=3, **shape), seeds=(0, 1))
    draw = torch.Generator().manual_seed(1)
    moved = {n: v + 0.2 * torch.randn(v.shape, generator=draw) for n, v in start.named_parameters()}
    return start, start.replace(moved)


def apart(a, b, since):
    """Distance of two networks, relative to how far the second is from its start."""
    own, far = ms.spectra.displacement(a, b), ms.spectra.displacement(b, since)
    return float((ms.tangent.dot(own, own) / ms.tangent.dot(far, far)).sqrt().max())


def both(start, teacher, at="start", **options):
    given = {"outputs": start.cfg.aux, **FIT, **options}
    return ms.linearised_student(start, teacher, X, at=at, **given), ms.distill(start, teacher, X, **given)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "kl", "lr": 0.01},
        {"loss": "mse", "optimizer": "sgd", "lr": 0.05, "schedule": "cosine"},
        {"loss": "hard", "optimizer": "sign_sgd", "lr": 1e-3, "temperature": 2.0, "target_noise": 0.1},
        {"loss": "mse", "lr": 0.01, "weight_decay": 0.1},
    ],
)
def test_a_student_that_is_linear_is_the_same(options):
    """Only its head is trained: logits are linear in it, and every option of distillation means the same."""
    for at in ("start", "midpoint"):
        predicted, student = both(*networks(), at=at, frozen=["blocks"], **options)
        assert apart(predicted, student, networks()[0]) < 1e-4


def test_a_linear_network_of_one_layer_is_the_same():
    start, teacher = networks(n_layers=1, activation="identity")
    predicted, student = both(start, teacher, at="midpoint", frozen=["unembed"], lr=0.01)
    assert apart(predicted, student, start) < 1e-4


def test_small_steps_are_those_of_the_student():
    """The difference is of second order: it falls with the rate, relative to the way itself."""
    start, teacher = networks(activation="tanh")
    errors = [apart(*both(start, teacher, optimizer="sgd", loss="mse", lr=lr), start) for lr in (0.3, 0.03, 0.003)]
    assert errors[0] > 4 * errors[1] > 16 * errors[2] and errors[2] < 0.01


def test_nothing_is_predicted_of_a_teacher_that_learned_nothing():
    start, _ = networks()
    predicted = ms.linearised_student(start, start, X, outputs=start.cfg.aux, loss="mse", optimizer="sgd", **FIT)
    assert all(torch.equal(v, dict(start.named_parameters())[n]) for n, v in predicted.named_parameters())


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("n_layers", [1, 3])
def test_its_logits_are_the_tangent(activation, n_layers):
    start, teacher = networks(activation=activation, n_layers=n_layers)
    own, point = member_parameters(start)[1], member_parameters(teacher)[1]
    line = linearised.linear(own, point, X, slice(3, 6), ACTIVATIONS[activation])
    moves = {n: torch.randn(v.shape, generator=torch.Generator().manual_seed(2)) for n, v in own.items()}
    rows = torch.arange(5, 40)
    found = linearised.linear_logits(line, moves, X[rows], rows, slice(3, 6))
    at = {n: v[None] for n, v in point.items()}
    one = teacher.select([1])
    _, pushed = jvp(lambda p: functional_call(one, p, (X[rows],)), (at,), ({n: v[None] for n, v in moves.items()},))
    assert torch.allclose(found, start(X)[1, rows, 3:] + pushed[0, :, 3:], atol=1e-3)


def test_midpoint_a_network_halfway_and_snapshots():
    start, teacher = networks()
    given = {"outputs": start.cfg.aux, **FIT}
    way = ms.spectra.displacement(teacher, start)
    halfway = start.replace({n: v + way[n] / 2 for n, v in start.named_parameters()})
    kept = {0: None, 3: None, 12: None}
    a = ms.linearised_student(start, teacher, X, snapshots=kept, **given)
    b = ms.linearised_student(start, teacher, X, at=halfway, **given)
    assert apart(a, b, start) < 1e-3
    for step, same in ((0, start), (12, a)):
        assert all(torch.equal(v, dict(same.named_parameters())[n]) for n, v in kept[step].named_parameters())
    assert 0 < apart(kept[3], start, teacher) < apart(a, start, teacher)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("at", ["start", "midpoint"])
def test_with_a_stage_for_every_step_it_is_the_student(at, fresh):
    """Linearised anew at each step, the gradient at "start" is the network's own; halfway to the teacher it is not."""
    start, teacher = networks(activation="tanh", n_layers=2)
    given = {"outputs": start.cfg.aux, **FIT, "lr": 0.01, "fresh": fresh, "n_samples": 120}
    inputs = lambda n, generator: torch.randn(n, 12, generator=generator)  # noqa: E731
    staged = ms.linearised_student(start, teacher, inputs, at=at, relinearised=range(1, 12), **given)
    once = ms.linearised_student(start, teacher, inputs, at=at, **given)
    student = ms.distill(start, teacher, inputs, **given)
    errors = apart(staged, student, start), apart(once, student, start)
    assert errors[0] < 1e-3 < errors[1] if at == "start" else 1e-3 < errors[0]


def test_stages_come_nearer_to_the_student():
    start, teacher = networks(activation="tanh")
    given = {"outputs": start.cfg.aux, **FIT, "lr": 0.03}
    student = ms.distill(start, teacher, X, **given)
    errors = [
        apart(ms.linearised_student(start, teacher, X, at="start", relinearised=steps, **given), student, start)
        for steps in ((), (6,), (3, 6, 9))
    ]
    assert errors[0] > errors[1] > errors[2]


def test_a_network_for_each_stage():
    """Where the stages' own networks are those that "start" takes, both are the same; quarters are a mean."""
    start, teacher = networks()
    given = {"outputs": start.cfg.aux, **FIT}
    kept = {6: None}
    a = ms.linearised_student(start, teacher, X, at="start", relinearised=[6], snapshots=kept, **given)
    b = ms.linearised_student(start, teacher, X, at=[start, kept[6]], relinearised=[6], **given)
    assert apart(a, b, start) < 1e-4
    alone = ms.linearised_student(start.select([1]), teacher.select([1]), X, at="start", relinearised=[6], **given)
    assert torch.equal(alone.blocks[0].W[0], a.blocks[0].W[1])
    shut = dict.fromkeys(("quarters", "midpoint"))
    for at in shut:
        shut[at] = ms.linearised_student(start, teacher, X, at=at, frozen=["blocks"], **given)
    assert apart(shut["quarters"], shut["midpoint"], start) < 1e-4  # hidden layers stay: one Jacobian everywhere
    assert apart(ms.linearised_student(start, teacher, X, at="quarters", **given), a, start) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relinearised": [12]}, "relinearised must be steps between 1 and 11, not 12"),
        ({"relinearised": [4, 2]}, "in increasing order"),
        ({"relinearised": [3, 3]}, "in increasing order"),
        ({"relinearised": [0]}, "a step of relinearised must be"),
        ({"relinearised": [3], "at": networks()[1]}, "at must have a network for each of the 2 stages, not 1"),
        ({"at": []}, "at must hold at least 1"),
    ],
)
def test_stages_that_are_none(options, message):
    start, teacher = networks()
    with pytest.raises(ValueError, match=message):
        ms.linearised_student(start, teacher, X, outputs=start.cfg.aux, **FIT, **options)


def test_members_are_independent_and_bf16_is_near():
    start, teacher = networks()
    given = {"outputs": start.cfg.aux, **FIT}
    both_members = ms.linearised_student(start, teacher, X, **given)
    alone = ms.linearised_student(start.select([1]), teacher.select([1]), X, **given)
    assert torch.equal(alone.blocks[0].W[0], both_members.blocks[0].W[1])
    low = ms.linearised_student(start, teacher, X, **given | {"precision": "bf16"})
    assert apart(low, both_members, start) < 0.3


def test_what_cannot_be_linearised_is_refused():
    start, teacher = networks()
    other = networks(activation="tanh")[1]
    with pytest.raises(ValueError, match="start and teacher must have the same shape"):
        ms.linearised_student(start, other, X, outputs=start.cfg.aux)
    with pytest.raises(ValueError, match="start and at must have the same shape"):
        ms.linearised_student(start, teacher, X, outputs=start.cfg.aux, at=other)
