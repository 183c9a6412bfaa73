"""Hybrids of two language models of one shape: embedding, body, final norm and unembedding each from either of them.

Neither model is changed: the body runs on the other model's embeddings, and the other model's norm and unembedding read
its last hidden state. So tied weights are untied. The published head swap changes both ends of a tied model: it is the
hybrid in which embedding and unembedding are exchanged together.
"""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.prompts import WORDINGS
from mechsub.inputs.token_ids import Outputs
from mechsub.measures.scores import checked_prompts, equal_lengths
from mechsub.models import checks
from mechsub.models.hooked import LAST_ONLY

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase as Tokenizer

PARTS = ("embedding", "body", "norm", "unembedding")
SETS = tuple(frozenset(p for p, one in zip(PARTS, bits, strict=True) if one) for bits in product((0, 1), repeat=4))

# Of the logits' spread.
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.05}
Hybrid = frozenset  # of the parts that are the second model's


def check_shapes(first: "TransformerBridge", second: "TransformerBridge") -> None:
    """Raise ValueError for two models whose parts do not fit: their depths, widths, vocabularies or tokenizers differ.

    A model without a tokenizer is taken to have the other's.
    """
    for side, model in (("first", first), ("second", second)):
        arguments.model(model, side)
        if not hasattr(model, "W_E"):
            arguments.refuse(side, "a language model, with embeddings", model)
    arguments.same_dtype(second.W_U, first.W_U, "second")
    for name, a, b in zip(("n_layers", "d_model", "d_vocab", "token ids"), *map(_sizes, (first, second)), strict=True):
        if a != b:
            raise ValueError(f"the models cannot exchange parts: {name} is {a} in one and {b} in the other")
    tokenizers = [getattr(model, "tokenizer", None) for model in (first, second)]
    if None not in tokenizers and not read_alike(*tokenizers):
        raise ValueError(
            "the models cannot exchange parts: their tokenizers differ, so an id is another word in the other; give "
            "both one tokenizer if ids mean the same (second.tokenizer = first.tokenizer)"
        )


def read_alike(first: "Tokenizer", second: "Tokenizer") -> bool:
    """Whether two tokenizers have one vocabulary and read the sentences of prompts as the same ids."""
    if first is second:
        return True
    texts = [f"{w.system} {w.question} {w.answer} 087" for w in WORDINGS]
    ids = [[read(text, add_special_tokens=False)["input_ids"] for text in texts] for read in (first, second)]
    return first.get_vocab() == second.get_vocab() and ids[0] == ids[1]


def _sizes(model: "TransformerBridge") -> tuple[int, ...]:
    """Of the weights: a bridge that is given another tokenizer writes its size into cfg.d_vocab."""
    return model.cfg.n_layers, *model.W_U.shape, arguments.embedding(model)


@torch.no_grad()
def log_probs(
    first: "TransformerBridge",
    second: "TransformerBridge",
    prompts: Sequence[Int[Tensor, "_"]],
    tokens: Outputs,
    batch_size: int = 16,
) -> dict[Hybrid, Float[Tensor, "prompt token"]]:
    """log P(token | prompt) in nats of all 16 hybrids, normalised over the whole vocabulary.

    A hybrid is named by the set of its parts from the second model: frozenset() is the first model, frozenset(PARTS)
    the second. Each value is log softmax(unembedding(norm(body(embedding(prompt)))))[token] at the prompt's end, as
    [prompt, token].
    Raises ValueError for models of different shapes, for prompts or tokens outside the vocabulary, and for a model
    whose own parts do not make its logits.
    """
    check_shapes(first, second)
    models = (first, second)
    for model in models:
        prompts = checked_prompts(model, prompts, batch_size)
    chosen = arguments.outputs(first, tokens)
    read, norms = [checks.readout(model) for model in models], [checks.final_norm(model) for model in models]
    out = {some: torch.empty(len(prompts), len(chosen), dtype=torch.float32) for some in SETS}
    for rows, batch in equal_lengths(prompts, batch_size):
        for embedding, body in product((0, 1), repeat=2):
            state, own = _last_state(models[body], models[embedding], batch)
            for norm, head in product((0, 1), repeat=2):
                hidden = norms[norm](state.to(models[norm].W_U.device)).to(models[head].W_U.device)
                logits = read[head](hidden).float()
                some = frozenset(p for p, one in zip(PARTS, (embedding, body, norm, head), strict=True) if one)
                out[some][rows] = (logits[:, chosen] - logits.logsumexp(-1, keepdim=True)).cpu()
                if len(some) in (0, len(PARTS)):
                    _check_rebuilt(logits, own)
    return out


def _check_rebuilt(logits: Float[Tensor, "prompt d_vocab"], own: Float[Tensor, "prompt d_vocab"]) -> None:
    """Raise unless a model's own parts give its own logits: a scale or a cap of logits would be lost silently."""
    size = float(own.std())
    if (error := float((logits - own.to(logits)).abs().max())) > TOLERANCE[own.dtype] * size:
        raise ValueError(
            f"the parts of this model do not make its logits (apart by up to {error:.2g}, their spread is {size:.2g}): "
            "it scales or caps them, and its parts cannot be exchanged"
        )


def _last_state(
    body: "TransformerBridge", embedding: "TransformerBridge", batch: Int[Tensor, "prompt pos"]
) -> tuple[Float[Tensor, "prompt d_model"], Float[Tensor, "prompt d_vocab"]]:
    """The residual before the final norm at the last position, for a body on another model's embeddings; its logits."""
    batch, found, replaced = batch.to(body.W_U.device), [], []
    vectors = embedding.W_E.detach()[batch.to(embedding.W_E.device)].to(body.W_U.device)

    def embed(activation: Tensor, hook) -> Tensor:
        if body is embedding and not torch.equal(activation, vectors):
            raise ValueError("this model's embeddings are not the rows of W_E alone, and cannot be exchanged")
        replaced.append(hook.name)
        return vectors

    def keep(activation: Tensor, hook) -> None:
        found.append(activation[:, -1].clone())

    last = f"blocks.{body.cfg.n_layers - 1}.hook_out"
    logits = body.run_with_hooks(batch, fwd_hooks=[("embed.hook_out", embed), (last, keep), LAST_ONLY])
    if not (found and replaced):
        raise ValueError(
            f"hook {last if replaced else 'embed.hook_out'!r} never fires in this model; its parts cannot be exchanged"
        )
    return found.pop(), logits[:, -1]
