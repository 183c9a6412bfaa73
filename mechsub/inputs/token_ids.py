"""What is given as token ids, prompts and lists of texts, looked at before any of it is used.

A padded batch, ids of another vocabulary, one string where a list is meant: each would run and give a wrong number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

_UNPADDED = "give every prompt as its own ids, without padding (a list of tensors may have several lengths)"


def listed(values: Any, name: str) -> list:
    """The values as a list. Raises TypeError for one text, whose letters would be taken, and for what has no order."""
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a list, not the text {values[:40]!r}, whose letters would be taken one by one")
    if isinstance(values, (set, frozenset, Mapping)):
        raise TypeError(
            f"{name} must be a list, not a {type(values).__name__}, which has no order; give list(...) of it"
        )
    try:
        return list(values)
    except TypeError:
        raise TypeError(f"{name} must be a list, not {type(values).__name__}") from None


def check_prompts(model: Any, prompts: Any) -> list[Int[Tensor, "_"]]:
    """Prompts as a list of 1-D tensors of token ids. Raises one line for anything else, and for padding."""
    if isinstance(prompts, Mapping):
        raise TypeError(f"the prompts are a {type(prompts).__name__}, not token ids; {_UNPADDED}")
    if isinstance(prompts, Tensor) and prompts.ndim != 2:
        raise ValueError(f"the prompts must be a list of 1-D tensors of token ids, not a {prompts.ndim}-D tensor")
    rows = [_ids(prompt, f"prompt number {number}") for number, prompt in enumerate(listed(prompts, "the prompts"))]
    if not rows or not all(map(len, rows)):
        raise ValueError("there is no prompt, or an empty one; every prompt needs a token")
    _check_range(model, torch.cat([row.cpu() for row in rows]))
    _check_padding(model, [row.tolist() for row in rows])
    return rows


def check_prompt(model: Any, prompt: Any) -> Int[Tensor, "pos"]:
    """One prompt's token ids, a 1-D tensor."""
    if isinstance(prompt, Tensor) and prompt.ndim != 1:
        raise ValueError(f"one prompt must be a 1-D tensor of token ids, not {prompt.ndim}-D; give one row of it")
    return check_prompts(model, [prompt])[0]


def check_batch(model: Any, ids: Any) -> Int[Tensor, "batch pos"]:
    """Token ids [batch, pos] of prompts of one length. Raises one line for anything else, and for padding."""
    if isinstance(ids, Mapping):
        raise TypeError(f"the inputs are a {type(ids).__name__}, not token ids; {_UNPADDED}")
    if not isinstance(ids, Tensor):
        raise TypeError(f"the inputs must be a tensor of token ids [batch, pos], not {type(ids).__name__}")
    if ids.ndim != 2 or not ids.numel():
        raise ValueError(f"token ids must be [batch, pos], not {list(ids.shape)}; one prompt is ids[None]")
    _check_integers(ids, "the inputs")
    _check_range(model, ids)
    _check_padding(model, ids.tolist())
    return ids


def check_tokens(model: Any, tokens: Any) -> list[int]:
    """A list of outputs. Raises for what has no order and for ids outside the vocabulary: -1 would be its last."""
    values = tokens.tolist() if isinstance(tokens, Tensor) else listed(tokens, "the tokens")
    if not isinstance(values, list) or any(isinstance(v, bool) or not hasattr(v, "__index__") for v in values):
        raise TypeError("the tokens must be a list of token ids, each a whole number")
    if values:
        _check_range(model, torch.tensor([int(value) for value in values]))
    return [int(value) for value in values]


def _ids(prompt: Any, name: str) -> Int[Tensor, "_"]:
    if isinstance(prompt, (str, Mapping)):
        raise TypeError(
            f"{name} is a {type(prompt).__name__}, not token ids; make them with mechsub.chat or prompts.plain"
        )
    try:
        ids = prompt if isinstance(prompt, Tensor) else torch.tensor(listed(prompt, name))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a 1-D tensor of token ids") from None
    if ids.ndim != 1:
        raise ValueError(f"{name} must be a 1-D tensor of token ids, not {list(ids.shape)}")
    if ids.numel():
        _check_integers(ids, name)
    return ids


def _check_integers(ids: Tensor, name: str) -> None:
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{name} must be token ids, whole numbers, not {str(ids.dtype).removeprefix('torch.')}")


def _check_range(model: Any, ids: Tensor) -> None:
    n = model.W_U.shape[-1]
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= n:
        raise ValueError(f"token id {low if low < 0 else high} is outside the vocabulary of this model, 0..{n - 1}")


def _check_padding(model: Any, rows: Sequence[list[int]]) -> None:
    """Raise for rows as a tokenizer's padded batch has them.

    One token that ends a turn or a text is part of a prompt. What no prompt has is a run of one control token at an
    end; a token that serves as padding alone; and, among prompts of one length, an end that only some have: the
    longest of a batch needs no padding.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return
    padding, alone, controls = _padding_tokens(tokenizer)
    together = len({len(row) for row in rows}) == 1
    for side, ends in (("start", [row[:3] for row in rows]), ("end", [row[:-4:-1] for row in rows])):
        for number, end in enumerate(ends):
            if end[0] in alone or (end[0] in controls and _is_run(tokenizer, end, side)):
                said = tokenizer.convert_ids_to_tokens(end[0])
                raise ValueError(f"prompt number {number} {side}s with padding ({said!r}); {_UNPADDED}")
        for token in padding:
            having = [end[0] == token for end in ends]
            if together and any(having) and not all(having):
                said = tokenizer.convert_ids_to_tokens(token)
                raise ValueError(
                    f"prompt number {having.index(True)} {side}s with {said!r} and others of its length do not, as in "
                    f"a padded batch; {_UNPADDED}"
                )


def _padding_tokens(tokenizer: Any) -> tuple[set[int], set[int], set[int]]:
    """Tokens that batches are padded with; those of them that nothing else is written with; all control tokens."""
    from mechsub.inputs.templates import template

    pad, eos, bos = (getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "eos", "bos"))
    written = pad is not None and str(tokenizer.pad_token) in (template(tokenizer) or "")
    added = getattr(tokenizer, "added_tokens_decoder", {})
    controls = {number for number, token in added.items() if token.special}
    controls |= set(getattr(tokenizer, "all_special_ids", ()))
    alone = set() if pad is None or pad in (eos, bos) or written else {pad}
    return {pad, eos} - {None}, alone, controls  # type: ignore[return-value]


def _is_run(tokenizer: Any, end: list[int], side: str) -> bool:
    """Whether a control token stands twice at an end; two BOS at the start are the published prompts'."""
    if len(end) < 2 or end[0] != end[1]:
        return False
    bos, others = tokenizer.bos_token_id, (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return not (side == "start" and end[0] == bos and bos not in others and end[2:] != [bos])
