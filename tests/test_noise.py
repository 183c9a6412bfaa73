import pytest
import torch
from conftest import generator

from mechsub.inputs import noise


def test_uniform_is_uniform_and_exact_in_bf16():
    x = noise.uniform(500, generator())
    assert x.shape == (500, 784)
    assert (x.min().item(), x.max().item()) == (-255 / 256, 255 / 256)
    assert torch.equal(x, x.bfloat16().float())
    counts = ((x * 256 + 255) / 2).long().flatten().bincount(minlength=256).double()
    chi2 = ((counts - counts.mean()).square() / counts.mean()).sum().item()
    assert 255 - 4 * 510**0.5 < chi2 < 255 + 4 * 510**0.5
    assert x.var().item() == pytest.approx(1 / 3, abs=0.003)


def test_neighbouring_pixels_are_independent():
    x = noise.uniform(2000, generator(1), d_in=16)
    off = x.T.corrcoef() - torch.eye(16)
    assert off.abs().max().item() < 5 / 2000**0.5


@pytest.mark.parametrize("sampler", [noise.uniform, noise.gaussian])
def test_draws_depend_on_the_generator_alone(sampler):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(sampler(3, generator(5)), sampler(3, generator(5)))
    assert not torch.equal(sampler(3, generator(5)), sampler(3, generator(6)))
    assert torch.equal(torch.get_rng_state(), before)


STD = noise.STD


def pictures(n=400, side=28, seed=3):
    """Not noise: a bright blob at a random place on a background of -1, never in the outermost pixels."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    at = torch.randint(side // 3, side - side // 3, (n, 2, 1, 1), generator=generator(seed))
    blob = torch.exp(-((y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2) / 8)
    return (blob.where(blob > 0.05, 0) * 2 - 1).flatten(1)


def mean_power(x):
    return torch.fft.fft2(x.view(-1, 28, 28)).abs().square().mean(0)


SAMPLERS = {
    "bernoulli": noise.bernoulli,
    "blurred": noise.blurred_noise(1.5),
    "power law": noise.power_law_noise(2),
    "subspace": noise.subspace_noise(20),
    "perlin": noise.perlin_noise(4),
    "covariance matched": noise.covariance_matched_noise(pictures()),
    "spectrum matched": noise.spectrum_matched_noise(pictures()),
    "phase scrambled": noise.phase_scrambled(pictures()),
    "shuffled": noise.shuffled_pixels(pictures()),
    "resampled": noise.resampled(pictures()),
    "mixed": noise.mixed(pictures(), noise.gaussian, 0.3),
    "mixed at moments": noise.mixed_at_moments(pictures(), noise.gaussian, 0.3),
}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_every_sampler_depends_on_its_generator_alone(sampler):
    before = torch.get_rng_state()
    draws = [sampler(5, generator(seed)) for seed in (5, 5, 6)]
    assert draws[0].shape == (5, 784) and draws[0].dtype == torch.float32 and draws[0].isfinite().all()
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "sampler",
    [
        *(noise.blurred_noise(0), noise.blurred_noise(2), noise.blurred_noise(6), noise.power_law_noise(3)),
        *(noise.perlin_noise(2), noise.perlin_noise(7)),
    ],
)
def test_filtered_noise_has_the_stated_variance_at_every_pixel(sampler):
    x = sampler(4000, generator())
    assert x.var(0).mean().item() == pytest.approx(1 / 3, rel=0.05)
    assert x.var(0).sub(1 / 3).abs().max().item() < 1 / 3 * 5 * (2 / 4000) ** 0.5
    assert x.mean(0).abs().max().item() < 5 * STD / 4000**0.5


def test_blur_is_the_blur_of_pixels_and_zero_blur_is_white():
    dot = torch.zeros(1, 28, 28)
    dot[0, 14, 14] = 1.0
    spread = noise.blurred(dot.flatten(1), 2.0).view(28, 28)
    away = torch.arange(28) - 14.0
    gauss = torch.exp(-(away**2) / 8)
    expected = gauss[:, None] * gauss[None] / gauss.sum() ** 2
    assert torch.allclose(spread, expected, atol=1e-6)
    plain = torch.randn(3, 784, generator=generator(1)) * STD
    assert torch.allclose(noise.blurred_noise(0)(3, generator(1)), plain, atol=1e-6)


def test_power_falls_as_stated():
    power = mean_power(noise.power_law_noise(2.0)(3000, generator()))
    assert (power[0, 2] / power[0, 8]).item() == pytest.approx((8 / 2) ** 2, rel=0.2)
    assert (power[3, 4] / power[0, 5]).item() == pytest.approx(1, rel=0.2)  # radial
    assert (power[0, 0] / power[0, 1]).item() == pytest.approx(1, rel=0.2)
    flat = mean_power(noise.power_law_noise(0)(3000, generator()))
    assert (flat.max() / flat.min()).item() < 1.5


@pytest.mark.parametrize("dimension", [1, 10, 784])
def test_subspace_noise_is_flat_within_its_subspace(dimension):
    sampler = noise.subspace_noise(dimension)
    x = torch.cat([sampler(2000, generator(0)), sampler(2000, generator(1))])
    values = torch.linalg.svdvals(x).square() / len(x)
    assert values.sum().item() == pytest.approx(784 / 3, rel=0.1)
    assert (values > 1e-6 * values[0]).sum().item() == dimension
    assert (values[0] / values[dimension - 1]).item() < (1.2 if dimension < 784 else 8)


def test_members_share_a_subspace_and_other_seeds_have_another():
    first, again, other = (noise.subspace_noise(5, seed=seed)(50, generator(seed)) for seed in (0, 0, 1))
    assert torch.linalg.matrix_rank(torch.cat([first, again])).item() == 5
    assert torch.linalg.matrix_rank(torch.cat([first, other])).item() == 10


def test_perlin_noise_is_smooth_within_cells_and_independent_beyond_them():
    cell = 7
    basis = noise._perlin_basis(cell, 28)
    # One gradient alone: the slope where it stands, and nothing beyond the four cells around it.
    one = basis[4 * 4 + 5].view(28, 28)  # of the horizontal axis, at row 1 and column 1 of the lattice
    away = (torch.arange(28) + 0.5) / cell - 1
    fade = 1 - (away.abs() ** 3 * (6 * away.abs() ** 2 - 15 * away.abs() + 10))
    expected = torch.where(away.abs() < 1, away * fade, 0.0)[None] * torch.where(away.abs() < 1, fade, 0.0)[:, None]
    assert torch.allclose(one, expected, atol=1e-6)
    x = noise.perlin_noise(cell)(6000, generator()).view(-1, 28, 28)
    correlation = [(x * x.roll(k, -1)).mean().item() / x.square().mean().item() for k in (1, 14)]
    assert correlation[0] > 0.8 and abs(correlation[1]) < 0.02
    power = mean_power(x.flatten(1))
    assert power[0, 3] > 20 * power[0, 0] and power[0, 3] > 20 * power[0, 12]  # a band, unlike blurred noise


def test_covariance_matched_noise_has_the_covariance_and_is_gaussian():
    images = pictures(2000)
    x = noise.covariance_matched_noise(images)(20_000, generator())
    wanted, found = (torch.cov(some.T) for some in (images, x))
    wanted *= (1 / 3) / wanted.diagonal().mean()
    assert (found - wanted).norm() < 0.1 * wanted.norm()
    assert x.mean(0).abs().max() < 0.05
    along = x @ torch.linalg.eigh(wanted).eigenvectors[:, -1]
    kurtosis = (along / along.std()).pow(4).mean().item()
    assert kurtosis == pytest.approx(3, abs=0.3)


def test_random_phases_keep_power_and_nothing_else():
    images = pictures()
    matched = noise.spectrum_matched_noise(images)(300, generator())
    one = torch.fft.fft2(matched[:1].view(1, 28, 28)).abs().square()[0]
    assert torch.allclose(one, mean_power(images), rtol=1e-3, atol=1e-2)
    assert matched.square().mean().item() == pytest.approx(images.square().mean().item(), rel=1e-3)
    assert matched.mean(0).abs().mean().item() < 0.15 < images.mean(0).abs().mean().item()


def test_phase_scrambled_images_keep_their_own_amplitude_and_mean():
    images = pictures(1)
    x = noise.phase_scrambled(images)(20, generator())
    spectra = torch.fft.fft2(x.view(-1, 28, 28))
    own = torch.fft.fft2(images.view(-1, 28, 28)).abs()
    assert torch.allclose(spectra.abs(), own.expand_as(spectra), rtol=1e-3, atol=1e-2)
    assert torch.allclose(x.mean(-1), images.mean().expand(20), atol=1e-4)
    assert (x - images).square().mean(-1).min() > 0.5 * images.var()


def test_shuffled_pixels_keep_the_histogram_of_each_image():
    images = pictures(1)
    x = noise.shuffled_pixels(images)(10, generator())
    assert torch.equal(x.sort(-1).values, images.sort(-1).values.expand(10, -1))
    assert not torch.equal(x[0], x[1])


def test_mixtures_at_their_ends_and_at_moments():
    images, white = pictures(), noise.gaussian
    assert torch.equal(noise.mixed(images, white, 1.0)(4, generator()), noise.resampled(images)(4, generator()))
    half = noise.mixed(images, lambda n, generator: torch.ones(n, 784), 0.25)(4, generator())
    assert torch.allclose(half, 0.25 * noise.resampled(images)(4, generator()) + 0.75)
    for alpha in (0.0, 0.3, 0.7, 1.0):
        x = noise.mixed_at_moments(images, white, alpha)(4000, generator())
        assert x.square().mean().item() == pytest.approx(1 / 3, rel=0.03)
        assert x.mean(0).abs().max().item() < 0.12
    signal = noise.mixed_at_moments(images, white, 1.0)(4, generator())
    same = noise.resampled(noise.centred(images))(4, generator())
    assert torch.allclose(signal / signal.norm(), same / same.norm(), atol=1e-5)


def test_centred_and_whitened_images():
    images = pictures(1500)
    assert noise.centred(images).mean(0).abs().max() < 1e-5
    white, blunt = (noise.whitened(images, shrinkage) for shrinkage in (1e-3, 1.0))
    for x in (white, blunt):
        assert x.square().mean().item() == pytest.approx(1 / 3, rel=1e-4)
        assert x.mean(0).abs().max() < 1e-3
    spread = [(e[0] / e[50]).item() for e in (torch.linalg.svdvals(x) for x in (noise.centred(images), white, blunt))]
    assert spread[1] < 0.5 * spread[0]
    assert spread[2] == pytest.approx(spread[0], rel=1e-3)  # shrunk to the identity: only scaled


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: noise.subspace_noise(785), "dimension must be a whole number within 1..784"),
        (lambda: noise.subspace_noise(0), "dimension must be a whole number within 1..784"),
        (lambda: noise.blurred_noise(-1.0), "sigma must be"),
        (lambda: noise.blurred_noise(1.0, std=0.0), "std must be"),
        (lambda: noise.power_law_noise(float("nan")), "alpha must be"),
        (lambda: noise.perlin_noise(5), "cell must be a divisor of 28, at most 14"),
        (lambda: noise.perlin_noise(28), "cell must be a divisor of 28, at most 14"),
        (lambda: noise.mixed(pictures(2), noise.gaussian, 1.5), "alpha must be within 0..1"),
        (lambda: noise.whitened(pictures(2), 0.0), "shrinkage must be above 0"),
        (lambda: noise.phase_scrambled(torch.zeros(2, 15)), "number of pixels of images must be a square"),
    ],
)
def test_impossible_distributions_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
