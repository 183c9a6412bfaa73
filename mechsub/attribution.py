"""Direct logit attribution: which units of the last hidden vector, or which components, write a logit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub.hooked import HookedModel, cache_activations


@dataclass(frozen=True)
class Attribution:
    """values[..., token, unit] sums over unit to logits[..., token] - b_U[token]."""

    values: Float[Tensor, "*lead token unit"]
    logits: Float[Tensor, "*lead token"]
    units: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Attribution({len(self.units)} units, values {tuple(self.values.shape)})"


@torch.no_grad()
def direct_logit_attribution(
    model: HookedModel,
    inputs: Tensor,
    tokens: Sequence[int],
    *,
    pos: int | None = None,
    unit: Literal["coordinate", "component"] = "coordinate",
) -> Attribution:
    """Contributions to the logits of `tokens`; they sum to logit - b_U.

    * "coordinate": h_i W_U[i, token] with h = unembed.hook_in (on the toy, the last hidden neurons);
    * "component": (x_c * gamma / s) . W_U[:, token] for the embedding and every attention and MLP block, with the
      final norm's scale s frozen at its value in this run (s itself depends on every component).

    inputs and `pos` as in `cache_activations`; a language model needs `pos`. Attribution.values is
    [*seed, batch, token, unit]. Raw logits carry a constant that softmax ignores: compare differences of tokens.
    Raises on the toy for "component" (it has no residual stream). Source: Elhage et al. 2021; nostalgebraist 2020.
    """
    if unit not in ("coordinate", "component"):
        raise ValueError(f"unknown unit {unit!r}; choose coordinate or component")
    if not inputs.is_floating_point() and pos is None:
        raise ValueError("a language model needs pos, the position whose logits are attributed")
    parts, names = _coordinates(model, inputs, pos) if unit == "coordinate" else _components(model, inputs, pos)
    columns = model.W_U[..., torch.as_tensor(list(tokens))]
    if unit == "coordinate":
        values = parts[..., None, :] * columns.mT.unsqueeze(-3)
    else:
        values = torch.einsum("b c d, d t -> b t c", parts, columns)
    bias = model.b_U[..., torch.as_tensor(list(tokens))]
    return Attribution(values, values.sum(-1) + bias, names)


def _coordinates(model: HookedModel, inputs: Tensor, pos: int | None) -> tuple[Tensor, tuple[str, ...]]:
    h = cache_activations(model, inputs, ["unembed.hook_in"], pos=pos)["unembed.hook_in"]
    return h, tuple(str(i) for i in range(h.shape[-1]))


def _components(model: HookedModel, inputs: Tensor, pos: int | None) -> tuple[Tensor, tuple[str, ...]]:
    if inputs.is_floating_point():
        raise ValueError("unit='component' needs a residual stream; the toy MLP has none: use unit='coordinate'")
    layers = range(model.cfg.n_layers)
    names = ["blocks.0.hook_in"] + [f"blocks.{n}.{part}.hook_out" for n in layers for part in ("attn", "mlp")]
    cache = cache_activations(model, inputs, [*names, "ln_final.hook_scale"], pos=pos)
    stack = torch.stack([cache[name] for name in names], dim=-2)
    scaled = stack / cache["ln_final.hook_scale"].unsqueeze(-2) * model.ln_final.weight
    return scaled, ("embed", *names[1:])
