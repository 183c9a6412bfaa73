"""Token ids that a model is given: those of its embedding, and no padding.

A padded batch, or ids of another vocabulary, would run and give a wrong number. `mechsub.arguments` checks whether a
value holds token ids at all.
"""

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from mechsub import arguments

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase as Tokenizer

Outputs = Sequence[int | str] | Int[Tensor, "token"]  # of a vocabulary: ids, or texts of one token each

_RAN: weakref.WeakKeyDictionary["TransformerBridge", int] = weakref.WeakKeyDictionary()  # tokens, beyond its own number


def check_prompts(model: "TransformerBridge", prompts: object, name: str = "prompts") -> list[Int[Tensor, "_"]]:
    """Prompts as a list of 1-D tensors of token ids. Raises one line for anything else, and for padding."""
    check_alone(model)
    rows = arguments.prompts(prompts, arguments.embedding(model), name)
    check_length(model, max(map(len, rows)), name)
    check_padding(getattr(model, "tokenizer", None), rows, name)
    return rows


def check_prompt(model: "TransformerBridge", prompt: object, name: str = "prompt") -> Int[Tensor, "pos"]:
    """One prompt's token ids, a 1-D tensor."""
    check_alone(model)
    row = arguments.prompt(prompt, arguments.embedding(model), name)
    check_length(model, len(row), name)
    check_padding(getattr(model, "tokenizer", None), [row], name, alone=True)
    return row


def check_alone(model: "TransformerBridge") -> None:
    """Raise for members stacked in one model: what reads prompts and last positions reads one language model."""
    if model.W_U.ndim != 2:
        raise ValueError(
            f"this model holds {len(model.W_U)} members, and one language model is read; use model(tokens)"
        )


def check_batch(model: "TransformerBridge", ids: object, name: str = "inputs") -> Int[Tensor, "batch pos"]:
    """Token ids [batch, pos] of prompts of one length. Raises one line for anything else, and for padding."""
    ids = arguments.batch(ids, arguments.embedding(model), name)
    check_length(model, ids.shape[1], name)
    check_padding(getattr(model, "tokenizer", None), list(ids), name)
    return ids


def check_length(model: "TransformerBridge", length: int, name: str) -> None:
    """Raise for more tokens than the model has positions: a table of positions (GPT-2, OPT), or one that ends (MPT).

    Rotary positions go on beyond the length that a model was made for. For other kinds, a run of so many tokens
    decides.
    """
    most = getattr(model.cfg, "n_ctx", None)
    kind = getattr(model.cfg, "positional_embedding_type", None)
    if most is None or length <= max(most, 0 if kind == "standard" else _RAN.get(model, 0)):
        return
    if kind != "standard":
        try:
            with torch.no_grad():
                model(torch.zeros(1, length, dtype=torch.long, device=model.W_U.device))
            _RAN[model] = length
            return
        except MemoryError:
            raise
        except (IndexError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
    raise ValueError(f"{name} must have at most {most} tokens, the positions of this model, not {length}")


def check_padding(tokenizer: "Tokenizer", prompts: Sequence[Tensor], name: str, *, alone: bool = False) -> None:
    """Raise for rows as a tokenizer's padded batch has them.

    One token that ends a turn or a text is part of a prompt. These are signs of padding: one control token twice or
    more at an end; a token that is used for padding alone; and, among prompts of one length, an end that only some have
    (the longest prompt of a batch needs no padding).
    """
    if tokenizer is None:
        return
    rows = [prompt.tolist() for prompt in prompts]
    names = [name if alone else f"{name}[{i}]" for i in range(len(rows))]
    padding, only, controls = _padding_tokens(tokenizer)
    together = len({len(row) for row in rows}) == 1
    for side, ends in (("start", [row[:3] for row in rows]), ("end", [row[:-4:-1] for row in rows])):
        for number, end in enumerate(ends):
            if end[0] in only or (end[0] in controls and _is_run(tokenizer, end, side)):
                said = tokenizer.convert_ids_to_tokens(end[0])
                raise ValueError(f"{names[number]} {side}s with padding ({said!r}); {arguments.UNPADDED}")
        for token in padding:
            having = [end[0] == token for end in ends]
            if together and any(having) and not all(having):
                said = tokenizer.convert_ids_to_tokens(token)
                raise ValueError(
                    f"{names[having.index(True)]} {side}s with {said!r} and others of its length do not, as in a "
                    f"padded batch; {arguments.UNPADDED}"
                )


def _padding_tokens(tokenizer: "Tokenizer") -> tuple[set[int], set[int], set[int]]:
    """Tokens of padding; the tokens of padding that have no other use; all control tokens."""
    from mechsub.inputs.templates import template

    pad, eos, bos = (getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "eos", "bos"))
    written = pad is not None and str(tokenizer.pad_token) in (template(tokenizer) or "")
    added = getattr(tokenizer, "added_tokens_decoder", {})
    controls = {number for number, token in added.items() if token.special}
    controls |= set(getattr(tokenizer, "all_special_ids", ()))
    alone = set() if pad is None or pad in (eos, bos) or written else {pad}
    return {number for number in (pad, eos) if number is not None}, alone, controls


def _is_run(tokenizer: "Tokenizer", end: list[int], side: str) -> bool:
    """Whether a control token stands twice at an end. (The published prompts have two BOS at the start.)"""
    if len(end) < 2 or end[0] != end[1]:
        return False
    bos, others = tokenizer.bos_token_id, (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return not (side == "start" and end[0] == bos and bos not in others and end[2:] != [bos])
