"""The closed form against the iterative solution of the same linear problem."""

import itertools
import math

import pytest
import torch
from test_linearised import networks

import mechsub as ms
from mechsub.measures import tangent_modes as modes

X = torch.randn(24, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
RATE = 0.05


@pytest.fixture(scope="module")
def problem():
    start, teacher = (model.double() for model in networks())
    aux, way = start.cfg.aux, ms.spectra.displacement(teacher, start)
    middle = start.replace({n: v + way[n] / 2 for n, v in start.named_parameters()})
    at = ms.tangent.tangent(middle, X, aux)
    return start, teacher, at, way, (teacher(X) - start(X))[..., aux]


def apart(a, b):
    own = {name: a[name] - b[name] for name in a}
    return float((ms.tangent.dot(own, own) / ms.tangent.dot(b, b)).sqrt().max())


def test_every_number_of_steps_is_that_of_gradient_descent(problem):
    start, _, at, _, residual = problem
    found = modes.tangent_modes(at, residual)
    kept = {1: None, 7: None, 200: None}
    single = [model.float() for model in (networks()[0], networks()[1])]
    ms.linearised_student(
        *single, X.float(), outputs=start.cfg.aux, loss="mse", optimizer="sgd", lr=RATE, batch_size=24, epochs=200,
        precision="fp32", snapshots=kept,
    )  # fmt: skip
    for steps, network in kept.items():
        iterated = ms.spectra.displacement(network, single[0])
        moved = {name: value.float() for name, value in modes.tangent_move(found, steps, RATE).items()}
        assert apart(moved, iterated) < 1e-3, steps


def test_the_divergence_has_its_own_curvature_and_scales_precondition(problem):
    """One step is rate P J' M r; in the end, J D = r where the loss sees it."""
    start, _, at, _, residual = problem
    p = start(X)[..., start.cfg.aux].softmax(-1)
    scales = modes.adam_scales(at, residual, batch_size=8)
    for given in (None, scales):
        found = modes.tangent_modes(at, residual, p, given)
        one = modes.tangent_move(found, 1, 1e-6)
        plain = ms.tangent.pull(at, ms.tangent.curved(p, residual) / len(X))
        wanted = {n: 1e-6 * v for n, v in modes._scaled(plain, given, at.outputs).items()}
        assert apart(one, wanted) < 1e-5
    end = ms.tangent.push(at, modes.tangent_move(modes.tangent_modes(at, residual, p), math.inf, RATE))
    assert torch.allclose(ms.tangent.curved(p, end), ms.tangent.curved(p, residual), atol=1e-6)


def test_a_way_within_the_row_space_is_identifiable_and_one_outside_is_not(problem):
    _, _, at, way, residual = problem
    found = modes.tangent_modes(at, residual)
    inside = ms.tangent.pull(at, torch.randn(residual.shape, generator=torch.Generator().manual_seed(1)).double())
    assert torch.allclose(modes.way_learned(found, inside, math.inf, RATE), torch.ones(2, dtype=torch.float64))
    part = modes.way_learned(found, way, math.inf, RATE)
    seen = modes.tangent_move(modes.tangent_modes(at, ms.tangent.push(at, way)), math.inf, RATE)
    assert torch.allclose(part, ms.tangent.dot(seen, way) / ms.tangent.dot(way, way))
    outside = {name: way[name] - seen[name] for name in way}
    assert float(modes.way_learned(found, outside, math.inf, RATE).abs().max()) < 1e-9 < 0.1 < float(part.min())
    learned = [modes.way_learned(found, way, steps, RATE) for steps in (0, 1, 10, 1000, math.inf)]
    assert float(learned[0].abs().max()) == 0
    assert all(bool((a < b).all()) for a, b in itertools.pairwise(learned))


def test_scales_of_a_gradient_that_is_a_product():
    """A second moment that is a product of rows and columns is recovered: one input, whole batches."""
    start, _ = (model.double() for model in networks(n_layers=1))
    at = ms.tangent.tangent(start, X[:1], start.cfg.aux)
    error = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    read, wrote = modes.adam_scales(at, error, batch_size=1)["blocks.0"]
    gradient = ms.tangent.pull(at, error)["blocks.0.W"]
    scaled = gradient * read[:, :-1, None] * wrote[:, None]
    assert torch.allclose(scaled.abs(), (gradient != 0).double())


def test_a_rate_that_diverges_is_refused(problem):
    *_, at, _, residual = problem
    with pytest.raises(ValueError, match="diverges; the largest is"):
        modes.tangent_move(modes.tangent_modes(at, residual), 10, 1e6)
