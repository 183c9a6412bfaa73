from functools import cache

import jaxtyping
import pytest
import torch

import mechsub as ms
from mechsub.lab import study
from mechsub.lab.declared import declared_by


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def as_users_run_it(monkeypatch):
    """Without the types that are checked in tests alone: a bridge without a final norm is none of them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def clusters():
    """Ten separable clusters in 64 dimensions: images, labels."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 64, generator=generator)
    labels = torch.arange(600) % 10
    return centres[labels] + 0.5 * torch.randn(600, 64, generator=generator), labels


@pytest.fixture(scope="session")
def small():
    return ms.MLPConfig(d_in=64, d_model=32)


@pytest.fixture(scope="session")
def toy():
    """Three members, as a hooked model."""
    return ms.HookedMLP(ms.MLPConfig(d_in=20, d_model=16, n_layers=3), seeds=(0, 1, 2))


def boot_bridge():
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    cfg = TransformerBridgeConfig(
        d_model=16, d_head=8, n_heads=2, n_layers=3, n_ctx=12, d_vocab=13, d_mlp=32, act_fn="silu",
        normalization_type="RMS", gated_mlp=True, positional_embedding_type="rotary", seed=0,
        architecture="TransformerLensNative",
    )  # fmt: skip
    return TransformerBridge.boot_native(cfg).eval()


@pytest.fixture(scope="session")
def bridge():
    """A random Llama-shaped language model."""
    return boot_bridge()


load_once = cache(ms.load_language_model)


@pytest.fixture
def one_model(monkeypatch):
    """The default language model, loaded once for all texts that load it."""
    monkeypatch.setattr(ms.language, "load_language_model", load_once)


@pytest.fixture
def refused(tmp_path, capsys):
    """refused(module of a study, words): the one line that such a command ends with, before anything is made."""

    def line(module, words) -> str:
        with pytest.raises(SystemExit) as left:
            study.command(declared_by(module), [*words, "--out", str(tmp_path / "o")])
        said = capsys.readouterr().err
        assert left.value.code == 2 and said.count("\n") == 1 and not (tmp_path / "o").exists()
        return said

    return line
