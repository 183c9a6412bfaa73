"""Input distributions for distillation, as functions of a number of images and a generator."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Sampler = Callable[[int, Generator], Float[Tensor, "sample d_in"]]


def uniform(n: int, generator: Generator, d_in: int = 784) -> Float[Tensor, "{n} {d_in}"]:
    """Uniform[-1, 1] on the 256 midpoints (2k - 255) / 256: eight-bit noise images, as MNIST's pixels are.

    Mean 0, variance (1 - 2^-16) / 3. Every value is exact in bfloat16, so fp32 and bf16 runs see the same inputs.
    The published code draws the same distribution on a finer grid (Cloud et al. 2025, section 6.2).
    """
    words = torch.empty((n * d_in + 7) // 8, dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    levels = words.view(torch.int8)[: n * d_in].view(n, d_in)
    return levels.float().add_(0.5).div_(128)


def gaussian(n: int, generator: Generator, d_in: int = 784, std: float = 1.0) -> Float[Tensor, "{n} {d_in}"]:
    """Independent normal pixels of mean 0 and standard deviation `std`, not clamped."""
    return torch.randn(n, d_in, generator=generator).mul_(std)
