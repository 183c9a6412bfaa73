"""Direct logit attribution: which units of the last hidden vector, or which components, write a logit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub.hooked import HookedModel, cache_activations, check_inputs
from mechsub.token_ids import check_tokens


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
    unit: Literal["coordinate", "component", "head"] = "coordinate",
) -> Attribution:
    """Contributions to the logits of `tokens`; they sum to logit - b_U.

    * "coordinate": h_i W_U[i, token] with h = unembed.hook_in (on the toy, the last hidden neurons);
    * "component": (x_c * gamma / s) . W_U[:, token] for the embedding and every attention and MLP block, with the
      final norm's scale s frozen at its value in this run (s itself depends on every component);
    * "head": the same with every attention block split into its heads, z_h W_O[h] with z = attn.o.hook_in (an output
      bias is a unit of its own).

    inputs and `pos` as in `cache_activations`; a language model needs `pos`. Attribution.values is
    [*seed, batch, token, unit]. Raw logits carry a constant that softmax ignores: compare differences of tokens.
    Raises on the toy for "component" and "head" (it has no residual stream), and for "head" where the heads do not sum
    to what their block writes (a norm after attention, as in Gemma 2). Source: Elhage et al. 2021; nostalgebraist 2020.
    """
    if unit not in ("coordinate", "component", "head"):
        raise ValueError(f"unknown unit {unit!r}; choose coordinate, component or head")
    tokens, inputs = check_tokens(model, tokens), check_inputs(model, inputs)
    if not inputs.is_floating_point() and pos is None:
        raise ValueError("a language model needs pos, the position whose logits are attributed")
    parts, names = {"coordinate": _coordinates, "component": _components, "head": _heads}[unit](model, inputs, pos)
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
    _need_residual_stream(inputs, "component")
    layers = range(model.cfg.n_layers)
    names = ["blocks.0.hook_in"] + [f"blocks.{n}.{part}.hook_out" for n in layers for part in ("attn", "mlp")]
    cache = cache_activations(model, inputs, [*names, "ln_final.hook_scale"], pos=pos)
    return _scaled(model, [cache[name] for name in names], cache), ("embed", *names[1:])


def _heads(model: HookedModel, inputs: Tensor, pos: int | None) -> tuple[Tensor, tuple[str, ...]]:
    _need_residual_stream(inputs, "head")
    layers = range(model.cfg.n_layers)
    names = ["blocks.0.hook_in", "ln_final.hook_scale"]
    names += [f"blocks.{n}.{part}" for n in layers for part in ("attn.o.hook_in", "attn.hook_out", "mlp.hook_out")]
    cache = cache_activations(model, inputs, names, pos=pos)
    stack, units = [cache["blocks.0.hook_in"]], ["embed"]
    for layer in layers:
        written = _written_by_heads(model, cache[f"blocks.{layer}.attn.o.hook_in"], layer)
        if not torch.allclose(sum(written.values()), cache[f"blocks.{layer}.attn.hook_out"], rtol=1e-3, atol=1e-4):  # type: ignore[arg-type]
            raise ValueError(f"the heads of layer {layer} do not sum to its attention's output; use unit='component'")
        stack += [*written.values(), cache[f"blocks.{layer}.mlp.hook_out"]]
        units += [*written, f"blocks.{layer}.mlp.hook_out"]
    return _scaled(model, stack, cache), tuple(units)


def _written_by_heads(model: HookedModel, z: Tensor, layer: int) -> dict[str, Tensor]:
    """What every head of a layer writes into the residual stream, and its bias where it has one."""
    attention = model.blocks[layer].attn  # type: ignore[attr-defined]
    W_O = attention.W_O.detach()  # [head, d_head, d_model]
    z = z.reshape(len(z), *W_O.shape[:2])  # some bridges hook it by heads, some flat
    written = {f"blocks.{layer}.attn.head.{head}": z[..., head, :] @ W_O[head] for head in range(len(W_O))}
    bias = getattr(attention, "b_O", None)
    if bias is not None and bias.abs().max() > 0:
        written[f"blocks.{layer}.attn.b_O"] = bias.detach().expand(len(z), -1)
    return written


def _scaled(model: HookedModel, stack: list[Tensor], cache: dict[str, Tensor]) -> Tensor:
    """Each part of the residual stream after the final norm, its scale frozen: [batch, part, d_model]."""
    return torch.stack(stack, dim=-2) / cache["ln_final.hook_scale"].unsqueeze(-2) * model.ln_final.weight  # type: ignore[attr-defined]


def _need_residual_stream(inputs: Tensor, unit: str) -> None:
    if inputs.is_floating_point():
        raise ValueError(f"unit={unit!r} needs a residual stream; the toy MLP has none: use unit='coordinate'")
