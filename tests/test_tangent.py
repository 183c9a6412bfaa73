import pytest
import torch
from conftest import generator
from torch.func import functional_call, jvp

import mechsub as ms
from mechsub.measures import spectra, tangent


@pytest.fixture(scope="module")
def reference():
    return ms.HookedMLP(ms.MLPConfig(d_in=16, d_model=12), seeds=(0, 1)).double()


@pytest.fixture(scope="module")
def teacher(reference):
    draw = generator(1)
    return reference.replace(
        {
            name: value + 0.05 * torch.randn(value.shape, generator=draw, dtype=value.dtype)
            for name, value in reference.named_parameters()
        }
    )


@pytest.fixture(scope="module")
def x():
    return torch.randn(40, 16, generator=generator(2), dtype=torch.float64)


def test_push_is_the_directional_derivative(reference, teacher, x):
    direction = spectra.displacement(teacher, reference)
    for outputs in (reference.cfg.aux, reference.cfg.digits):
        logits, expected = jvp(
            lambda at, some=outputs: functional_call(reference, at, (x,))[..., some],
            ({name: value.detach() for name, value in reference.named_parameters()},),
            (direction,),
        )
        at = tangent.tangent(reference, x, outputs)
        assert torch.allclose(at.logits, logits) and torch.allclose(tangent.push(at, direction), expected)


def test_pull_is_its_transpose(reference, teacher, x):
    """Also where every member has inputs of its own."""
    direction = spectra.displacement(teacher, reference)
    for inputs in (x, torch.stack([x, 2 * x])):
        at = tangent.tangent(reference, inputs, reference.cfg.aux)
        v = torch.randn(at.logits.shape, generator=generator(3), dtype=torch.float64)
        pulled = tangent.pull(at, v)
        assert pulled.keys() == direction.keys()
        expected = (v * tangent.push(at, direction)).flatten(1).sum(-1)
        assert torch.allclose(tangent.dot(pulled, direction), expected)


def test_descent_is_minus_the_gradient_of_the_divergence(reference, teacher, x):
    aux = reference.cfg.aux
    found = tangent.descent(tangent.tangent(reference, x, aux), teacher(x)[..., aux])
    parameters = {name: value.detach().requires_grad_() for name, value in reference.named_parameters()}
    student = functional_call(reference, parameters, (x,))[..., aux].log_softmax(-1)
    target = teacher(x)[..., aux].log_softmax(-1)
    loss = (target.exp() * (target - student)).sum(-1).mean(-1).sum()
    for (name, _), gradient in zip(
        parameters.items(), torch.autograd.grad(loss, list(parameters.values())), strict=True
    ):
        assert torch.allclose(found[name], -gradient, atol=1e-12), name


def quadratic(at, targets, direction):
    """Of the divergence around the start, less its value there: what least_squares minimises."""
    p = at.logits.softmax(-1)
    moved = tangent.push(at, direction)
    wanted = targets.softmax(-1) - p
    return ((moved * tangent.curved(p, moved)).sum(-1) / 2 - (moved * wanted).sum(-1)).mean(-1)


def test_least_squares_falls_to_the_minimum(reference, teacher, x):
    aux = reference.cfg.aux
    at, targets = tangent.tangent(reference, x, aux), teacher(x)[..., aux]
    values = torch.stack([quadratic(at, targets, tangent.least_squares(at, targets, k)) for k in (0, 1, 3, 8, 120)])
    assert (values[0] == 0).all() and (values.diff(dim=0) < 0).all()
    # 80 equations in 396 unknowns: at the minimum the linear change of probabilities is all that was wanted. Beyond 150
    # steps conjugate directions are rounding errors, and the error grows again.
    p = at.logits.softmax(-1)
    found = tangent.curved(p, tangent.push(at, tangent.least_squares(at, targets, 120)))
    assert torch.allclose(found, targets.softmax(-1) - p, atol=1e-5)
    first = tangent.least_squares(at, targets, 1)
    assert torch.allclose(tangent.cosine(first, tangent.descent(at, targets)), torch.ones(2, dtype=torch.float64))


def test_a_student_that_is_its_teacher_does_not_move(reference, x):
    aux = reference.cfg.aux
    at = tangent.tangent(reference, x, aux)
    still = tangent.least_squares(at, at.logits, 5)
    assert all((value == 0).all() for value in still.values())
    assert (tangent.cosine(still, dict(reference.named_parameters())) == 0).all()


def test_members_do_not_mix(reference, teacher, x):
    aux = reference.cfg.aux
    both = tangent.least_squares(tangent.tangent(reference, x, aux), teacher(x)[..., aux], 4)
    alone = tangent.least_squares(tangent.tangent(reference.select([1]), x, aux), teacher.select([1])(x)[..., aux], 4)
    assert all(torch.allclose(both[name][1], alone[name][0]) for name in alone)


def test_other_activations_are_refused(x):
    with pytest.raises(ValueError, match="gates are those of ReLU"):
        tangent.tangent(ms.HookedMLP(ms.MLPConfig(d_in=16, d_model=12, activation="tanh")), x.float(), slice(10, 13))


def test_inner_products_are_summed_in_the_order_of_the_first_direction():
    """Sums written out here. In the order of a set, which is another in every process, at most one of them is met."""
    draw, names = generator(), [f"blocks.{n}.W" for n in range(8)]
    a, b = ({name: torch.randn(1, 300, generator=draw) for name in names} for _ in range(2))
    seen = set()
    for k in range(8):
        order = names[k:] + names[:k]
        wanted = torch.zeros(1)
        for name in order:
            wanted = wanted + (a[name] * b[name]).sum(-1)
        first = {name: a[name] for name in order}
        assert tangent.dot(first, b).equal(wanted)
        lengths = tangent.dot(first, first) * tangent.dot({name: b[name] for name in order}, b)
        assert tangent.cosine(first, b).equal(wanted / lengths.sqrt())
        seen.add(float(wanted))
    assert len(seen) > 1
