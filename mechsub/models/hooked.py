"""Activations of hooked models: the same two functions for the toy MLP and a TransformerBridge."""

import difflib
import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.token_ids import check_batch

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

# Hooks of these modules keep what passes, and change nothing.
_KEEPERS = (
    "transformers.utils.output_capturing",
    "transformer_lens.model_bridge.component_setup",
    "transformer_lens.model_bridge.generalized_components.",
)


@runtime_checkable
class HookedModel(Protocol):
    """What analyses need of a model: HookedMLP, TransformerBridge and any HookedRootModule with these names."""

    cfg: Any  # n_layers, d_model, d_vocab
    hook_dict: "dict[str, HookPoint]"
    training: bool
    W_U: Tensor
    b_U: Tensor
    ln_final: Callable[[Tensor], Tensor]

    def __call__(self, inputs: Tensor) -> Tensor: ...
    def run_with_hooks(self, *args: object, fwd_hooks: list, **kwargs: object) -> Tensor: ...


def hidden_names(model: HookedModel) -> list[str]:
    """Hook names of the hidden states after every block: `blocks.{l}.hook_out`."""
    arguments.model(model, evaluated=False)
    return [f"blocks.{layer}.hook_out" for layer in range(model.cfg.n_layers)]


def hooks_of(module: torch.nn.Module) -> list[int]:
    """Numbers of a module's hooks, without those by which TransformerLens and transformers keep what passes."""
    added = {handle.hook.id: getattr(handle, "user_hook", None) for handle in getattr(module, "fwd_hooks", ())}
    tables = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    hooks = {number: added.get(number) or hook for table in tables for number, hook in table.items()}
    return [number for number, hook in hooks.items() if not _origin(hook).startswith(_KEEPERS)]


def _origin(hook: object) -> str:
    """The module in which a hook was written."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    return getattr(hook, "__module__", None) or ""


def has_own_forward(module: torch.nn.Module) -> bool:
    """Whether someone put a forward over that of its class; TransformerLens's bridges do so, and accelerate."""
    own = vars(module).get("forward")
    return own is not None and not _origin(own).startswith(("transformer_lens.", "accelerate.", "transformers."))


def check_unhooked(model: torch.nn.Module, name: str, parts: Sequence[type[torch.nn.Module]] = ()) -> None:
    """Raise for a network that hooks change: what reads its weights alone would not see them.

    parts: the classes whose forwards those weights stand for; a module with another forward is refused too.
    """
    original = getattr(model, "original_model", None)  # of a bridge, whose modules do not hold it
    for module in (*model.modules(), *(original.modules() if isinstance(original, torch.nn.Module) else ())):
        if hooks_of(module):
            raise ValueError(
                f"{name} has hooks, which are not run here; take them off (reset_hooks(including_permanent=True)), or "
                "write their change into its weights"
            )
        if has_own_forward(module):
            refuse_part(name, f"{type(module).__name__}.forward")
    known = {part.forward for part in parts}
    for where, module in model.named_modules():
        if parts and type(module).forward not in known:
            refuse_part(name, f"{where or type(module).__name__}.forward")


def refuse_part(name: str, part: str) -> NoReturn:
    raise ValueError(
        f"{name} has {part} of its own, and only its cfg and weights are read here, so it would be taken for another "
        "network; use one without"
    )


def _last(activation: Tensor, hook) -> Tensor:
    return activation[..., -1:, :]


# Added last to a run of a language model: only its last position reaches the unembedding, whose logits over the
# whole vocabulary would otherwise take most of the memory and a fifth of the time.
LAST_ONLY = ("unembed.hook_in", _last)


@torch.no_grad()
def cache_activations(
    model: HookedModel,
    inputs: Tensor,
    names: Sequence[str] | None = None,
    *,
    pos: int | None = None,
    batch_size: int | None = None,
) -> dict[str, Float[Tensor, "..."]]:
    """Activations at `names` (default: `hidden_names`), and at nothing else, over all inputs.

    inputs: images [*seed, batch, d_in] for the toy, tokens [batch, pos] for a language model. Returns
    [*seed, batch, d] for the toy; [batch, d] at position `pos` of a language model, or [batch, pos, d] without it.
    Inputs run in batches of `batch_size`. With `pos`, only that position is kept and only the last is unembedded, so
    the memory needed is that of the result.
    Raises for padded tokens, an unknown hook name, a model in train mode, a batch size below 1, and NaN or infinite
    activations.
    """
    names = list(dict.fromkeys(hidden_names(model) if names is None else arguments.texts(names, "names")))
    if batch_size is not None:
        batch_size = arguments.whole(batch_size, "batch_size", 1)
    _check(model, inputs, names, pos)
    points = _points(model, names)
    parts, keep = _kept(model, points, inputs, pos)
    for batch in inputs.split(batch_size or inputs.shape[-2], dim=-2):
        model.run_with_hooks(batch, fwd_hooks=_hooks(model, list(parts), keep, pos))
    axis = _axis(model, inputs)
    cache = {name: _finite(name, _fired(name, parts[point]), axis) for name, point in points.items()}
    for name, found in cache.items():
        if _is_tokens(inputs) and (found.ndim <= axis or found.shape[axis] != inputs.shape[-2]):
            raise ValueError(f"hook {name!r} has no axis of prompts (shape {list(found.shape)}); leave it out")
    return cache


@torch.no_grad()
def cache_with_logits(
    model: HookedModel, inputs: Tensor, names: Sequence[str], *, pos: int | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """`cache_activations` and the logits of the same run: [batch, d_vocab] at `pos`, or all logits without `pos`.

    Raises the errors of `cache_activations`, and for NaN or infinite logits.
    """
    names = list(dict.fromkeys(arguments.texts(names, "names")))
    _check(model, inputs, names, pos)
    points = _points(model, names)
    parts, keep = _kept(model, points, inputs, pos)

    def only(activation, hook):
        return activation[..., [pos], :]

    hooks = [(point, keep) for point in parts]
    cut = pos is not None and LAST_ONLY[0] in model.hook_dict and "unembed.hook_out" not in parts
    logits = model.run_with_hooks(inputs, fwd_hooks=[*hooks, (LAST_ONLY[0], only)] if cut else hooks)
    if pos is not None:
        logits = logits[..., 0 if logits.shape[-2] == 1 else pos, :]
    cache = {name: _finite(name, _fired(name, parts[point]), _axis(model, inputs)) for name, point in points.items()}
    return cache, _finite("logits", [logits], 0)


@torch.no_grad()
def run_patched(
    model: HookedModel, inputs: Tensor, activations: dict[str, Tensor], *, pos: int | None = None
) -> Float[Tensor, "..."]:
    """Logits of a run in which the activations at the given hooks are replaced.

    Without `pos`, the whole activation is replaced, and all logits are returned ([*seed, batch, d_vocab], or [batch,
    pos, d_vocab] for a language model). With `pos`, only that position is replaced by [batch, d], and the logits of the
    last position are returned. Stitching is patching the toy's layer l with another model's activation. Raises for an
    unknown hook, a shape that does not fit, NaN or infinite values, and a hook that never fires.
    """
    _check(model, inputs, list(arguments.mapping(activations, "activations", "tensors", 0)), pos)
    for name, new in activations.items():
        arguments.values(new, f"activations[{name!r}]", "*lead d", floating=True)
    points = _points(model, list(activations))
    given = {point: name for name, point in points.items()}
    if len(given) < len(points):
        twice = next(name for name, point in points.items() if given[point] != name)
        raise ValueError(f"activations name one hook twice, {twice} and {given[points[twice]]}; leave one out")
    fired = set()

    def patch(activation, hook):
        fired.add(hook.name)
        name = given[hook.name]
        new, old = activations[name], activation if pos is None else _at(model, activation, name, inputs, pos)
        if new.shape != old.shape:
            raise ValueError(
                f"activations[{name!r}] must have shape {tuple(old.shape)}, not {tuple(new.shape)}, to replace it"
            )
        return (
            new.to(activation) if pos is None else _patched(activation, new.to(activation), _axis(model, inputs), pos)
        )

    logits = model.run_with_hooks(inputs, fwd_hooks=_hooks(model, list(given), patch, pos))
    for name, point in points.items():
        _fired(name, fired & {point})
    return logits if pos is None else logits[..., -1, :]


def _kept(
    model: HookedModel, points: dict[str, str], inputs: Tensor, pos: int | None
) -> tuple[dict[str, list[Tensor]], Callable]:
    """A list for every hook point, and the hook that fills them."""
    parts: dict[str, list[Tensor]] = {point: [] for point in points.values()}

    def keep(activation, hook):
        part = activation if pos is None else _at(model, activation, hook.name, inputs, pos)
        parts[hook.name].append(part.detach().clone())

    return parts, keep


def _hooks(model: HookedModel, names: list[str], hook: Callable, pos: int | None) -> list[tuple[str, Callable]]:
    hooks = [(name, hook) for name in names]
    cut = pos is not None and LAST_ONLY[0] in model.hook_dict and "unembed.hook_out" not in names
    return [*hooks, LAST_ONLY] if cut else hooks


def _axis(model: HookedModel, inputs: Tensor) -> int:
    """The axis of images or prompts in an activation: of prompts the first, in an ensemble that after its members'."""
    return model.W_U.ndim - 2 if _is_tokens(inputs) else -2


def _at(model: HookedModel, activation: Tensor, name: str, inputs: Tensor, pos: int) -> Tensor:
    """Raises where the axis after the prompts' is no position, as in attention patterns [batch, head, query, key]."""
    length, shape, axis = inputs.shape[-1], list(activation.shape), _axis(model, inputs) + 1
    square = len(shape) == axis + 3 and shape[axis + 1 :] == [length, length]
    if len(shape) < axis + 2 or shape[axis] != length or square:
        raise ValueError(
            f"hook {name!r} has no position on axis {axis} (shape {shape}); leave pos out, and select there"
        )
    return activation.select(axis, pos)


def _patched(activation: Tensor, new: Tensor, axis: int, pos: int) -> Tensor:
    """`axis` is that of prompts; positions are on the next."""
    out = activation.clone()
    out.select(axis + 1, pos).copy_(new)
    return out


def _is_tokens(inputs: Tensor) -> bool:
    return not inputs.is_floating_point()


def _check(model: HookedModel, inputs: Tensor, names: list[str], pos: int | None) -> None:
    check_hooks(arguments.model(model), names)
    check_inputs(model, inputs)
    if pos is not None and not _is_tokens(inputs):
        raise ValueError("pos is for language models: this input has no position axis")
    if pos is not None:
        arguments.position(pos, inputs.shape[1])


_OLDER = {"hook_resid_pre": "hook_in", "hook_resid_post": "hook_out"}  # of a block, in TransformerLens


def _points(model: HookedModel, names: Sequence[str]) -> dict[str, str]:
    """Name -> the name under which its hook fires; a block's have older names too, as blocks.0.hook_resid_post."""
    known = {name: _known(model, name) for name in names}
    return {name: model.hook_dict[own].name or own for name, own in known.items()}


def _known(model: HookedModel, name: str) -> str:
    """The name, or the other one that means the same, where the model has only that."""
    block, _, last = name.rpartition(".")
    other = f"{block}.{_OLDER.get(last, last)}" if re.fullmatch(r"blocks\.\d+", block) else name
    return other if name not in model.hook_dict and other in model.hook_dict else name


def check_hooks(model: HookedModel, names: list[str]) -> None:
    """Raise for a name that is no hook of the model."""
    unknown = [name for name in names if _known(model, name) not in model.hook_dict]
    if unknown:
        near = difflib.get_close_matches(unknown[0], list(model.hook_dict), 4) or list(model.hook_dict)
        example = ", ".join(near[:4])
        raise ValueError(f"unknown hook {unknown[0]!r} among the names; this model has for example {example}")


def check_inputs(model: HookedModel, inputs: Tensor) -> None:
    """Tokens [batch, pos] for a language model, whose embedding is W_E; images for any other."""
    if not hasattr(model, "W_E"):
        if hasattr(model, "check_images"):
            model.check_images(inputs, "inputs")
        arguments.finite(arguments.tensor(inputs, "inputs", "*seed batch d_in"), "inputs")
        return
    check_batch(model, inputs)


def _fired(name: str, evidence):
    if not evidence:
        raise ValueError(f"hook {name!r} exists but never fired in this run; choose another hook")
    return evidence


def _finite(name: str, parts: list[Tensor], axis: int) -> Tensor:
    out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)
    if not torch.isfinite(out).all():
        raise ValueError(f"activations at {name!r} hold NaN or infinite values")
    return out
