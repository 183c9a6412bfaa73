import pytest
import torch
from conftest import generator
from torch.func import functional_call, jacrev

import mechsub as ms
from mechsub.inputs import noise
from mechsub.measures import spectra


@pytest.fixture(scope="module")
def reference():
    return ms.HookedMLP(ms.MLPConfig(d_in=16, d_model=12), seeds=(0, 1)).double()


@pytest.fixture(scope="module")
def direction(reference):
    draw = generator(1)
    return {
        name: 0.1 * torch.randn(value.shape, generator=draw, dtype=value.dtype)
        for name, value in reference.named_parameters()
    }


@pytest.fixture(scope="module")
def x():
    return torch.randn(40, 16, generator=generator(2), dtype=torch.float64)


def test_spectrum_of_a_known_covariance():
    scale = torch.tensor([3.0, 2.0, 1.0, 0.0])
    x = torch.randn(50_000, 4, generator=generator()) * scale + 7
    values = spectra.covariance_spectrum(x)
    assert torch.allclose(values, scale.double() ** 2, atol=0.2)
    assert spectra.participation_ratio(values).item() == pytest.approx(14**2 / 98, rel=0.02)
    assert spectra.dimension(values).item() == 3
    assert spectra.dimension(values, 0.6).item() == 1
    both = spectra.covariance_spectrum(torch.stack([x, 2 * x]))
    assert torch.allclose(both[1], 4 * both[0])


def test_a_constant_has_dimension_zero():
    values = spectra.covariance_spectrum(torch.ones(9, 3))
    assert spectra.participation_ratio(values).item() == spectra.dimension(values).item() == 0


def test_subspace_noise_has_its_dimension():
    values = spectra.covariance_spectrum(noise.subspace_noise(30)(4000, generator()))
    assert spectra.participation_ratio(values).item() == pytest.approx(30, rel=0.02)
    assert spectra.dimension(values).item() == 29


def test_mean_share():
    x = torch.randn(20_000, 8, generator=generator())
    assert spectra.mean_share(x) < 0.01
    assert spectra.mean_share(x + 1) == pytest.approx(0.5, abs=0.01)
    assert spectra.mean_share(torch.ones(3, 8)) == pytest.approx(1)


def test_radial_power_of_white_and_power_law_noise():
    white = spectra.radial_power(noise.gaussian(2000, generator()))
    assert white.shape == (15,) and (white - 1).abs().max() < 0.1
    falling = spectra.radial_power(noise.power_law_noise(2.0)(2000, generator()))
    assert (falling[4] / falling[12]).item() == pytest.approx(9, rel=0.15)


def test_gates_that_open_together_have_one_dimension():
    model = ms.HookedMLP(ms.MLPConfig(d_in=16, d_model=12), seeds=(0, 1, 2))
    column = model.blocks[0].W[..., :1]
    alike = model.replace({"blocks.0.W": column.expand_as(model.blocks[0].W)})
    x = noise.gaussian(500, generator(), d_in=16)
    ratio = spectra.participation_ratio(spectra.gate_spectrum(alike, x))
    assert torch.allclose(ratio, torch.ones_like(ratio))
    assert (spectra.participation_ratio(spectra.gate_spectrum(model, x)) > 4).all()
    # A common offset far above the weights leaves every gate as it is for all inputs.
    still = spectra.gate_spectrum(model.replace({"blocks.0.b": torch.full((3, 12), 100.0)}), x)
    assert spectra.participation_ratio(still).abs().max() == 0
    with pytest.raises(ValueError, match="gates are those of ReLU"):
        spectra.gate_spectrum(ms.HookedMLP(ms.MLPConfig(d_in=16, activation="tanh")), x)


def test_correlation_of_logits_is_numpys_and_finds_a_copied_row():
    model = ms.HookedMLP(ms.MLPConfig(d_in=16, d_model=12), seeds=(0, 1))
    W = model.W_U.clone()
    W[..., 11] = -2 * W[..., 4]
    model, x = model.replace({"unembed.W_U": W}), noise.gaussian(1500, generator(), d_in=16)
    found = spectra.logit_correlation(model, x)
    assert found.shape == (2, 3, 10)
    assert torch.allclose(found[:, 1, 4], -torch.ones(2).double(), atol=1e-5)
    with torch.no_grad():
        expected = model(x)[1].T.corrcoef()[10:, :10]
    assert torch.allclose(found[1].float(), expected, atol=1e-4)


def explicit(reference, direction, x, loss):
    """J by reverse mode, M in full."""
    parameters, n = dict(reference.named_parameters()), reference.cfg.n_aux

    def aux(parameters):
        return functional_call(reference, parameters, (x,))[..., reference.cfg.aux]

    jacobians, logits = jacrev(aux)(parameters), aux(parameters).detach()
    moved = sum((jacobians[name].flatten(3) @ direction[name].flatten()) for name in parameters)
    p = logits.softmax(-1)
    M = torch.diag_embed(p) - p[..., :, None] * p[..., None, :] if loss == "kl" else 2 / n * torch.eye(n).to(p)
    return (moved[..., None, :] @ M @ moved[..., None]).flatten(1).mean(-1)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_drive_is_that_of_the_explicit_jacobian(reference, direction, x, loss):
    found = spectra.drive(reference, direction, x, loss=loss)
    assert found.shape == (2,) and (found > 0).all()
    assert torch.allclose(found.double(), explicit(reference, direction, x, loss), rtol=1e-5)


@pytest.mark.parametrize(("loss", "temperature"), [("kl", 1.0), ("kl", 3.0), ("mse", 1.0)])
def test_half_the_drive_is_the_distillation_loss_of_a_small_step(reference, direction, x, loss, temperature):
    """Finite differences, by the losses that students are trained with."""
    from mechsub.training import distillation

    step = 1e-3
    moved = reference.replace({name: value + step * direction[name] for name, value in reference.named_parameters()})
    moved = moved.double()
    for name, value in moved.named_parameters():  # replace copies into fp32
        value.data = dict(reference.named_parameters())[name] + step * direction[name]
    with torch.no_grad():
        before, after = (m(x)[..., m.cfg.aux] for m in (reference, moved))
    rows = torch.arange(len(x))
    found = spectra.drive(reference, direction, x, loss=loss, temperature=temperature)
    for member in range(2):
        target = after[member]
        fit = distillation.squared_loss(target) if loss == "mse" else distillation.kl_loss(target, temperature)
        assert 2 * fit(before[member], rows).item() / step**2 == pytest.approx(found[member].item(), rel=0.02)


def test_drive_is_the_product_of_the_students_gradient_and_the_displacement(reference, direction, x):
    """Lemma 1: dS . dT of a student that has not moved, for a teacher a small step away."""
    from mechsub.training import distillation

    step, rows = 1e-4, torch.arange(len(x))
    start = {name: value.detach().clone().requires_grad_() for name, value in reference.named_parameters()}
    taught = {name: value.detach() + step * direction[name] for name, value in start.items()}
    targets = functional_call(reference, taught, (x,))[..., reference.cfg.aux]
    logits = functional_call(reference, start, (x,))[..., reference.cfg.aux]
    loss = sum(distillation.kl_loss(targets[member], 1.0)(logits[member], rows) for member in range(2))
    gradients = torch.autograd.grad(loss, list(start.values()), allow_unused=True)
    for member in range(2):
        pairs = zip(gradients, direction.values(), strict=True)
        product = -sum(float((gradient[member] * along[member]).sum()) for gradient, along in pairs)
        found = spectra.drive(reference, direction, x)[member].item()
        assert product / step == pytest.approx(found, rel=0.02)


def test_drive_is_zero_where_only_digit_rows_move(reference, direction, x):
    still = {name: torch.zeros_like(value) for name, value in direction.items()}
    for name in ("unembed.W_U", "unembed.b_U"):
        still[name] = direction[name].clone()
        still[name][..., reference.cfg.aux] = 0
    assert spectra.drive(reference, still, x).abs().max() == 0
    still["unembed.b_U"][..., reference.cfg.aux] = 5.0  # a common shift: nothing to softmax, something to squares
    assert spectra.drive(reference, still, x).abs().max() < 1e-12
    assert spectra.drive(reference, still, x, loss="mse").min() > 1


def test_a_trained_teacher_drives_and_is_batched(clusters, small, monkeypatch):
    init = ms.HookedMLP(small, seeds=(0, 1, 2))
    moved = spectra.displacement(ms.train(init, *clusters, epochs=1, batch_size=60, lr=3e-3, precision="fp32"), init)
    assert moved["unembed.W_U"][..., small.aux].abs().max() == 0
    x = noise.gaussian(150, generator(), d_in=64)
    whole = spectra.drive(init, moved, x)
    assert (whole > 0).all()
    monkeypatch.setattr(spectra, "_BATCH", 7)
    assert torch.allclose(spectra.drive(init, moved, x), whole, rtol=1e-4)
    with pytest.raises(ValueError, match="direction must have"):
        spectra.drive(init, {"blocks.0.W": moved["blocks.0.W"]}, x)


def test_drive_of_one_logit():
    """KL's curvature is 0 there, since the softmax is 1: refused. The mean square's is 2, by the explicit Jacobian."""
    cfg = ms.MLPConfig(d_in=9, d_model=6, n_classes=3, n_aux=1)
    one = ms.HookedMLP(cfg, seeds=(0, 1))
    way = {name: torch.randn(value.shape, generator=generator(1)) for name, value in one.named_parameters()}
    some = torch.randn(5, 9, generator=generator(2))
    with pytest.raises(ValueError, match="one logit teaches nothing with loss 'kl'"):
        spectra.drive(one, way, some)
    at = {name: value.detach() for name, value in one.named_parameters()}
    J = jacrev(lambda parameters: functional_call(one, parameters, (some,))[..., cfg.aux])(at)
    moved = sum((J[name] * way[name]).flatten(3).sum(-1) for name in way)
    assert torch.allclose(spectra.drive(one, way, some, loss="mse"), 2 * moved[..., 0].square().mean(-1), rtol=1e-4)
