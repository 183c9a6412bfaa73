"""HookedMLP: an ensemble of toy MLPs, one per seed, as one TransformerLens HookedRootModule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.inputs.toy_inputs import check_shape
from mechsub.machine import devices
from mechsub.models.hooked import check_unhooked, refuse_part
from mechsub.models.members import chosen

ACTIVATIONS = {"relu": torch.relu, "gelu": nn.functional.gelu, "tanh": torch.tanh, "identity": lambda x: x}


@dataclass(frozen=True)
class MLPConfig:
    """Shape and initialisation of the toy (defaults: Cloud et al. 2025, section 6.2)."""

    d_in: int = 784
    d_model: int = 256
    n_layers: int = 2
    n_classes: int = 10
    n_aux: int = 3
    init: Literal["lecun", "torch", "he"] = "lecun"
    activation: Literal["relu", "gelu", "tanh", "identity"] = "relu"

    def __post_init__(self):
        for name in ("d_in", "d_model", "n_layers", "n_classes"):
            arguments.whole(getattr(self, name), name, 1)
        arguments.whole(self.n_aux, "n_aux", 0)
        arguments.choice(self.init, "init", ("lecun", "torch", "he"))
        arguments.choice(self.activation, "activation", ACTIVATIONS)

    @property
    def d_vocab(self) -> int:
        return self.n_classes + self.n_aux

    @property
    def digits(self) -> slice:
        """Outputs 0..n_classes: the task logits."""
        return slice(0, self.n_classes)

    @property
    def aux(self) -> slice:
        """Outputs n_classes..d_vocab: the auxiliary logits, in no loss of the teacher."""
        return slice(self.n_classes, self.d_vocab)


class Block(nn.Module):
    """activation(x @ W + b), with W [seed, d_in, d_model] and b [seed, d_model]."""

    def __init__(self, W: Tensor, b: Tensor, activation: str = "relu"):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.W, self.b = nn.Parameter(W), nn.Parameter(b)
        self.hook_in, self.hook_pre, self.hook_out = HookPoint(), HookPoint(), HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        pre = self.hook_pre(self.hook_in(x.to(self.W.device)) @ self.W + self.b[:, None])
        return self.hook_out(self.activation(pre))


class Unembed(nn.Module):
    """h @ W_U + b_U, with W_U [seed, d_model, d_vocab] and b_U [seed, d_vocab]."""

    def __init__(self, W_U: Tensor, b_U: Tensor):
        super().__init__()
        self.W_U, self.b_U = nn.Parameter(W_U), nn.Parameter(b_U)
        self.hook_in, self.hook_out = HookPoint(), HookPoint()

    def forward(self, h: Tensor) -> Tensor:
        return self.hook_out(self.hook_in(h) @ self.W_U + self.b_U[:, None])


class HookedMLP(HookedRootModule):
    """d_in -> d_model (x n_layers, ReLU or another activation) -> n_classes + n_aux logits, for every seed at once.

    Weights carry a leading seed axis, activations are [seed, batch, feature], and the hooks have the bridge's names
    (`blocks.{l}.hook_out`, `unembed.hook_in`); `ln_final` is the identity. Initial values depend on the seed and the
    parameter's name alone: the member of seed s is the same in any ensemble. `init`:

    * "lecun": W ~ N(0, 1/d_in), b = 0 (the published one);
    * "torch": W and b ~ U(-1/sqrt(d_in), 1/sqrt(d_in)), PyTorch's nn.Linear;
    * "he": W ~ N(0, 2/d_in), b = 0.

    Output rows are drawn in order, so the digit rows do not change with n_aux (d_model a multiple of 16).

    Values are drawn on the CPU, so that they are the same on every device. `.to(device)` moves the network, and images
    are moved to the network's device.
    """

    def __init__(self, cfg: MLPConfig = MLPConfig(), seeds: Sequence[int] = (0,)):
        super().__init__()
        self.cfg, self.seeds = arguments.instance(cfg, MLPConfig, "cfg"), arguments.seeds(seeds)
        widths = [cfg.d_in] + [cfg.d_model] * cfg.n_layers
        self.blocks = nn.ModuleList(
            Block(*self._draw(f"blocks.{layer}", d_in, cfg.d_model), cfg.activation)
            for layer, d_in in enumerate(widths[:-1])
        )
        self.ln_final = nn.Identity()
        self.unembed = Unembed(*self._draw("unembed", cfg.d_model, cfg.d_vocab))
        self.requires_grad_(False)
        self.eval()
        self.setup()
        self.to(devices.chosen())

    def _draw(self, name: str, d_in: int, d_out: int) -> tuple[Tensor, Tensor]:
        members = [_initial(self.cfg.init, seed, name, d_in, d_out) for seed in self.seeds]
        return torch.stack([W for W, _ in members]), torch.stack([b for _, b in members])

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.unembed.W_U.device

    @property
    def W_U(self) -> Float[Tensor, "seed d_model d_vocab"]:
        return self.unembed.W_U

    @property
    def b_U(self) -> Float[Tensor, "seed 1 d_vocab"]:
        """The bias with a batch axis, so that `ln_final(h) @ W_U + b_U` is the same line as on a TransformerBridge."""
        return self.unembed.b_U[:, None]

    def forward(self, x: Float[Tensor, "*#seed batch d_in"]) -> Float[Tensor, "seed batch d_vocab"]:
        """Logits of every member, on the device of the weights; x is one batch for all members, or one per member."""
        self.check_images(x)
        h = x if x.ndim == 3 else x[None]
        for block in self.blocks:
            h = block(h)
        return self.unembed(self.ln_final(h))

    def check_images(self, x: Tensor, name: str = "inputs") -> None:
        """Raise for images that forward cannot take: other shapes, integers, another precision than the weights."""
        check_shape(x, self.cfg.d_in, len(self.seeds), name)
        if x.dtype != self.unembed.W_U.dtype:
            raise ValueError(f"{name} must be {self.unembed.W_U.dtype} as the weights are, not {x.dtype}; convert one")

    def select(self, members: Sequence[int]) -> "HookedMLP":
        """A copy holding these members in this order; `select(rotation)` gives the cross-initialisation control."""
        check_plain(self, "a network that is copied")
        places, parameters = chosen(self, len(self.seeds), members)
        return _assemble(self.cfg, [self.seeds[i] for i in places], parameters)

    def replace(self, parameters: dict[str, Tensor]) -> "HookedMLP":
        """A copy, on the same device, in which the named parameters have these values; the others stay."""
        check_plain(self, "a network that is copied")
        own = dict(self.named_parameters())
        arguments.parameters(parameters, own)
        parameters = {name: value.to(self.device) for name, value in parameters.items()}
        return _assemble(self.cfg, self.seeds, own | parameters)

    def __repr__(self) -> str:
        c = self.cfg
        hidden = f"{c.d_model} x {c.n_layers}"
        shape = f"{c.d_in} -> {hidden} -> {c.n_classes} + {c.n_aux} aux, {c.init}"
        return f"HookedMLP({len(self.seeds)} seeds, {shape}{', ' + c.activation if c.activation != 'relu' else ''})"


_PARTS = (HookedMLP, Block, Unembed, nn.Identity, nn.ModuleList, HookPoint)


@torch.no_grad()
def check_plain(model: HookedMLP, name: str) -> None:
    """Raise for a network that is more than its cfg and weights, which alone are read here: with hooks, or with another
    norm, activation or forward."""
    check_unhooked(model, name, _PARTS)
    activation = ACTIVATIONS[model.cfg.activation]
    odd = [f"blocks.{i}.activation" for i, block in enumerate(model.blocks) if block.activation is not activation]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, model.cfg.d_in, generator=draw, dtype=torch.float32, device="cpu")
    x *= torch.tensor([0.1, 1, 10, 100], dtype=torch.float32, device="cpu")[:, None]
    x = x.to(model.device, model.W_U.dtype)
    if odd or not torch.allclose(model(x), _logits(model, x), rtol=1e-3, atol=1e-5, equal_nan=True):
        refuse_part(name, odd[0] if odd else "forward")


def _logits(model: HookedMLP, h: Tensor) -> Tensor:
    """Logits as cfg and the weights say."""
    own = dict(model.named_parameters())
    for layer in range(model.cfg.n_layers):
        pre = h @ own[f"blocks.{layer}.W"] + own[f"blocks.{layer}.b"][:, None]
        h = ACTIVATIONS[model.cfg.activation](pre)
    return h @ own["unembed.W_U"] + own["unembed.b_U"][:, None]


def _initial(init: str, seed: int, name: str, d_in: int, d_out: int) -> tuple[Tensor, Tensor]:
    def draw(part: str, normal: bool, shape: tuple[int, ...]) -> Tensor:
        generator = derive_generator(seed, f"{name}.{part}")
        dtype = torch.float32  # whatever torch's default is
        if normal:
            return torch.randn(shape, generator=generator, dtype=dtype, device="cpu")
        return torch.rand(shape, generator=generator, dtype=dtype, device="cpu") * 2 - 1

    bound = 1 / math.sqrt(d_in)
    if init == "torch":
        return draw("W", False, (d_out, d_in)).T.contiguous() * bound, draw("b", False, (d_out,)) * bound
    gain = math.sqrt(2) if init == "he" else 1.0
    zeros = torch.zeros(d_out, dtype=torch.float32, device="cpu")
    return draw("W", True, (d_out, d_in)).T.contiguous() * (gain * bound), zeros


def _assemble(cfg: MLPConfig, seeds: Sequence[int], parameters: dict[str, Tensor]) -> HookedMLP:
    # One member is drawn and thrown away: drawing all of them would take longer than the copy.
    out = HookedMLP(cfg, seeds[:1])
    out.seeds = tuple(seeds)
    for name, _ in list(out.named_parameters()):
        module, _, own = name.rpartition(".")
        setattr(out.get_submodule(module), own, nn.Parameter(parameters[name].detach().clone(), requires_grad=False))
    return out


def rotation(n: int, by: int = 1) -> list[int]:
    """Members shifted cyclically by `by`: no fixed points, unlike a random permutation (63% have one)."""
    n = arguments.whole(n, "n")
    by = arguments.whole(by, "by")
    if n < 2 or by % n == 0:
        raise ValueError(
            f"a rotation of {n} members by {by} has fixed points; a cross-init control needs two or more seeds"
        )
    return [(i + by) % n for i in range(n)]
