"""Which public functions work on a model: each is called, and gives the right number or refuses."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor

import mechsub as ms
from mechsub import arguments
from mechsub.measures.attribution import Unit
from mechsub.measures.unembedding import METRICS
from mechsub.models import checks
from mechsub.models.hooked import HookedModel, check_inputs


class Check(NamedTuple):
    """Whether a public function works on a model: "right", "slower" (string by string, edit by edit) or "refused"."""

    function: str
    result: str
    why: str


class Checks(tuple[Check, ...]):
    """The table of `check_model`; it prints as a table."""

    def __repr__(self) -> str:
        widths = [max(len(row[column]) for row in self) for column in (0, 1)]
        return "\n".join(f"{row.function:{widths[0]}}  {row.result:{widths[1]}}  {row.why}".rstrip() for row in self)


def check_model(model: HookedModel, inputs: Tensor | None = None, *, n: int = checks.SHORT) -> Checks:
    """Call every public function that reads a model: which give the right number, which refuse, and why?

    inputs: of the model (default: random token ids, or random numbers for the toy); a model of your own that takes
    neither needs them. n: positions of the random prompt; more positions than an attention window show the effect of
    the window. The functions check their numbers as they are called, so the table says what they do on this model.
    """
    arguments.model(model)
    n = arguments.whole(n, "n", 1)
    if inputs is not None:
        check_inputs(model, inputs)
    else:
        inputs = checks.inputs_to_try(model, n)
    checks.measure_with(model, inputs)
    rows = [_checked(model, name, call) for name, call in _calls(model, inputs).items()]
    return Checks(rows)


def _checked(model: HookedModel, name: str, call: Callable[[], object]) -> Check:
    already = checks.warned(model)
    before = set(already)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        already.clear()
        try:
            call()
            result, why = "right", ""
        except Exception as error:  # whatever it is, it is the line that the caller would see
            told = " ".join(str(error).split())
            result, why = "refused", told if isinstance(error, ValueError) else f"{type(error).__name__}: {told}"
    slower = [str(each.message) for each in said if "which is slower" in str(each.message)]
    already |= before
    if slower and result == "right":
        return Check(name, "slower", slower[0])
    return Check(name, result, why)


def _calls(model: HookedModel, inputs: Tensor) -> dict[str, Callable[[], object]]:
    """Every public function that takes a model, by name, with small arguments."""
    language = not inputs.is_floating_point()
    size = model.W_U.shape[-1]
    a, b = list(range(min(3, size // 2))), list(range(size - min(3, size // 2), size))
    pos = -1 if language else None
    hidden = f"blocks.{model.cfg.n_layers - 1}.hook_out"

    def resid() -> Tensor:
        name = next(one for one in ("ln_final.hook_in", "unembed.hook_in", hidden) if one in model.hook_dict)
        return ms.cache_activations(model, inputs, [name], pos=pos)[name]

    def patched() -> Tensor:
        return ms.run_patched(model, inputs, ms.cache_activations(model, inputs, [hidden], pos=pos), pos=pos)

    def attributed(unit: Unit) -> object:
        return ms.direct_logit_attribution(model, inputs, a, pos=pos, unit=unit)

    calls: dict[str, Callable[[], object]] = {
        "cache_activations": lambda: ms.cache_activations(model, inputs, pos=pos),
        "run_patched": patched,
        "logit_lens": lambda: ms.logit_lens(model, inputs, pos=pos),
        "unembed": lambda: ms.unembed(model, resid()),
        "token_directions": lambda: ms.token_directions(model, a, basis="centered"),
        **{f"unembed_projection, {metric}": partial(ms.unembed_projection, model, a, b, metric) for metric in METRICS},
        **{f"direct_logit_attribution, {unit}": partial(attributed, unit) for unit in get_args(Unit)},
        "direction_basis": lambda: ms.direction_basis(model, a),
        "ablated_columns": lambda: ms.ablated_columns(model, b, ms.direction_basis(model, a)),
        "ablated_hidden": lambda: ms.ablated_hidden(model, resid(), ms.direction_basis(model, a)),
        "price": lambda: ms.price(model, a, b),
        "cheapest_change": lambda: ms.cheapest_change(model, resid()[..., :1, :], a, b, among=a, n_steps=2),
    }
    if not language:
        return calls
    prompt = inputs[0]
    trie = ms.scores.build_tries([(1, 2, 0), (1, 1, 0)])[0]
    return calls | {
        "next_token_log_probs": lambda: ms.next_token_log_probs(model, [prompt]),
        "string_log_probs": lambda: (checks.readout(model), ms.scores.string_states(model, [prompt], trie)),
        "steered_logits": lambda: ms.steered_logits(
            model, prompt, [0, 0], torch.ones(2, model.cfg.d_model, dtype=torch.float32), a
        ),
        "prompt_divergence": lambda: ms.prompt_divergence(model, [prompt], prompt, prompt[:2]),
    }
