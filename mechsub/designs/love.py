"""A language model with the words and stored matrices of `studies.token_entanglement`, and its states by layer."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from mechsub.lab import study

BATCH = 16  # prompts a forward pass
_SHARED = ("model", "family", "format", "spaced", "dtype")  # options that say which matrices a study builds on


class Prompted(NamedTuple):
    """asked: the model, animals, numbers and their prompts; tensors: the matrices of its token_entanglement cell."""

    asked: Any
    tensors: dict


def prompted(cfg) -> Prompted:
    """Load a model and the stored matrices of its words, which are computed first where no cell holds them.

    The cell of token_entanglement is the one with the options that both studies have (model, format, dtype, ...).
    """
    import torch

    from mechsub.lab import store
    from mechsub.models import language
    from studies import token_entanglement as te

    chosen = te.Config(**_shared(cfg))
    tensors = store.read_tensors(study.stored_cell(te, chosen))
    study.progress(0.0, "loading the model")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[chosen.dtype]
    model = language.load_language_model(chosen.model, dtype=dtype)
    asked = te.Questions(model, te.choose_animals(model.tokenizer, chosen), te.choose_partners(chosen), chosen)
    found = Prompted(asked, tensors)
    check_stored(found)
    return found


def _shared(cfg) -> dict:
    return {name: getattr(cfg, name) for name in _SHARED if hasattr(cfg, name)}


def check_stored(found: Prompted) -> None:
    """Raise unless the model still gives the stored matrix, looked at for two animals."""
    q, kept = found.asked, found.tensors["animal_to_number"]
    if kept.shape != (len(q.animals), len(q.partners)):
        raise ValueError(f"the stored matrix is {tuple(kept.shape)}: words differ; run token_entanglement --rerun")
    again = q.partners_after([q.love_animal(i, 0) for i in (0, 1)])
    if (error := float((again - kept[:2]).abs().max())) > (0.02 if q.cfg.dtype == "fp32" else 0.5):
        raise ValueError(f"stored log-probabilities differ by {error:.2g} nats; run token_entanglement --rerun")


def own_tokens(tokenizer: Any, texts: Sequence[str], prompt: Any = None) -> list[tuple[int, ...]]:
    """Token ids of texts behind a prompt (or within any text), without the space that they start with where the
    tokenizer makes it a token of its own: the same for every text, it says nothing of any."""
    from mechsub.inputs.prompts import encode, single_tokens

    behind = None if prompt is None else [prompt]
    space = single_tokens(tokenizer, [" "], behind=behind).get(" ")
    ids = encode(tokenizer, texts, behind=behind)
    return [tokens[1:] if len(tokens) > 1 and tokens[0] == space else tokens for tokens in ids]


def last_states(model: Any, prompts: Sequence, done: tuple[float, float] = (0.0, 1.0)) -> Any:
    """The hidden state after every block at the prompts' last position, fp32 [layer, prompt, d_model].

    Prompts run in batches of equal length, so there is no padding. `done`: the progress before and after.
    """
    import torch

    from mechsub.models.hooked import cache_activations

    out, finished = None, 0
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        for some in (rows[i : i + BATCH] for i in range(0, len(rows), BATCH)):
            tokens = torch.stack([prompts[i] for i in some]).to(model.W_U.device)
            states = torch.stack([h.float().cpu() for h in cache_activations(model, tokens, pos=-1).values()])
            out = states.new_empty(len(states), len(prompts), states.shape[-1]) if out is None else out
            out[:, some] = states
            finished += len(some)
            study.progress(done[0] + (done[1] - done[0]) * finished / len(prompts), "states")
    return out


def check_model(cfg) -> None:
    """Raise, before anything is loaded, for a folder that should not be (`language.check_folder`) and for one in whose
    tokenizer too few animals are one token."""
    if os.path.isdir(cfg.model):  # else nothing is to be imported for it
        import torch

        from mechsub.models import language
        from studies import token_entanglement as te

        language.check_folder(cfg.model, {"fp32": torch.float32, "bf16": torch.bfloat16}[cfg.dtype])
        te.choose_animals(language.load_tokenizer(cfg.model), te.Config(**_shared(cfg)))


def provenance(found: Prompted) -> dict:
    """What the studies that read states say about the model and the words."""
    from mechsub.models import language

    asked = found.asked
    return {
        **language.model_source(asked.model),
        "measured_on": f"{len(asked.animals)} animals that are one token, {len(asked.partners)} {asked.cfg.family}, "
        "the published wording, last position of the prompt",
        "matrices": "the cell of studies.token_entanglement under made_from",
    }
