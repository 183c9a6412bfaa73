"""Other weights under a model's configuration: drawn anew, as before training, or with the noise of 4-bit rounding.

Each is a null of statements about a model. "random-0" shows effects of the configuration, the tokenizer and the prompts
without training. "rounding-0" shows how much of an effect is left where every weight is as uncertain as in a file of 4
bits. The number is a seed.
"""

import copy
import re
from typing import TYPE_CHECKING

from mechsub.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from transformers import PreTrainedModel

TRAINED, RANDOM, ROUNDING = "trained", "random", "rounding"
WANTED = f"{TRAINED}, {RANDOM}-SEED or {ROUNDING}-SEED, as {RANDOM}-0"
_NAMES = re.compile(rf"({RANDOM}|{ROUNDING})-(0|[1-9][0-9]{{0,8}})")
_BLOCK, _LEVELS = 32, 16  # of ggml's Q4_1: 32 neighbouring values have one least value and one step, and 16 levels


def is_known(text: str) -> bool:
    """Whether a text names weights: trained, random-SEED or rounding-SEED."""
    return text == TRAINED or bool(_NAMES.fullmatch(text))


def is_random(text: str) -> bool:
    return text.startswith(f"{RANDOM}-")


def describe(text: str) -> str:
    """How the weights were made, for provenance."""
    if is_random(text):
        return f"drawn by transformers' own initialisation from config.json in fp32, seed {text.partition('-')[2]}"
    return (
        "those of the file plus noise, uniform within half a step of Q4_1 (a 15th of the range of 32 neighbours) on "
        f"either side, in all matrices but the embeddings, seed {text.partition('-')[2]}"
    )


def put(model: "PreTrainedModel", text: str) -> None:
    """Put the weights that a text names into a Hugging Face model, in place.

    Raises ValueError for a text that names no weights, and for rounding of a model without matrices.
    """
    if not is_known(text):
        raise ValueError(f"weights must be {WANTED}, not {text[:60]!r}")
    if text == TRAINED:
        return
    seed = int(text.partition("-")[2])
    with torch.no_grad():
        if is_random(text):
            model.load_state_dict(_drawn(model, seed))
        else:
            _move(model, torch.Generator().manual_seed(seed))


def _drawn(model: "PreTrainedModel", seed: int) -> dict:
    """Draw weights with transformers. It draws from torch's global generator, whose state is restored afterwards."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=torch.float32)
    return fresh.state_dict()


def _move(model: "PreTrainedModel", draw: "Generator") -> None:
    weights = _matrices(model)
    if not weights:
        raise ValueError("weights: this model has no matrices, whose rounding could be told")
    for weight in weights:
        step = steps(weight)
        noise = torch.rand(step.shape, generator=draw, dtype=torch.float32, device="cpu") - 0.5
        weight += (noise.to(step) * step).to(weight)


def _matrices(model: "PreTrainedModel") -> list["Tensor"]:
    """All matrices but the embeddings: those of linear layers, then those that models hold otherwise, as of experts.

    In this order the draws for models of linear layers alone are those that they have always been.
    """
    output = model.get_output_embeddings()
    linear = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not output]
    embeddings = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) or m is output]
    seen = {id(p) for p in (*linear, *(m.weight for m in (*embeddings, model.get_input_embeddings())))}
    others = [(name, p) for name, p in model.named_parameters() if p.squeeze().ndim > 1 and id(p) not in seen]
    return linear + [p for name, p in others if not name.endswith("bias")]  # experts' biases are stacked vectors


def steps(weight: "Tensor") -> "Tensor":
    """The step of Q4_1 at every weight: a 15th of the range of its block of 32 neighbours in a row, fp32, same shape.

    The step is exact for a matrix that was quantised in this way, wherever a block uses both ends of its range. The
    rest of a row behind the last whole block is a block of its own.
    """
    out = torch.empty_like(weight, dtype=torch.float32)
    for start in range(0, weight.shape[-1], _BLOCK):
        block = weight[..., start : start + _BLOCK].float()
        width = block.amax(-1, keepdim=True) - block.amin(-1, keepdim=True)
        out[..., start : start + _BLOCK] = width / (_LEVELS - 1)
    return out
