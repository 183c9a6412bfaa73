"""Direct logit attribution: which units of the last hidden vector, or which components, write a logit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.token_ids import Outputs, check_alone
from mechsub.lazy import pd
from mechsub.models import checks
from mechsub.models.hooked import HookedModel, cache_with_logits, check_inputs

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Unit = Literal["coordinate", "component", "head"]
_SHOWN = 8  # rows of an attribution that is printed
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 0.1}  # of the largest


@dataclass(frozen=True)
class Attribution:
    """values[..., token, unit] sums over unit to summed[..., token] - bias[token].

    logits: the model's own logits in this run, with which the sum was compared. summed: the logits before a soft cap
    (Gemma 2); without a cap, the same as logits.
    """

    values: Float[Tensor, "*lead token unit"]
    logits: Float[Tensor, "*lead token"]
    units: tuple[str, ...]
    summed: Float[Tensor, "*lead token"]
    bias: Float[Tensor, "*seed token"]
    tokens: tuple[int | str, ...]  # as they were given

    def frame(self, top: int | None = None) -> "pd.DataFrame":
        """A row for every value, named by member (on the toy), input, token and unit.

        top: of every token so many units, those with the largest values of either sign first.
        """
        values = self.values.detach().double().cpu().numpy()
        order = np.broadcast_to(np.arange(len(self.units)), values.shape)
        if top is not None:
            order = np.argsort(-np.abs(values), axis=-1, kind="stable")[..., : arguments.whole(top, "top", 1)]
        *lead, token, _ = np.indices(order.shape)
        labels = [*lead, np.array(self.tokens, dtype=object)[token], np.array(self.units)[order]]
        names = ("member", "input", "token", "unit")[-len(labels) :]
        index = pd.MultiIndex.from_arrays([each.ravel() for each in labels], names=names)
        return pd.DataFrame({"value": np.take_along_axis(values, order, -1).ravel()}, index=index)

    def __repr__(self) -> str:
        return f"Attribution({len(self.units)} units, values {tuple(self.values.shape)})"

    def __str__(self) -> str:
        """With the units that write most to the first logits."""
        first = tuple(slice(1) for _ in self.values.shape[:-1])  # alone, for all may take long to be sorted
        one = replace(
            self, values=self.values[first], logits=self.logits[first], summed=self.summed[first],
            bias=self.bias[tuple(slice(1) for _ in self.bias.shape)], tokens=self.tokens[:1],
        )  # fmt: skip
        rows = one.frame(top=_SHOWN).reset_index().to_string(index=False)
        return f"{self!r}; .frame(top={_SHOWN}) begins\n{rows}"

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        """In IPython and notebooks."""
        printer.text(str(self))


@torch.no_grad()
def direct_logit_attribution(
    model: HookedModel,
    inputs: Tensor,
    tokens: Outputs,
    *,
    pos: int | None = None,
    unit: Unit = "coordinate",
) -> Attribution:
    """Contributions to the logits of `tokens`; they sum to logit - b_U, the logit before a soft cap.

    * "coordinate": h_i W_U[i, token] with h = unembed.hook_in (on the toy, the last hidden neurons);
    * "component": (x_c * gamma / s) . W_U[:, token] for the embedding and for the write of every attention and MLP
      block to the residual (output biases, and a norm or a scale between, are parts of the write). The final norm's
      scale s is frozen at its value in this run (s itself depends on every component). With a LayerNorm, x_c is
      centred, and the bias is the unit "ln_final.b";
    * "head": as "component", with every attention block split into its heads, z_h W_O[h] with z = attn.o.hook_in (an
      output bias is a unit of its own, and so is the bias of a norm between).

    Where the model scales its logits (Cohere, Granite), values have the same scale. Where it caps them (Gemma 2),
    values sum to the logit before the cap, `summed`; `logits` are the logits after the cap.

    inputs and `pos` as in `cache_activations`; a language model needs `pos`. Attribution.values is [*seed, batch,
    token, unit]. Raw logits carry a constant that softmax ignores: compare differences of tokens. Raises on the toy for
    "component" and "head" (it has no residual stream); where heads do not sum to the write of their block; where blocks
    add something else; and where the sum is not the model's logit in this run.
    Source: Elhage et al. 2021; nostalgebraist 2020.
    """
    arguments.choice(unit, "unit", ("coordinate", "component", "head"))
    given, tokens = tokens, arguments.outputs(arguments.model(model), tokens)
    check_inputs(model, inputs)
    if not inputs.is_floating_point() and pos is None:
        raise ValueError("a language model needs pos, the position whose logits are attributed")
    with checks.measured_on(model, inputs, pos):
        read = checks.readout(model)
        parts, logits, names = {"coordinate": _coordinates, "component": _components, "head": _heads}[unit](
            model, inputs, pos
        )
    columns, bias, logits = read.columns(tokens), read.bias(tokens), logits[..., list(tokens)]
    if logits.dtype in (torch.float16, torch.bfloat16):  # sums of many parts are had in fp32
        parts, columns, bias = (each.float() for each in (parts, columns, bias))
    if unit == "coordinate":
        values = parts[..., None, :] * columns.mT.unsqueeze(-3)
    else:
        values = torch.einsum("b c d, d t -> b t c", parts, columns)
    sums = values.sum(-1) + bias
    _check_sums(read.finish(sums), logits, values)
    factor = 1.0 if read.scale is None else read.scale
    if factor != 1:
        values, bias, sums = (factor * each for each in (values, bias, sums))
    if read.scale is not None:
        logits = sums
    labels = tuple(own if isinstance(own, str) else token for own, token in zip(given, tokens, strict=True))
    return Attribution(values, logits, names, sums, bias, labels)


def _check_sums(sums: Tensor, logits: Tensor, values: Tensor) -> None:
    """Raise unless the contributions, with b_U, cap and scale, give the logits of this run beyond rounding."""
    kind = logits.dtype if logits.dtype in _TOLERANCE else torch.float32
    rounding = 4 * torch.finfo(kind).eps * float(values.abs().sum(-1).max())
    error = float((sums.double() - logits.to(sums.device).double()).abs().max())
    if not error <= _TOLERANCE[kind] * max(1.0, float(logits.abs().max())) + rounding:
        raise ValueError(
            f"the contributions sum to something else than the model's logit (off by up to {error:.2g}): this model "
            "adds to or changes its residual or logits in a way that is not known here"
        )


def _coordinates(model: HookedModel, inputs: Tensor, pos: int | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    cache, logits = cache_with_logits(model, inputs, ["unembed.hook_in"], pos=pos)
    h = cache["unembed.hook_in"]
    return h, logits, tuple(str(i) for i in range(h.shape[-1]))


def _components(model: HookedModel, inputs: Tensor, pos: int | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    _need_residual_stream(inputs, "component")
    check_alone(model)
    writes = checks.stream(model)
    cache, logits = _cache(model, inputs, [hook for write in writes for hook in write.hooks], pos)
    stack = [cache["blocks.0.hook_in"], *(write.of(cache) for write in writes)]
    return _final(model, stack, cache, logits, ["embed", *(write.unit for write in writes)])


def _heads(model: HookedModel, inputs: Tensor, pos: int | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    _need_residual_stream(inputs, "head")
    check_alone(model)
    writes = checks.stream(model)
    names = [hook for write in writes for hook in [*write.hooks, write.raw]]
    mixed = [f"blocks.{write.layer}.attn.o.hook_in" for write in writes if _is_attention(write)]
    if without := [name for name in mixed if name not in model.hook_dict]:
        raise ValueError(f"this model has no attention heads to look at ({without[0]}); use unit='component'")
    names += mixed
    cache, logits = _cache(model, inputs, names, pos)
    stack, units = [cache["blocks.0.hook_in"]], ["embed"]
    for write in writes:
        if not _is_attention(write):
            stack.append(write.of(cache))
            units.append(write.unit)
            continue
        heads = _written_by_heads(model, cache[f"blocks.{write.layer}.attn.o.hook_in"], write, cache)
        if not _sums_to(torch.stack(list(heads.values())).sum(0), write.of(cache)):
            raise ValueError(
                f"the heads of layer {write.layer} do not sum to its attention's output; use unit='component'"
            )
        stack += heads.values()
        units += heads
    return _final(model, stack, cache, logits, units)


def _is_attention(write: checks.Write) -> bool:
    return write.unit.endswith(".attn.hook_out")


def _sums_to(a: Tensor, b: Tensor) -> bool:
    half = b.dtype in (torch.float16, torch.bfloat16)
    loose = 2 * torch.finfo(b.dtype).eps if half else 1e-4
    return torch.allclose(
        a.to(b.dtype), b, rtol=(4 if half else 10) * loose, atol=loose * max(1.0, float(b.abs().max()))
    )


def _written_by_heads(
    model: "TransformerBridge", z: Tensor, write: checks.Write, cache: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The write of every head of a layer to the residual stream, and biases where there are any."""
    attention, here = model.blocks[write.layer].attn, f"blocks.{write.layer}"
    try:
        W_O = attention.W_O.detach()  # [head, d_head, d_model]
    except AttributeError:
        raise ValueError(f"layer {write.layer} has no heads with an output matrix; use unit='component'") from None
    z = z.reshape(len(z), *W_O.shape[:2])  # some bridges hook it by heads, some flat
    written = {f"{here}.attn.head.{head}": z[..., head, :] @ W_O[head] for head in range(len(W_O))}
    bias = getattr(attention, "b_O", None)
    if bias is not None and bias.abs().max() > 0:
        written[f"{here}.attn.b_O"] = bias.detach().expand(len(z), -1)
    if write.norm is not None:
        return _through_norm(model, written, write, cache)
    return written if write.factor == 1 else {name: write.factor * value for name, value in written.items()}


def _through_norm(
    model: "TransformerBridge", written: dict[str, Tensor], write: checks.Write, cache: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Each part after the norm that follows attention (Gemma 2, OLMo 2), its scale frozen."""
    norm = checks.measured_norm(getattr(model.blocks[write.layer], str(write.norm)), model.W_U)
    inverse = norm.inverse_scale(cache[write.raw].double(), cache[write.hook].double()).to(cache[write.raw])
    parts = {name: norm.centred(value) * inverse * norm.gain * write.factor for name, value in written.items()}
    if norm.bias is not None:
        parts[f"blocks.{write.layer}.{write.norm}.b"] = (write.factor * norm.bias).expand(len(inverse), -1)
    return parts


def _cache(
    model: HookedModel, inputs: Tensor, names: Sequence[str], pos: int | None
) -> tuple[dict[str, Tensor], Tensor]:
    return cache_with_logits(model, inputs, ["blocks.0.hook_in", *names, *checks.scale_hooks(model)], pos=pos)


def _final(
    model: HookedModel, stack: list[Tensor], cache: dict[str, Tensor], logits: Tensor, units: list[str]
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Each part of the residual stream after the final norm, its scale frozen: [batch, part, d_model]."""
    norm = checks.final_norm(model)
    parts = norm.centred(torch.stack(stack, dim=-2)) / checks.final_scale(model, cache).unsqueeze(-2) * norm.gain
    if norm.bias is not None:
        parts = torch.cat([parts, norm.bias.expand(len(parts), 1, -1).to(parts)], dim=-2)
        units = [*units, "ln_final.b"]
    return parts, logits, tuple(units)


def _need_residual_stream(inputs: Tensor, unit: str) -> None:
    if inputs.is_floating_point():
        raise ValueError(f"unit={unit!r} needs a residual stream; the toy MLP has none: use unit='coordinate'")
