"""A language model with the words and stored matrices of `studies.token_entanglement`, and its states by layer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mechsub import study

BATCH = 16  # prompts a forward pass


class Prompted(NamedTuple):
    """asked: the model, animals, numbers and their prompts; tensors: the matrices of its token_entanglement cell."""

    asked: Any
    tensors: dict


def prompted(name: str) -> Prompted:
    """Load a model and its stored matrices of all single-token animals and all numbers; made first if missing."""
    from mechsub import language, store
    from studies import token_entanglement

    chosen = token_entanglement.Config(model=name)
    tensors = store.read_tensors(study.stored_cell(token_entanglement, chosen))
    study.progress(0.0, "loading the model")
    model = language.load_language_model(name)
    animals = token_entanglement.choose_animals(model.tokenizer, chosen)
    asked = token_entanglement.Questions(model, animals, token_entanglement.choose_partners(chosen), chosen)
    return Prompted(asked, tensors)


def last_states(model: Any, prompts: Sequence, done: tuple[float, float] = (0.0, 1.0)) -> Any:
    """The hidden state after every block at the prompts' last position, fp32 [layer, prompt, d_model].

    Prompts run in batches of equal length, so there is no padding. `done`: the progress before and after.
    """
    import torch

    from mechsub.hooked import cache_activations

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


def provenance(found: Prompted) -> dict:
    """What both studies say about the model and the words."""
    from mechsub import language

    asked = found.asked
    return {
        **language.model_source(asked.model),
        "measured_on": f"{len(asked.animals)} animals that are one token, {len(asked.partners)} numbers, the published "
        "wording, last position of the prompt",
        "matrices": "the default cell of studies.token_entanglement for this model",
    }
