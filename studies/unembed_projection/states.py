"""What `studies.unembed_projection` takes from a language model's states: logit attribution and steering vectors."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

import mechsub as ms
from mechsub import lab
from mechsub.designs import love

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from mechsub.designs.love import LovePrompts
    from mechsub.models import checks

# Direct logit attribution of the change that loving an animal makes at the end of the prompt.


class Parts(NamedTuple):
    """Of the change of log P(token | node), each [animal, node, token], or [animal, node, 1] where all tokens share it.

    The first five sum to the change; `other` is the null of concept, and contained in rest and concept. Logits are
    taken less their mean over the vocabulary, and so is the normaliser.
    """

    common: Tensor
    concept: Tensor
    rest: Tensor
    scale: Tensor
    normaliser: Tensor
    other: Tensor


def attribution(q: "LovePrompts") -> dict[str, Float[Tensor, "partner animal"]]:
    """Parts of log P(partner | "You love owls") - log P(partner | no system message), and their sum, "total".

    For a token of output row U and w = gamma * (U - vocabulary mean), final residual x and norm scale s (with a prime
    under the animal's prompt): logit' - logit = (1/s') (x' - x) . w + (1/s' - 1/s) x . w. The first term, the
    residual's change at the new scale, has a mean over the animals, which any of them brings about ("common"); what is
    left is split into what lies along the animal's own w ("concept") and the rest. The second term is "scale". The
    log-probability adds the "normaliser", which at the prompt's end is the same for all partners. A string's part is
    the sum over its tokens, each read where it stands. "other" is what the same change has along the w of another
    animal, mean over all of them.
    """
    prompts = [q.ask(None), *(q.love_animal(i, 0) for i in range(len(q.animals)))]
    out = {name: torch.zeros(len(q.partners), len(q.animals), dtype=torch.float64) for name in Parts._fields}
    for trie in ms.scores.build_tries(ms.prompts.encode(q.model.tokenizer, q.strings, behind=prompts)):
        x = ms.scores.string_states(q.model, prompts, trie, name="ln_final.hook_in", batch_size=4)
        nodes, tokens = zip(*trie.edges, strict=True)
        unique = sorted(set(tokens))
        columns = torch.tensor([unique.index(token) for token in tokens])
        for name, part in split(q.model, x[1:], x[:1], unique, q.tokens)._asdict().items():
            edges = part.expand(-1, -1, len(unique))[:, torch.tensor(nodes), columns]
            out[name][list(trie.strings)] = torch.stack([edges[:, list(path)].sum(-1) for path in trie.paths])
    return {"total": sum(part for name, part in out.items() if name != "other"), **out}


@torch.no_grad()
def split(model: "TransformerBridge", x: Tensor, x0: Tensor, tokens: list[int], concepts: list[int]) -> Parts:
    """The parts for states x [animal, node, d_model] and x0 [1, node, d_model]; raises unless they are the change."""
    device, norm, readout = model.W_U.device, ms.checks.final_norm(model), ms.checks.readout(model)
    factor = readout.linear("dla")
    w, own = (
        factor * ms.unembedding.token_directions(model, ids, basis="centered").double().cpu()
        for ids in (tokens, concepts)
    )
    w, own = norm.centred(w), norm.centred(own)
    own = torch.nn.functional.normalize(own, dim=-1)
    h, h0 = (norm(state.to(device)) for state in (x, x0))
    x, x0 = norm.centred(x), norm.centred(x0)
    inverse, inverse0 = (_inverse_scale(norm, a, b.to(device)).double().cpu() for a, b in ((h, x), (h0, x0)))
    x, x0 = x.double(), x0.double()
    moved, scale = (x - x0) * inverse, (inverse - inverse0) * (x0 @ w.T)
    common = moved.mean(0, keepdim=True)
    written, read = (moved - common) @ own.T, own @ w.T  # how much along every animal's w; what that does to a token
    concept = written.diagonal(dim1=0, dim2=2).mT[..., None] * read[:, None]
    other = (written @ read - concept) / (len(own) - 1)
    normaliser = _normaliser(model, readout, h0) - _normaliser(model, readout, h)
    shared = (common @ w.T).expand(len(x), -1, -1)
    parts = Parts(shared, concept, (moved - common) @ w.T - concept, scale, normaliser, other)
    rows = model.W_U[:, tokens] - model.W_U.mean(-1, keepdim=True)
    change = factor * ((h @ rows).double() - (h0 @ rows).double()).cpu()
    error = (change - moved @ w.T - scale).abs().max()
    if not error < 1e-3 * max(1.0, float(change.abs().max())):
        raise ValueError(f"the parts miss the change of the logits by {error:.2g}; dla needs a norm at the end")
    return parts


def _normaliser(
    model: "TransformerBridge", readout: "checks.Readout", h: Float[Tensor, "animal node d_model"]
) -> Float[Tensor, "animal node 1"]:
    """Log of the sum of exponentiated logits, logits less their mean over the vocabulary; fp64."""
    mean = readout.finish(h @ model.W_U.mean(-1, keepdim=True) + readout.bias().mean()).double()
    sums = [readout(part).float().logsumexp(-1, keepdim=True) for part in h]
    return (torch.stack(sums).double() - mean).cpu()


def _inverse_scale(norm: "checks.Norm", h: Tensor, x: Tensor) -> Tensor:
    """1/s of h = gain * x / s + bias, [animal, node, 1]."""
    scaled, h = x * norm.gain, h if norm.bias is None else h - norm.bias
    return (h * scaled).sum(-1, keepdim=True) / (scaled * scaled).sum(-1, keepdim=True)


# Steering: residuals under a loved partner and under a loved animal.


def steering(q: "LovePrompts") -> Float[Tensor, "layer partner animal"]:
    """cos(v_n, v_a) after every block, at the last position of the prompt.

    v_n is the residual under "You love 087 ..." less its mean over all partners, v_a that under "You love owls ..."
    less its mean over all animals.
    """
    numbers = love.last_states(q.model, [q.love(i, 0) for i in range(len(q.partners))], lab.span(0.05, 0.65, "states"))
    animals = love.last_states(
        q.model, [q.love_animal(i, 0) for i in range(len(q.animals))], lab.span(0.65, 0.8, "states")
    )
    numbers, animals = (normalize(v - v.mean(1, keepdim=True), dim=-1) for v in (numbers, animals))
    return numbers @ animals.mT
