"""Input distributions for distillation, as functions of a number of images and a generator."""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from mechsub import arguments
from mechsub.inputs.toy_inputs import check_images
from mechsub.threads import one_thread

Sampler = Callable[[int, Generator], Float[Tensor, "sample d_in"]]
S = TypeVar("S", bound=Callable)


def by_rows(sampler: S) -> S:
    """Say of a sampler that its rows are drawn one by one, so that training may ask for them in parts.

    Without it a sampler is asked once for all inputs of an epoch, which may then depend on how many there are.
    """
    arguments.function(sampler, "sampler")
    try:
        sampler.by_rows = sampler  # type: ignore[attr-defined]  # itself: functools.wraps copies what stands here
    except AttributeError:  # a method bound to its object, or a built-in
        arguments.refuse("sampler", "a function; write one with def that calls it", sampler)
    return sampler


def draws_by_rows(sampler: Callable) -> bool:
    """Whether `by_rows` was said of this sampler, or of the function that it is a `functools.partial` of."""
    own = sampler.func if isinstance(sampler, functools.partial) else sampler
    return getattr(own, "by_rows", None) is own


@by_rows
def uniform(n: int, generator: Generator, d_in: int = 784) -> Float[Tensor, "{n} {d_in}"]:
    """Uniform[-1, 1] on the 256 midpoints (2k - 255) / 256: images of eight bits a pixel, as MNIST has.

    Mean 0, variance (1 - 2^-16) / 3. Every value is exact in bfloat16, so fp32 and bf16 runs see the same inputs.
    The published code draws the same distribution on a finer grid (Cloud et al. 2025, section 6.2).
    """
    _check_draw(n, generator, d_in)
    words = torch.empty((n * d_in + 7) // 8, dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    levels = words.view(torch.int8)[: n * d_in].view(n, d_in)
    return levels.float().add_(0.5).div_(128)


@by_rows
def gaussian(n: int, generator: Generator, d_in: int = 784, std: float = 1.0) -> Float[Tensor, "{n} {d_in}"]:
    """Independent normal pixels of mean 0 and standard deviation `std`, not clamped."""
    _check_draw(n, generator, d_in)
    _require_std(std)
    return torch.randn(n, d_in, generator=generator, dtype=torch.float32, device="cpu").mul_(std)


STD = 3**-0.5  # that of Uniform[-1, 1], the published inputs


@by_rows
def bernoulli(n: int, generator: Generator, d_in: int = 784, std: float = 1.0) -> Float[Tensor, "{n} {d_in}"]:
    """Independent pixels, -std or std with equal probability (Rademacher)."""
    _check_draw(n, generator, d_in)
    _require_std(std)
    return torch.randint(0, 2, (n, d_in), generator=generator, device="cpu").mul_(2).sub_(1).float().mul_(std)


def blurred_noise(sigma: float | int, std: float = STD, side: int = 28) -> Sampler:
    """White Gaussian noise, blurred by a Gaussian of `sigma` pixels and scaled back to standard deviation `std` a
    pixel.

    The blur wraps round the border, so that every pixel has the same variance. sigma 0 is white noise.
    """
    side = arguments.whole(side, "side", 1)
    return _filtered(_blur_gain(sigma, side), std)


@one_thread()
def power_law_noise(alpha: float | int, std: float = STD, side: int = 28) -> Sampler:
    """Gaussian noise whose power falls as k^-alpha with radial frequency k; k = 0 has the same power as k = 1."""
    arguments.number(alpha, "alpha")
    side = arguments.whole(side, "side", 1)
    return _filtered((_frequencies(side) * side).clamp(min=1) ** (-alpha / 2), std)


@one_thread()
def subspace_noise(dimension: int, std: float = STD, d_in: int = 784, seed: int = 0) -> Sampler:
    """Gaussian noise in a random subspace, with a flat spectrum there. The total variance is d_in std^2 for any
    dimension.

    The subspace depends on `seed` and `dimension` alone: all members of an ensemble have the same subspace.
    """
    d_in = arguments.whole(d_in, "d_in", 1)
    dimension = arguments.whole(dimension, "dimension", 1, d_in)
    _require_std(std)
    seeded = torch.Generator().manual_seed(arguments.seed(seed))
    columns = torch.randn(d_in, dimension, generator=seeded, dtype=torch.float64, device="cpu")
    basis = torch.linalg.qr(columns).Q.T.float() * (std * math.sqrt(d_in / dimension))
    return _sampler(
        lambda n, generator: torch.randn(n, dimension, generator=generator, dtype=torch.float32, device="cpu") @ basis
    )


def perlin_noise(cell: int, std: float = STD, side: int = 28) -> Sampler:
    """Gradient noise (Perlin 1985, with the fade of 2002) on a lattice of `cell` pixels, of standard deviation `std`.

    The lattice wraps round the border and every image shifts it at random, so that every pixel has the same variance.
    """
    side = arguments.whole(side, "side", 2)
    cell = arguments.whole(cell, "cell", 1)
    _require("cell", cell, side % cell == 0 and 2 * cell <= side, f"a divisor of {side}, at most {side // 2}")
    _require_std(std)
    basis = _perlin_basis(cell, side).float()
    basis *= std / (basis.square().sum(0).mean() / 2).sqrt()  # a component of a unit vector has variance 1/2

    def draw(n: int, generator: Generator) -> Tensor:
        angles = torch.rand(n, len(basis) // 2, generator=generator, dtype=torch.float32, device="cpu") * (2 * math.pi)
        x = (torch.cat([angles.cos(), angles.sin()], -1) @ basis).view(n, side, side)
        shift = torch.randint(cell, (2, n, 1), generator=generator, device="cpu")
        rows, columns = (torch.arange(side) + shift) % side
        return x[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None]].flatten(1)

    return _sampler(draw)


def _perlin_basis(cell: int, side: int) -> Float[Tensor, "component d_in"]:
    """What one unit of each component of each lattice gradient adds to pixels (first one axis, then the other)."""
    k = side // cell
    away = (torch.arange(side) + 0.5) / cell - torch.arange(k)[:, None]
    away = (away + k / 2) % k - k / 2  # cells from every lattice line, the shorter way round
    t = away.abs().clamp(max=1)
    weight = 1 - t**3 * (t * (6 * t - 15) + 10)
    pull = weight * away
    axes = ((pull, weight), (weight, pull))
    return torch.cat([torch.einsum("iy,jx->ijyx", down, across).reshape(k * k, -1) for down, across in axes])


@one_thread()
def covariance_matched_noise(images: Float[Tensor, "image d_in"], std: float = STD) -> Sampler:
    """Gaussian noise with the covariance of the images, scaled to mean pixel variance std^2, and mean image 0."""
    _require_std(std)
    x = _varying(images)
    values, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    gain = values.clamp(min=0).sqrt()
    root = (gain[:, None] * vectors.T * (std / gain.square().mean().sqrt())).float()
    return _sampler(
        lambda n, generator: torch.randn(n, len(root), generator=generator, dtype=torch.float32, device="cpu") @ root
    )


@one_thread()
def spectrum_matched_noise(images: Float[Tensor, "image d_in"]) -> Sampler:
    """Random-phase noise: every draw has the images' mean power spectrum; all phases are independent and uniform."""
    side = _side(images)
    sums = (_spectrum(some, side).abs().square().double().sum(0) for some in images.split(1024))
    amplitude = (functools.reduce(torch.add, sums) / len(images)).sqrt().float()
    return _sampler(one_thread()(lambda n, generator: _pixels(amplitude * _phases(n, side, generator))))


def phase_scrambled(images: Float[Tensor, "image d_in"]) -> Sampler:
    """Images drawn with replacement, each with its own amplitudes and random phases; its mean brightness is kept."""
    side = _side(images)

    @one_thread()
    def draw(n: int, generator: Generator) -> Tensor:
        spectrum = _spectrum(_drawn(images, n, generator), side)
        phases = _phases(n, side, generator)
        phases[:, 0, 0] = torch.sgn(spectrum[:, 0, 0])
        return _pixels(spectrum.abs() * phases)

    return _sampler(draw)


def shuffled_pixels(images: Float[Tensor, "image d_in"]) -> Sampler:
    """Images drawn with replacement; the pixels of each image are shuffled in an order of its own."""
    _images(images)

    def draw(n: int, generator: Generator) -> Tensor:
        x = _drawn(images, n, generator)
        return x.gather(-1, torch.rand(x.shape, generator=generator, dtype=torch.float32, device="cpu").argsort(-1))

    return _sampler(draw)


def resampled(images: Float[Tensor, "image d_in"]) -> Sampler:
    """Images drawn with replacement."""
    _images(images)
    return _sampler(lambda n, generator: _drawn(images, n, generator))


def mixed(images: Float[Tensor, "image d_in"], noise: Sampler, alpha: float | int) -> Sampler:
    """alpha image + (1 - alpha) noise. Mean, variance and spectrum all change with alpha: see `mixed_at_moments`."""
    _images(images)
    _require_alpha(alpha)
    return _sum(images, arguments.function(noise, "noise"), alpha, 1 - alpha)


@one_thread()
def mixed_at_moments(
    images: Float[Tensor, "image d_in"], noise: Sampler, alpha: float | int, std: float = STD
) -> Sampler:
    """As `mixed`, but with mean image 0 and mean pixel variance std^2 at every alpha.

    The images are centred, images and noise are scaled to variance 1, and the sum is divided by sqrt(alpha^2 + (1 -
    alpha)^2). The noise must have mean 0; its variance is measured on 4,096 draws.
    """
    _require_alpha(alpha)
    _require_std(std)
    signal = _varying(images)
    drawn = arguments.function(noise, "noise")(4096, torch.Generator().manual_seed(0))
    mean, size = float(drawn.mean(0).square().mean().sqrt()), float(drawn.square().mean().sqrt())
    _require("the size of the noise's mean image", mean, mean <= 0.1 * size, f"0, for noise of size {size:.3g}")
    norm = math.hypot(alpha, 1 - alpha) / std
    a, b = (weight / (norm * float(x.square().mean().sqrt())) for weight, x in ((alpha, signal), (1 - alpha, drawn)))
    return _sum(signal, noise, a, b)


def centred(images: Float[Tensor, "image d_in"]) -> Float[Tensor, "image d_in"]:
    """The images less their mean image."""
    return _images(images) - images.mean(0)


@one_thread()
def whitened(
    images: Float[Tensor, "image d_in"], shrinkage: float = 0.1, std: float = STD
) -> Float[Tensor, "image d_in"]:
    """ZCA-whitened images, scaled to mean pixel variance std^2.

    The covariance is first shrunk to (1 - shrinkage) C + shrinkage mean(diag C) I: without shrinkage, pixels that never
    vary have no inverse, and pixels that hardly vary would dominate the images.
    """
    arguments.number(shrinkage, "shrinkage")
    _require("shrinkage", shrinkage, 0 < shrinkage <= 1, "above 0 and at most 1")
    _require_std(std)
    x = _varying(images)
    values, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    gain = ((1 - shrinkage) * values.clamp(min=0) + shrinkage * values.mean()).rsqrt()
    white = x @ (vectors * gain @ vectors.T).to(x.dtype)
    return white * (std / white.square().mean().sqrt())


def blurred(images: Float[Tensor, "image d_in"], sigma: float | int) -> Float[Tensor, "image d_in"]:
    """Images after a Gaussian blur of `sigma` pixels that wraps round the border; their variance falls."""
    gain = _blur_gain(sigma, _side(images))
    return torch.cat([_pixels(_spectrum(some, len(gain)) * gain) for some in images.split(1024)])


def _sampler(draw: Sampler, rows: bool = True) -> Sampler:
    """A sampler: a function of a number of images and a generator."""

    def sampler(n: int, generator: Generator) -> Tensor:
        _check_draw(n, generator)
        return draw(n, generator)

    return by_rows(sampler) if rows else sampler


def _sum(images: Tensor, noise: Sampler, a: float, b: float) -> Sampler:
    """a image + b noise."""

    def draw(n: int, generator: Generator) -> Tensor:
        drawn, added = _drawn(images, n, generator), noise(n, generator)
        if drawn.shape != added.shape:
            raise ValueError(f"the noise must have the images' shape {list(drawn.shape)}, not {list(added.shape)}")
        return a * drawn + b * added

    return _sampler(draw, draws_by_rows(noise))


def _drawn(images: Tensor, n: int, generator: Generator) -> Tensor:
    return images[torch.randint(len(images), (n,), generator=generator, device="cpu")]


def _filtered(gain: Float[Tensor, "side side"], std: float) -> Sampler:
    _require_std(std)
    side, scaled = len(gain), gain * (std / gain.square().mean().sqrt())
    return _sampler(lambda n, generator: _pixels(_white_spectrum(n, side, generator) * scaled))


def _blur_gain(sigma: float | int, side: int) -> Float[Tensor, "{side} {side}"]:
    arguments.number(sigma, "sigma", "a number of at least 0", least=0)
    return torch.exp(-2 * (math.pi * sigma * _frequencies(side)) ** 2)


def _frequencies(side: int) -> Float[Tensor, "{side} {side}"]:
    """Radial frequency of every Fourier mode, cycles a pixel."""
    one = torch.fft.fftfreq(side, dtype=torch.float32)
    return torch.hypot(one[:, None], one[None])


def _spectrum(x: Tensor, side: int) -> Tensor:
    return torch.fft.fft2(x.reshape(-1, side, side))


def _white_spectrum(n: int, side: int, generator: Generator) -> Tensor:
    return torch.fft.fft2(torch.randn(n, side, side, generator=generator, dtype=torch.float32, device="cpu"))


def _phases(n: int, side: int, generator: Generator) -> Tensor:
    """Phases of white noise: uniform, and Hermitian, so that the image is real."""
    return torch.sgn(_white_spectrum(n, side, generator))


def _pixels(spectrum: Tensor) -> Tensor:
    return torch.fft.ifft2(spectrum).real.flatten(1)


def _side(images: Tensor) -> int:
    side = math.isqrt(_images(images).shape[-1])
    _require("the number of pixels of images", images.shape[-1], side**2 == images.shape[-1], "a square number")
    return side


def _images(images: Tensor) -> Tensor:
    """fp32 or fp64: half precision has no Fourier transform here, and bytes have no mean."""
    check_images(images, None)
    if images.itemsize < 4:
        arguments.refuse("images", "fp32 or fp64; convert them with .float()", images)
    return images


def _varying(images: Tensor) -> Tensor:
    """The centred images; one image, or copies of one, have no variance to scale."""
    x = centred(images)
    if not float(x.norm()) > 1e-5 * float(images.norm()):  # the mean of copies is rounded
        raise ValueError("images must differ from one another; they are all one image")
    return x


def _check_draw(n: int, generator: Generator, d_in: int = 1) -> None:
    n = arguments.whole(n, "n", 1)
    arguments.generator(generator)
    d_in = arguments.whole(d_in, "d_in", 1)


def _require_std(std: float) -> None:
    arguments.positive(std, "std")


def _require_alpha(alpha: float) -> None:
    arguments.number(alpha, "alpha")
    _require("alpha", alpha, 0 <= alpha <= 1, "within 0..1")


def _require(name: str, value: float | int, holds: bool, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {wanted}, not {value}")
