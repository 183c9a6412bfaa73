import pytest
import torch

from mechsub import noise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
