"""Properties of a model that are found by running it, never by its name: readout, final norm, residual stream,
branches.

Only this module returns readouts, gains, the writes of blocks, and runs of branches beside a prompt. It returns one
after the model was run and did what the algebra says; a property that does not hold is refused in one line. Results are
kept for a model as long as its weights, hooks and configuration stay as they are.
"""

import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, product
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechsub import arguments
from mechsub.models.hooked import has_own_forward, hooks_of

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel

    from mechsub.models.hooked import HookedModel

# Of the spread. Models of fp64 hold norms, rotations and softmaxes of fp32.
TOLERANCE = {torch.float64: 2e-4, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 0.1}
_HALF = (torch.float16, torch.bfloat16)
_WHOLE = 2**16  # values up to which a parameter is looked at whole: an edit by `.data` raises no version
_SAMPLE = 64  # values that stand for a larger one
_LAST = slice(-4, None)  # positions of the probe at which a language model is looked at
_AT_LOAD = 64  # positions of the longest probe at loading
_WORK = 10**10  # parameters times positions that loading may spend on a probe
SHORT = 8  # positions of a probe that is long enough for whatever does not depend on the length
_SEED = 20_240_726

_ATTENTION = ("attn", "linear_attn", "mixer", "mamba", "ssm")
_WRITES = (
    (*(f"{name}.hook_out" for name in _ATTENTION), "ln1_post.hook_out", "hook_attn_out"),
    ("mlp.hook_out", "ln2_post.hook_out", "hook_mlp_out"),
)

T = TypeVar("T")


class Refused(ValueError):
    """A property does not hold for this model; the message names the property, and by how much it fails."""


class CannotRun(Refused):
    """The model raises where it is run on a few token ids."""


# What is kept.


@dataclass
class _Known:
    state: tuple
    results: dict = field(default_factory=dict)
    branches_to: int = 0  # the longest prompt and path at which branches were right
    branches_fail: int | float = float("inf")  # the shortest at which they were not
    wide: int = 0  # positions of the widest run that was right, where that is more than the model takes
    wide_fail: int | float = float("inf")  # of the narrowest such that was not
    warned: set[str] = field(default_factory=set)


_KNOWN: weakref.WeakKeyDictionary["HookedModel", _Known] = weakref.WeakKeyDictionary()


def _known(model: "HookedModel") -> _Known:
    state = _state(model)
    try:
        known = _KNOWN.get(model)
        if known is None or known.state != state:
            known = _KNOWN[model] = _Known(state)
        return known
    except TypeError:  # cannot be referred to weakly, or hashed: looked at again each time
        return _Known(state)


def _state(model: "HookedModel") -> tuple:
    """The state by which a change of the model is seen: weights (sum of a sample, version, place), hooks, settings."""
    original = getattr(model, "original_model", None)
    hooks = [
        (id(module), *numbers, id(module.__dict__.get("forward")))
        for module in _modules(model)
        if (numbers := hooks_of(module)) or "forward" in module.__dict__
    ]
    settings = [
        (name, value)
        for owner in (getattr(model, "cfg", None), getattr(original, "config", None), original)
        for name, value in getattr(owner, "__dict__", {}).items()
        if isinstance(value, (bool, int, float, str)) and name != "training"
    ]
    return (_weights(model, original), tuple(hooks), tuple(settings))


def _modules(model: "HookedModel") -> list[torch.nn.Module]:
    roots = [root for root in (getattr(model, "original_model", None), model) if isinstance(root, torch.nn.Module)]
    return [*roots[0].modules(), *roots[1:]] if roots else []


def is_hooked(model: "HookedModel") -> bool:
    """Whether someone's hooks or forwards are in the model: what one run shows need not hold of another."""
    return any(hooks_of(module) or has_own_forward(module) for module in _modules(model))


def _weights(model: "HookedModel", original: object) -> tuple:
    owner = model if original is None else original
    if not isinstance(owner, torch.nn.Module):
        parts = [model.W_U, model.b_U]
    else:
        parts = [*owner.parameters(), *owner.buffers()]
    sums: dict[torch.device, list[Tensor]] = {}
    for part in parts:
        if part.numel() and (part.is_floating_point() or part.dtype == torch.long):
            flat = part.detach().reshape(-1)
            some = flat[:: 1 if part.numel() <= _WHOLE else part.numel() // _SAMPLE].double()
            factors = torch.linspace(1, 2, len(some), dtype=torch.float32).to(some)  # other ones: exchanges are seen
            sums.setdefault(part.device, []).append(some @ factors)
    told = repr([torch.stack(values).tolist() for values in sums.values()])
    return (told, tuple((part.data_ptr(), _version(part), part.dtype) for part in parts))


def _version(part: Tensor) -> int | None:
    """Tensors that are made in inference mode count no versions."""
    return None if part.is_inference() else part._version


def warn_once(model: "HookedModel", text: str) -> None:
    """Print a warning once for a model in its present state."""
    known = _known(model)
    if text not in known.warned:
        known.warned.add(text)
        warnings.warn(text, stacklevel=3)


# The probe: one run at whose end everything is looked at.


class _Probe(NamedTuple):
    inputs: Tensor
    values: dict[str, Tensor]  # hook -> activations, of a language model at these positions
    logits: Tensor
    at: slice = slice(None)


def _results(model: "HookedModel", *properties: str) -> tuple:
    """The measured properties; raises Refused for the first that does not hold."""
    known = _known(arguments.model(model, evaluated=False))
    if not known.results.keys() >= {"readout"}:
        arguments.require_eval(model)
        known.results |= _measured(model)
        known.state = _state(model)  # a first run may set up hooks
    if "norm" in properties and "norm" not in known.results:
        try:
            known.results["norm"] = measured_norm(_ln_final(model), model.W_U)
        except Refused as error:
            known.results["norm"] = error
        except Exception as error:
            known.results["norm"] = Refused(f"the final norm could not be tried out: {type(error).__name__}: {error}")
    return tuple(_given(known.results[each]) for each in properties)


def _given(value: T) -> T:
    if isinstance(value, Refused):
        raise type(value)(*value.args)
    return value


@contextmanager
def measured_on(model: "HookedModel", inputs: Tensor, pos: int | None) -> Iterator[None]:
    """A context in which a model with someone's hooks is measured on these inputs, at this position (all, without one).

    Hooks may act at some positions alone: of them the usual probe, a short prompt, says nothing.
    """
    known = _known(arguments.model(model))
    if not is_hooked(model):
        yield
        return
    kept, at = known.results, slice(None) if pos is None else slice(pos % inputs.shape[-1], pos % inputs.shape[-1] + 1)
    known.results = {name: value for name, value in kept.items() if name not in ("readout", "reads", "stream", "norm")}
    known.results |= _measured(model, inputs, at)
    known.state = _state(model)  # a first run may set up hooks
    try:
        yield
    finally:
        known.results = kept


@torch.no_grad()
def _measured(model: "HookedModel", inputs: Tensor | None = None, at: slice = _LAST) -> dict:
    try:
        probe = _run(model, inputs, at)
    except Exception as error:  # a model of someone else's can raise anything
        said = f"the model could not be tried out ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        advice = "try it on inputs of its own with mechsub.check_model(model, inputs)"
        return dict.fromkeys(("readout", "reads", "stream"), CannotRun(f"{said}; {advice}"))
    found: dict = {}
    for what, measure in (("readout", _measure_readout), ("reads", _measure_reads), ("stream", _measure_stream)):
        try:
            found[what] = measure(model, probe)
        except Refused as error:
            found[what] = error
        except Exception as error:
            found[what] = Refused(f"{type(error).__name__} where the model was tried out: {str(error)[:200]}")
    return found


def _run(model: "HookedModel", inputs: Tensor | None, at: slice) -> _Probe:
    errors = []
    for trial in [inputs] if inputs is not None else _inputs(model):
        try:
            return _run_on(model, trial, at)
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _run_on(model: "HookedModel", inputs: Tensor, at: slice) -> _Probe:
    values: dict[str, Tensor] = {}
    tokens = not inputs.is_floating_point()

    def keep(activation: Tensor, hook: "HookPoint") -> None:
        if isinstance(activation, Tensor):
            values[hook.name] = (activation[..., at, :] if tokens else activation).detach().clone()

    def cut(activation: Tensor, hook: "HookPoint") -> Tensor:
        return activation[..., at, :]

    hooks = [(name, keep) for name in _watched(model)]
    logits = model.run_with_hooks(inputs, fwd_hooks=[*hooks, ("unembed.hook_in", cut)] if tokens else hooks)
    whole = tokens and logits.shape[-2] == inputs.shape[-1]  # what the cut returned is not used
    return _Probe(inputs, values, logits[..., at, :] if whole else logits, at)


def _watched(model: "HookedModel") -> list[str]:
    names = ["unembed.hook_in", "ln_final.hook_in"]
    for layer in range(model.cfg.n_layers):
        names += [f"blocks.{layer}.{part}" for part in ("hook_in", "hook_out", "ln2.hook_in", *chain(*_WRITES))]
    return [name for name in names if name in model.hook_dict]


def probe_tokens(size: int, n: int = 2 * SHORT) -> Int[Tensor, "1 pos"]:
    """Random ids below `size`, the same in every process."""
    size, n = arguments.whole(size, "size", 1), arguments.whole(n, "n", 1)
    return torch.randint(size, (1, n), generator=torch.Generator().manual_seed(_SEED), device="cpu")


@torch.no_grad()
def unlike(model: "TransformerBridge", plain: "PreTrainedModel") -> str | None:
    """How Hugging Face's model over a bridge's weights fails to give the bridge's logits; None where it gives them."""
    known, name = _known(arguments.model(model)), f"plain, {plain.config._attn_implementation}"
    if name not in known.results:
        tokens = probe_tokens(min(arguments.vocabulary(model), arguments.embedding(model))).to(model.W_U.device)
        try:
            found = differ(plain(input_ids=tokens, use_cache=False).logits, model(tokens))
        except Exception as error:  # the code of a family can raise anything
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        known.results[name] = found
        known.state = _state(model)  # a first run may set up hooks
    return known.results[name]


def _inputs(model: "HookedModel") -> Iterator[Tensor]:
    """Inputs that the model may take: token ids, or numbers as wide as its first layer."""
    draw = torch.Generator().manual_seed(_SEED)
    device = model.W_U.device
    width = getattr(model.cfg, "d_in", None)
    if width is None:
        yield _tokens(model, SHORT)[None].to(device)
    for size in (width, getattr(model.cfg, "d_model", None)):
        if size is not None:
            yield torch.rand(3, size, generator=draw, dtype=torch.float32, device="cpu").to(device, model.W_U.dtype)
    if width is not None:
        yield _tokens(model, SHORT)[None].to(device)


def _tokens(model: "HookedModel", n: int, seed: int = _SEED) -> Int[Tensor, "pos"]:
    size = min(arguments.vocabulary(model), arguments.embedding(model))
    return torch.randint(size, (n,), generator=torch.Generator().manual_seed(seed), device="cpu")


def differ(a: Tensor, b: Tensor, spread: Tensor | None = None, *, one_step: bool = False) -> str | None:
    """By how much two tensors differ that should be equal; rounding of b's type does not count.

    one_step: only one product or norm lies between both tensors and their common input, not a whole run. Values of half
    precision then differ by their last bits alone.
    """
    if a.shape != b.shape:
        return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    kind = b.dtype if b.dtype in TOLERANCE else torch.float32
    size = float((b if spread is None else spread).double().std(correction=0))
    off = (a.double() - b.double()).abs()
    if kind in _HALF:  # each value is rounded by its own size: that of the largest would hide a change of the others
        eps = _eps(kind)
        allowed = (4 * eps if one_step else TOLERANCE[kind]) * size + 4 * eps * b.double().abs()
        right = bool((off <= allowed).all()) and (not one_step or float(off.square().mean().sqrt()) <= 2 * eps * size)
    else:
        right = float(off.max()) <= TOLERANCE[kind] * size + 16 * _eps(kind) * float(b.abs().max())
    return None if right else f"off by {float(off.max()):.2g}, the spread is {size:.2g}"


def _eps(kind: torch.dtype) -> float:
    return torch.finfo(torch.float32 if kind == torch.float64 else kind).eps


# The readout.


@dataclass(frozen=True, eq=False)
class Readout:
    """From final states to logits: transform(h @ W_U + b_U), as a run of the model confirmed."""

    model: "HookedModel"
    transform: Callable[[Tensor], Tensor] | None
    scale: float | None  # of a transform that only scales; None where it caps

    def __call__(self, h: Float[Tensor, "... d_model"], tokens: Sequence[int] | None = None) -> Tensor:
        """Logits of `unembed.hook_in`, of all outputs or of some."""
        W_U = self.model.W_U if tokens is None else self.columns(tokens)
        return self.finish(h @ W_U + self.bias(tokens))

    def columns(self, tokens: Sequence[int]) -> Float[Tensor, "*seed d_model token"]:
        W_U = self.model.W_U
        return W_U[..., torch.as_tensor(list(tokens), device=W_U.device)]

    def bias(self, tokens: Sequence[int] | None = None) -> Tensor:
        b_U = self.model.b_U
        return b_U if tokens is None else b_U[..., torch.as_tensor(list(tokens), device=b_U.device)]

    def finish(self, logits: Tensor) -> Tensor:
        """The model's own cap or scale of h @ W_U + b_U."""
        return logits if self.transform is None else self.transform(logits)

    def linear(self, purpose: str) -> float:
        """The factor of h @ W_U + b_U; raises where logits are no linear function of h."""
        if self.scale is None:
            raise Refused(f"{purpose} is algebra of linear logits, and this model caps them (a soft cap); not defined")
        return self.scale


def readout(model: "HookedModel") -> Readout:
    """The readout, returned after it gave the model's own logits."""
    return _results(model, "readout")[0]


def _measure_readout(model: "HookedModel", probe: _Probe) -> Readout:
    transform = getattr(getattr(model, "adapter", None), "apply_output_logits_transform", None)
    scale: float | None = 1.0
    if transform is not None:
        z = torch.linspace(-1000, 1000, 9, device=probe.logits.device, dtype=torch.float32)
        out = transform(z)
        factor = float(out[-1] / z[-1])
        scale = factor if torch.allclose(out, factor * z, rtol=1e-5) else None
        if not torch.allclose(transform(z[2:4]), out[2:4], rtol=1e-5):
            raise Refused("the model's transform of its logits takes them together, and not one by one")
        transform = None if scale == 1.0 else transform
    found = Readout(model, transform, scale)
    h = probe.values.get("unembed.hook_in")
    if h is None:
        raise Refused("the model has no hook 'unembed.hook_in', or it does not fire")
    logits = probe.logits
    if model.W_U.ndim == 3:  # members: samples and positions are one axis to their readouts
        h, logits = h.flatten(1, -2), logits.flatten(1, -2)
    if error := differ(found(h), logits, one_step=True):
        raise Refused(
            f"W_U, b_U and the known cap or scale do not give this model's logits from unembed.hook_in ({error}): "
            "it scales or caps them otherwise, or does something else to them"
        )
    if _is_hooked_behind(model):
        raise Refused(
            "hooks behind unembed.hook_in change this model's logits, which are made here of the states before them; "
            "take them off (reset_hooks(including_permanent=True))"
        )
    return found


def _is_hooked_behind(model: "HookedModel") -> bool:
    """Whether someone's hooks are on the logits: one that acts on some states alone may leave the probe as it is."""
    unembed = getattr(model, "unembed", None)
    ends = [model, getattr(model, "original_model", None), unembed]
    if any(hooks_of(end) and end._forward_hooks for end in ends if isinstance(end, torch.nn.Module)):
        return True
    inner = list(unembed.named_modules())[1:] if isinstance(unembed, torch.nn.Module) else []
    return any(hooks_of(part) for name, part in inner if name != "hook_in")


def reads(model: "HookedModel") -> Callable[..., Tensor]:
    """ln_final, then the readout; returned after they gave the model's logits from the last block's output."""
    found, _ = _results(model, "readout", "reads")

    def read(resid: Tensor, tokens: Sequence[int] | None = None) -> Tensor:
        return found(_ln_final(model)(resid), tokens)

    return read


def _ln_final(model: "HookedModel") -> Callable[[Tensor], Tensor]:
    norm = getattr(model, "ln_final", None)
    if norm is None:
        raise Refused("this model has no final norm (ln_final) before its unembedding")
    return norm


def _measure_reads(model: "HookedModel", probe: _Probe) -> bool:
    last, h = probe.values.get(f"blocks.{model.cfg.n_layers - 1}.hook_out"), probe.values.get("unembed.hook_in")
    if last is None or h is None:
        raise Refused("the last block's hook_out or unembed.hook_in does not fire in this model")
    if error := differ(_ln_final(model)(last), h, one_step=True):
        raise Refused(f"ln_final of the last block's output is not what this model unembeds ({error})")
    return True


# Norms.


@dataclass(frozen=True, eq=False)
class Norm:
    """norm(x) = gain * (x less its mean, if the norm centres) / scale(x) + bias, measured from the module itself.

    Where `normalises` is false, the scale is 1.
    """

    module: Callable[[Tensor], Tensor]
    gain: Float[Tensor, "*seed d"]
    bias: Float[Tensor, "*seed d"] | None
    centres: bool
    normalises: bool

    def __call__(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return self.module(x)

    def centred(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return x - x.mean(-1, keepdim=True) if self.centres else x

    def inverse_scale(self, x: Float[Tensor, "... d"], out: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        """1 / scale(x), from the norm's output for x."""
        linear = self.gain * self.centred(x)
        bare = out if self.bias is None else out - self.bias
        return (bare * linear).sum(-1, keepdim=True) / linear.square().sum(-1, keepdim=True).clamp_min(1e-300)


def final_norm(model: "HookedModel") -> Norm:
    """The final norm; returned after ln_final and the readout gave the model's logits from the last block's output."""
    return _results(model, "readout", "reads", "norm")[-1]


@torch.no_grad()
def measured_norm(norm: Callable[[Tensor], Tensor], W: Float[Tensor, "*seed d _"]) -> Norm:
    """Gain, bias and kind of a norm of rows as wide as W; Refused for a module that is neither linear nor a norm."""
    n_seeds, d = W.shape[:-2], W.shape[-2]
    draw = torch.Generator().manual_seed(_SEED)
    size = 10 * (1 + torch.rand(8, d, generator=draw, dtype=torch.float32, device="cpu"))
    x = size * torch.randn(8, d, generator=draw, dtype=torch.float32, device="cpu").sign()
    x = x.to(W.device).expand(*n_seeds, 8, d)
    try:
        kind = torch.float64 if W.dtype == torch.float64 else torch.float32
        out = norm(x.to(kind))
    except RuntimeError:  # some modules take their own type only
        kind = W.dtype
        out = norm(x.to(kind))
    x = x.to(kind)

    def split(y: Tensor) -> tuple[Tensor, Tensor]:
        plus, minus = norm(y).double(), norm(-y).double()
        return (plus - minus) / 2, (plus + minus) / 2

    odd, even = split(x)
    small = (1e-4 if kind in (torch.float32, torch.float64) else 3e-2) * float(odd.abs().max())
    wide, _ = split(4 * x)
    if float((wide - odd).abs().max()) <= small:
        normalises = True
    elif float((wide - 4 * odd).abs().max()) <= 4 * small:
        normalises = False
    else:
        raise Refused("the final norm is not linear, and keeps its input's scale: its gain is not defined")
    centres = float((norm(x + 30).double() - out.double()).abs().max()) <= small
    bare = x.double() - x.double().mean(-1, keepdim=True) if centres else x.double()
    unit = bare / bare.square().mean(-1, keepdim=True).sqrt() if normalises else bare
    gain, bias = (odd * unit).sum(-2) / unit.square().sum(-2), even.mean(-2)
    if (
        max(float((odd - gain[..., None, :] * unit).abs().max()), float((even - bias[..., None, :]).abs().max()))
        > small
    ):
        raise Refused("the final norm is no gain times a scaled vector, plus a bias: its gain is not defined")
    return Norm(norm, _exact(gain, norm, W), _exact_bias(bias, norm, W, small), centres, normalises)


def _exact(gain: Tensor, norm: object, W: Tensor) -> Tensor:
    """The measured gain, without its rounding where it equals the module's weight, 1 + weight, or 1."""
    weight = getattr(norm, "weight", None)
    weights = [] if not isinstance(weight, Tensor) else [weight.detach(), 1.0 + weight.detach().float()]
    small = 1e-5 if W.dtype in (torch.float32, torch.float64) else 3e-2
    for each in [*weights, W.new_ones(W.shape[-2])]:
        if each.shape[-1:] == gain.shape[-1:] and each.ndim == 1:
            size = each.double().abs()
            if bool(((gain - each.double()).abs() <= small * (size + size.max())).all()):
                return each.to(W.dtype, copy=True)
    return gain.to(W.dtype)


def _exact_bias(bias: Tensor, norm: object, W: Tensor, small: float) -> Tensor | None:
    if float(bias.abs().max()) <= small * 1e-2:
        return None
    own = getattr(norm, "bias", None)
    if (
        isinstance(own, Tensor)
        and own.shape == bias.shape
        and torch.allclose(bias, own.double(), atol=small, rtol=1e-4)
    ):
        return own.detach().to(W.dtype, copy=True)
    return bias.to(W.dtype)


def final_scale(model: "HookedModel", cache: dict[str, Tensor]) -> Float[Tensor, "*batch 1"]:
    """The final norm's scale in a run that cached `scale_hooks`: the value of the norm's own hook where it is right."""
    norm = final_norm(model)
    last, out = cache[scale_hooks(model)[0]], cache["unembed.hook_in"]
    scale = 1 / norm.inverse_scale(last.double(), out.double())
    told = cache.get("ln_final.hook_scale")
    close = 1e-2 if last.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if told is not None and told.shape == scale.shape and torch.allclose(told.double(), scale, rtol=close):
        return told
    return scale.to(last.dtype)


def scale_hooks(model: "HookedModel") -> list[str]:
    arguments.model(model, evaluated=False)
    names = [f"blocks.{model.cfg.n_layers - 1}.hook_out", "unembed.hook_in", "ln_final.hook_scale"]
    return [name for name in names if name in model.hook_dict]


# The residual stream.


class Write(NamedTuple):
    """The write of one part of a block to the residual: factor * (activation of `hook`, less those of `less`).

    `raw` is the module's own output, `norm` the norm between that output and the residual.
    """

    unit: str  # blocks.{layer}.attn.hook_out, or mlp
    layer: int
    hook: str
    factor: float
    less: tuple[str, ...]  # hooks whose activations `hook` holds besides
    raw: str
    norm: str | None

    def of(self, cache: dict[str, Tensor]) -> Tensor:
        value = cache[self.hook]
        for name in self.less:
            value = value - cache[name]
        return value if self.factor == 1 else self.factor * value

    @property
    def hooks(self) -> list[str]:
        return [self.hook, *self.less]


def stream(model: "HookedModel") -> tuple[Write, ...]:
    """The writes of attention and MLP of every block, in order; returned after they summed to the blocks' outputs."""
    return _results(model, "readout", "reads", "stream")[-1]


def _measure_stream(model: "HookedModel", probe: _Probe) -> tuple[Write, ...]:
    if "blocks.0.hook_in" not in probe.values:
        raise Refused("this model has no residual stream (no hook blocks.0.hook_in)")
    writes: list[Write] = []
    for layer in range(model.cfg.n_layers):
        here = f"blocks.{layer}"
        before, after = probe.values[f"{here}.hook_in"], probe.values[f"{here}.hook_out"]
        if layer and (error := differ(before, probe.values[f"blocks.{layer - 1}.hook_out"])):
            raise Refused(f"block {layer} does not take what block {layer - 1} puts out ({error})")
        writes += _block(model, layer, before, after, probe)
    final = probe.values.get("ln_final.hook_in")
    if final is not None and (error := differ(final, probe.values[f"{here}.hook_out"])):
        raise Refused(f"the final norm does not take what the last block puts out ({error})")
    return tuple(writes)


def _block(model: "HookedModel", layer: int, before: Tensor, after: Tensor, probe: _Probe) -> list[Write]:
    values = probe.values
    here, added = f"blocks.{layer}", after.double() - before.double()
    eps, half = _eps(after.dtype), after.dtype in _HALF
    allowed = (4 * eps if half else TOLERANCE[after.dtype]) * float(added.std())
    allowed += (2 if half else 16) * eps * float(max(after.abs().max(), before.abs().max()))
    sides = [
        [p for p in side if f"{here}.{p}" in values and values[f"{here}.{p}"].shape == after.shape] for side in _WRITES
    ]
    pairs = list(product(*sides)) or [(part,) for part in chain(*sides)]
    kinds = ("attn", "mlp") if all(sides) else ("attn",) if sides[0] else ("mlp",)
    for free in (False, True):
        for pair in pairs:
            parts = torch.stack([values[f"{here}.{part}"].double().flatten() for part in pair], dim=1)
            factors = torch.ones(len(pair), dtype=torch.float32)
            if free:
                factors = torch.linalg.lstsq(parts, added.flatten()[:, None]).solution[:, 0]
            left = (added.flatten() - parts @ factors.to(parts)).abs().max()
            if float(left) <= allowed:
                rounded = [1.0 if abs(factor - 1) < 1e-3 else factor for factor in factors.tolist()]
                return [
                    _write(layer, kind, part, factor, values)
                    for kind, part, factor in zip(kinds, pair, rounded, strict=True)
                ]
    folded = _folded(model, layer, before, after, probe)
    if folded is None:
        raise Refused(
            f"what attention and MLP of block {layer} put out does not sum to what the block adds to the residual, "
            "scaled or normed: it adds something else"
        )
    return folded


def _write(layer: int, kind: str, part: str, factor: float, values: dict[str, Tensor]) -> Write:
    here, norm = f"blocks.{layer}", {"attn": "ln1_post", "mlp": "ln2_post"}[kind]
    names = _ATTENTION if kind == "attn" else ("mlp",)
    module = next((name for name in names if f"{here}.{name}.hook_out" in values), names[0])
    unit = f"{here}.{kind}.hook_out"
    between = norm if part.startswith(norm) else None
    raw = f"{here}.{module}.hook_out"
    if between is None and f"{here}.{part}" != raw and raw in values:  # a hook on what was scaled: by how much
        wide, own = values[f"{here}.{part}"].double(), values[raw].double()
        return Write(unit, layer, raw, float((wide * own).sum() / own.square().sum()), (), raw, None)
    return Write(unit, layer, f"{here}.{part}", factor, (), raw, between)


def _folded(model: "HookedModel", layer: int, before: Tensor, after: Tensor, probe: _Probe) -> list[Write] | None:
    """Blocks whose MLP module adds the residual itself (MPT), and whose attention may too (BLOOM)."""
    here = f"blocks.{layer}"
    names = {part: f"{here}.{part}" for part in ("hook_in", "attn.hook_out", "mlp.hook_out", "ln2.hook_in")}
    if not all(name in probe.values for name in names.values()):
        return None
    attention, mlp, middle = (probe.values[names[part]] for part in ("attn.hook_out", "mlp.hook_out", "ln2.hook_in"))
    if differ(mlp, after):
        return None
    if not differ(attention, middle):
        contained: tuple[str, ...] = (names["hook_in"],)
    elif not differ(before + attention, middle):
        contained = ()
    else:
        return None
    if _headsdiffer(model, layer, probe.inputs, probe.at, attention - before if contained else attention):
        return None
    attn = Write(f"{here}.attn.hook_out", layer, names["attn.hook_out"], 1.0, contained, names["attn.hook_out"], None)
    rest = (names["attn.hook_out"],) if contained else (names["hook_in"], names["attn.hook_out"])
    return [attn, Write(f"{here}.mlp.hook_out", layer, names["mlp.hook_out"], 1.0, rest, names["mlp.hook_out"], None)]


def _headsdiffer(model: "TransformerBridge", layer: int, inputs: Tensor, at: slice, written: Tensor) -> bool:
    """Whether the heads of a block do not sum to the write of its attention."""
    kept: list[Tensor] = []

    def keep(activation: Tensor, hook: "HookPoint") -> None:
        kept.append(activation[:, at].flatten(2))

    model.run_with_hooks(inputs, fwd_hooks=[(f"blocks.{layer}.attn.o.hook_in", keep)])
    attention = model.blocks[layer].attn
    W_O, b_O = attention.W_O.detach(), getattr(attention, "b_O", None)
    sums = kept[0] @ W_O.flatten(0, 1)
    return differ(sums if b_O is None else sums + b_O.detach(), written) is not None


# Branches beside a prompt.


class Branches(NamedTuple):
    """Tokens that continue a prompt as a tree. Row i of `sees`: the tokens that token i sees, itself included."""

    tokens: Int[Tensor, "node"]
    sees: Bool[Tensor, "node node"]
    depths: Int[Tensor, "node"]  # 1 for what follows the prompt


def same_place(token: Int[Tensor, "1"], n: int) -> Branches:
    """n copies of one token, each of which sees the prompt and itself."""
    return Branches(token.expand(n), torch.eye(n, dtype=torch.bool), torch.ones(n, dtype=torch.long))


def run_beside(
    model: "HookedModel", prompts: Int[Tensor, "prompt pos"], branches: Branches, hooks: list[tuple[str, Callable]]
) -> Tensor:
    """One run of prompts of equal length, each with all branches beside it. Call `holds_beside` first.

    A token of a branch attends to the whole prompt, its ancestors and itself, and to no other branch.
    """
    n, length = prompts.shape
    device = model.W_U.device
    return model.run_with_hooks(
        torch.cat([prompts, branches.tokens.to(prompts).expand(n, -1)], dim=1).to(device),
        fwd_hooks=hooks,
        attention_mask=_mask(length, branches.sees).expand(n, 1, -1, -1).to(device),
        position_ids=torch.cat([torch.arange(length), length - 1 + branches.depths])[None].expand(n, -1).to(device),
    )


def _mask(length: int, sees: Bool[Tensor, "node node"]) -> Bool[Tensor, "1 1 pos pos"]:
    size = length + len(sees)
    mask = torch.ones(size, size, dtype=torch.float32).tril().bool()
    mask[length:, length:] = sees
    return mask[None, None]


@torch.no_grad()
def holds_beside(model: "HookedModel", length: int, branches: Branches) -> bool:
    """Whether each branch beside a prompt of this length gives the logits of its own plain run.

    A random prompt of this length is run, unless a longer prompt was right or a shorter one wrong. The run shows an
    attention window, a bias by distance, or a mask that is not used. Hooks may act at some positions alone: with them
    nothing is taken from other lengths or branches.
    """
    depth = int(branches.depths.max()) if len(branches.depths) else 0
    total, positions = max(1, length) + max(1, depth), length + len(branches.tokens)
    wide = positions if positions > _context(model) else 0
    known = _known(model)
    if is_hooked(model):
        return _holds_here(model, known, length, branches, total, wide)
    if total >= known.branches_fail or wide >= known.wide_fail:
        return False
    if total <= known.branches_to and wide <= known.wide:
        return True
    arguments.require_eval(model)
    try:
        right = _beside_is_plain(model, total, wide)
    except Exception:  # no mask of this kind, no position ids, ...: it cannot be run so
        right = False
    if right:
        known.branches_to, known.wide = max(known.branches_to, total), max(known.wide, wide)
    elif wide:
        known.wide_fail = wide
    else:
        known.branches_fail = total
    return right


def _holds_here(model: "HookedModel", known: _Known, length: int, branches: Branches, total: int, wide: int) -> bool:
    """Whether these very branches give the states of plain runs, beside a random prompt of this length."""
    key = f"beside {length}, {branches.tokens.tolist()}, {branches.sees.nonzero().tolist()}"
    if key not in known.results:
        arguments.require_eval(model)
        try:
            right = _beside_is_plain(model, total, wide) and _each_is_plain(model, length, branches)
            known.results[key] = right
        except Exception:  # as in holds_beside
            known.results[key] = False
    return known.results[key]


def _each_is_plain(model: "HookedModel", length: int, branches: Branches) -> bool:
    prompt, n = _tokens(model, length), len(branches.tokens)
    found = _states(model, lambda hooks: run_beside(model, prompt[None], branches, hooks), n + 1)[0]
    inner = (branches.sees.sum(0) > 1).tolist()  # seen by others
    paths = [branches.sees[node].nonzero()[:, 0].tolist() for node in range(n) if not inner[node]]
    plain: dict[tuple[int, ...], Tensor] = {}  # copies of one token are one run
    for path in [[], *paths]:
        tail = tuple(branches.tokens[path].tolist())
        expected = plain[tail] = plain[tail] if tail in plain else _states_behind(model, prompt, tail)
        if differ(found[[0, *(node + 1 for node in path)]], expected):
            return False
    return True


def _states_behind(model: "HookedModel", prompt: Tensor, tail: tuple[int, ...]) -> Tensor:
    """States at the prompt's end and at the tokens behind it."""
    tokens = torch.cat([prompt, torch.tensor(tail, dtype=prompt.dtype, device=prompt.device)])[None]
    return _states(model, lambda hooks: _plain(model, tokens, hooks), len(tail) + 1)[0]


def _context(model: "HookedModel") -> int | float:
    config = getattr(getattr(model, "original_model", None), "config", None)
    sizes = (getattr(owner, name, None) for owner, name in ((model.cfg, "n_ctx"), (config, "max_position_embeddings")))
    return min((size for size in sizes if isinstance(size, int) and size > 0), default=float("inf"))


def _beside_is_plain(model: "HookedModel", total: int, wide: int) -> bool:
    """Compare a path and a copy of the prompt's end, with other branches before them, with the plain run of prompt and
    path; and compare the prompt alone, whose end must not depend on the tokens that follow."""
    path = min(3, total - 1)
    plain = _tokens(model, total)
    length = total - path  # of the prompt; its last token is a branch here
    trunk, rest = plain[: length - 1], plain[length - 1 :]
    others = _tokens(model, 2, _SEED + 1)
    tokens = torch.cat([plain[length - 1 : length], others, rest])  # a copy, two below it, the path from its start
    parents = [-1, 0, 1, -1, *range(3, 3 + path)]
    filler = max(0, wide - len(trunk) - len(tokens))
    tokens = torch.cat([tokens[:3], plain[length - 1 : length].expand(filler), tokens[3:]])
    parents = [*parents[:3], *[-1] * filler, *(p if p < 3 else p + filler for p in parents[3:])]
    soft, both = _softened(model), (2, -1)  # a row as it is, and one whose attention looks at all that it may
    branches = _branches(tokens, parents)
    found = _states(model, lambda hooks: run_beside(model, trunk.expand(both), branches, [*soft, *hooks]), len(tokens))
    expected = _states(model, lambda hooks: _plain(model, plain.expand(both), [*soft, *hooks]), path + 1)
    alone = _states(model, lambda hooks: _plain(model, plain[None, :length], hooks), 1)
    pairs = ((found[:, -(path + 1) :], expected), (found[:, 0], expected[:, 0]), (alone[:, 0], expected[:1, 0]))
    return not any(differ(a, b, expected) for a, b in pairs)


def _softened(model: "HookedModel") -> list[tuple[str, Callable]]:
    """Hooks that give the second row's queries length 1. Random and trained models attend to few tokens, which would
    hide that attention may also see others."""

    def shorten(activation: Tensor, hook: "HookPoint") -> Tensor:
        if activation.shape[0] != 2:
            return activation
        row = activation[1:]
        return torch.cat([activation[:1], row / row.norm(dim=-1, keepdim=True).clamp_min(1e-6)])

    parts = ("attn.q.hook_out", "attn.q_norm.hook_out")
    names = [f"blocks.{layer}.{part}" for layer in range(model.cfg.n_layers) for part in parts]
    return [(name, shorten) for name in names if name in model.hook_dict]


def _branches(tokens: Tensor, parents: Sequence[int]) -> Branches:
    sees, depths = torch.eye(len(tokens), dtype=torch.bool), torch.ones(len(tokens), dtype=torch.long)
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] |= sees[parent]
            depths[node] = depths[parent] + 1
    return Branches(tokens, sees, depths)


def _plain(model: "HookedModel", tokens: Tensor, hooks: list[tuple[str, Callable]]) -> Tensor:
    return model.run_with_hooks(tokens.to(model.W_U.device), fwd_hooks=hooks)


def _states(model: "HookedModel", run: Callable[[list], Tensor], n: int) -> Tensor:
    """`unembed.hook_in` at the last n positions of a run."""
    kept: list[Tensor] = []

    def keep(activation: Tensor, hook: "HookPoint") -> Tensor:
        kept.append(activation[:, -n:].clone())
        return activation[:, -1:]

    run([("unembed.hook_in", keep)])
    return kept[0]


@torch.no_grad()
def holds_edited(model: "HookedModel") -> bool:
    """Whether a vector added to a branch after a block has the effect that it has at the last position of a plain run.

    Raises Refused where a change after a block changes nothing: its hook never fires, or its return value is not used.
    """
    known = _known(arguments.model(model, evaluated=False))
    if "edited" not in known.results:
        arguments.require_eval(model)
        try:
            known.results["edited"] = _measure_edited(model)
        except Refused as error:
            known.results["edited"] = error
        except Exception:
            known.results["edited"] = False
    return _given(known.results["edited"])


def _measure_edited(model: "HookedModel") -> bool:
    tokens = _tokens(model, SHORT)
    vector = torch.randn(
        model.cfg.d_model, generator=torch.Generator().manual_seed(_SEED), dtype=torch.float32, device="cpu"
    )
    names = [f"blocks.{layer}.hook_out" for layer in range(model.cfg.n_layers)]
    fired = set()

    def note(activation: Tensor, hook: "HookPoint") -> None:
        fired.add(hook.name)

    def add(activation: Tensor, hook: "HookPoint") -> Tensor:
        out = activation.clone()
        last = out[:, -1]
        out[:, -1] = last + vector.to(out) * last.norm(dim=-1, keepdim=True) / len(vector) ** 0.5  # as long as it is
        return out

    copies, hook = _branches(tokens[-1:].expand(2), [-1, -1]), (names[len(names) // 2], add)
    plain = _states(model, lambda hooks: _plain(model, tokens[None], [*((name, note) for name in names), *hooks]), 1)
    if silent := next((name for name in names if name not in fired), None):
        raise Refused(f"hook {silent!r} never fires in this model: a change after that block would change nothing")
    changed = _states(model, lambda hooks: _plain(model, tokens[None], [hook, *hooks]), 1)
    if torch.equal(plain, changed):
        raise Refused(f"this model does not use what its hook {hook[0]!r} returns: a change there changes nothing")
    try:
        found = _states(model, lambda hooks: run_beside(model, tokens[None, :-1], copies, [hook, *hooks]), 2)
    except Exception:  # no mask of this kind
        return False
    return differ(found[:, 1:], changed) is None


# At loading, and for a reader.


@torch.no_grad()
def try_out(model: "TransformerBridge") -> None:
    """Measure the properties, so that later calls find them. Raises CannotRun, and nothing else."""
    size = sum(p.numel() for p in model.original_model.parameters())
    length = max(SHORT, min(_AT_LOAD, _WORK // max(1, size), int(min(_context(model), 2**20)) - 1))
    try:
        readout(model)
    except CannotRun:
        raise
    except Refused:
        pass
    holds_beside(model, length - 3, _branches(torch.zeros(3, dtype=torch.long), [-1, 0, 1]))
    for ask in (holds_edited, final_norm):
        try:
            ask(model)
        except Refused:
            pass


def record(model: "HookedModel") -> dict:
    """The measured properties as they are stored: only those that hold, with their smallest and largest lengths."""
    known = _known(arguments.model(model, evaluated=False))
    results = known.results
    lengths = {"branches_to": known.branches_to, "wide": known.wide}
    if known.branches_fail != float("inf"):
        lengths["branches_fail"] = int(known.branches_fail)
    edited = results.get("edited")
    found: dict = {"lengths": lengths, "edited": edited if isinstance(edited, bool) else None}
    if isinstance(results.get("readout"), Readout):
        found["scale"] = results["readout"].scale
        found["changed"] = results["readout"].transform is not None
    found["reads"] = results.get("reads") is True
    if isinstance(results.get("stream"), tuple):
        found["stream"] = [list(write) for write in results["stream"]]
    return found


@torch.no_grad()
def recall(model: "TransformerBridge", found: dict) -> bool:
    """Take the properties that `record` stored for the same weights, if all hold; returns whether it took them."""
    if "scale" not in found or not found["reads"] or "stream" not in found or found["edited"] is None:
        return False
    known = _known(model)
    known.branches_to, known.wide = found["lengths"]["branches_to"], found["lengths"]["wide"]
    known.branches_fail = found["lengths"].get("branches_fail", float("inf"))
    transform = model.adapter.apply_output_logits_transform if found["changed"] else None
    known.results |= {
        "readout": Readout(model, transform, found["scale"]),
        "reads": True,
        "edited": found["edited"],
        "stream": tuple(
            Write(unit, layer, hook, factor, tuple(less), raw, norm)
            for unit, layer, hook, factor, less, raw, norm in found["stream"]
        ),
    }
    return True


# For the table of functions (mechsub.measures.functions).


def inputs_to_try(model: "HookedModel", n: int = SHORT) -> Tensor:
    """Inputs that the model takes: a random prompt of n positions, or random numbers for the toy."""
    return _tokens(model, n)[None] if hasattr(model, "original_model") else next(_inputs(model))


def measure_with(model: "HookedModel", inputs: Tensor) -> None:
    """Measure the properties with these inputs, for a model that takes no token ids, or refused all other inputs."""
    known = _known(model)
    if inputs.is_floating_point() or isinstance(known.results.get("readout"), Refused):
        known.results |= _measured(model, inputs)


def warned(model: "HookedModel") -> set[str]:
    """The warnings that were printed for the model, and are not printed again."""
    return _known(model).warned
