"""What `studies.contributions` asks of a model: all in `gather`, which `designs.contributions` then compares."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import mechsub as ms
from mechsub.designs import contribution_parts as cp
from mechsub.designs import love
from mechsub.designs.love import Progress, silent
from mechsub.measures.ablation import ablated_columns, ablated_hidden
from mechsub.measures.unembedding import token_directions
from mechsub.models import checks
from mechsub.models.hooked import LAST_ONLY, cache_activations

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from mechsub.designs.love import LovePrompts, Prompted

LOVED, N_LOVED = (
    ("colors", "cities"),
    6,
)  # "any love" is the mean of six of each family that is not the loved words' own
MESSAGES = ("", "You are a helpful assistant.")
N_LAYERS = 6  # blocks after which residuals are patched, evenly from the first to the last
FEWEST_PAIRS = 4  # they are resampled
N_OTHERS = 5  # other loved things whose directions are taken away, as a null
POSITIONS = ("number", "rest of the system message", "end of the system message", "question and answer", "final")


class Stored(NamedTuple):
    """Words, and log-probabilities that token_entanglement has stored, in the published and in other wordings; fp64."""

    animals: list[str]
    numbers: list[str]
    subset: list[int]  # the numbers that were asked for in other wordings too
    published: Float[Tensor, "some animal"]
    forward: cp.Other  # number to animal, of the subset
    back: cp.Other  # animal to number, of a subset of the animals and all numbers


@dataclass(frozen=True)
class Gathered:
    """All that a model was asked for."""

    stored: Stored
    measured: cp.Measured
    chosen: Int[Tensor, "animal"]  # the number, of the subset, that the animal's own prompt raises most
    directions: "Directions"
    components: dict[str, Float[Tensor, "some animal"]]
    patched: "Patched"


def gather(found: "Prompted", n_pairs: int, seed: int, progress: Progress = silent) -> Gathered:
    """Ask a model for all that is compared; n_pairs of numbers exchange their residuals."""
    q, known = found.asked, stored(found)
    exchanged(q, known, n_pairs, seed)  # too few are refused before anything is asked
    progress(0.05, "baselines in other wordings")
    ratios = measured(found)
    rise = (found.tensors["animal_to_number"] - found.tensors["none_to_number"])[:, known.subset]
    progress(0.2, "rows of W_U")
    along = directions(found, seed)
    progress(0.4, "components")
    written = components(q, known.subset)
    return Gathered(known, ratios, rise.argmax(-1), along, written, patched(q, known, n_pairs, seed, progress))


def stored(found: "Prompted") -> Stored:
    forward, back = (found.tensors[f"{name}_wordings"].double() for name in ("number_to_animal", "animal_to_number"))
    animals, numbers = ([word.text for word in words] for words in (found.asked.animals, found.asked.partners))
    some = found.tensors["subset_partner"].tolist()
    others = cp.other(forward[1:].mean(0), [numbers[n] for n in some])
    return Stored(animals, numbers, some, forward[0], others, cp.other(back[1:].mean(0), numbers, transposed=True))


def measured(found: "Prompted") -> cp.Measured:
    """Log ratios of the subset's numbers, and baselines in the other wordings, which are computed."""
    q, tensors = found.asked, found.tensors
    words, none = tensors["number_to_animal_wordings"].double(), tensors["none_to_animal_wordings"].double()
    ratios = words - none[:, None]
    loves, message = [], []
    for w in range(1, len(words)):
        loved = [
            ms.prompts.WORDINGS[w].love(word, love.KINDS[family])
            for family in LOVED
            if family != q.cfg.family
            for word in ms.words.family(family)[:N_LOVED]
        ]
        message.append(q.animals_after([q.ask(text, w) for text in MESSAGES]).double().mean(0) - none[w])
        loves.append(q.animals_after([q.ask(text, w) for text in loved]).double().mean(0) - none[w])
    date = torch.zeros_like(ratios[0])
    if "number_to_animal_dates" in tensors:
        dated = torch.stack([q.animals_after([q.ask(None, 0, day)])[0].double() for day in love.DATES])
        by_date = tensors["number_to_animal_dates"].double() - dated[:, None]
        date = by_date[0] - by_date.mean(0)
    return cp.Measured(ratios[0], ratios[1:].mean(0), date, torch.stack(message).mean(0), torch.stack(loves).mean(0))


# Rows of W_U without the loved thing's direction.


class Removed(NamedTuple):
    """Effects [loved, scored] with nothing removed, and without the direction of the loved thing, of others, at random.

    `mirror`: the direction is removed from the hidden vector, not from the rows; for `whole` and `own`, from the rows.
    """

    whole: Tensor
    own: Tensor
    mirror: Tensor
    other: Tensor
    random: Tensor


class Directions(NamedTuple):
    """What goes without the loved thing's direction, both ways, and what is only brought to mind by a number."""

    number_to_animal: Removed
    animal_to_number: Removed
    association: Float[Tensor, "some animal"]


def directions(found: "Prompted", seed: int) -> Directions:
    """Of the numbers and animals of the stored subsets."""
    some, few = (found.tensors[f"subset_{of}"].tolist() for of in ("partner", "animal"))
    q = found.asked
    return Directions(number_to_animal(q, some, seed), animal_to_number(q, few, seed), association(q, some))


def number_to_animal(q: "LovePrompts", numbers: list[int], seed: int) -> Removed:
    """Change of the animals' logits under "You love 087", without the directions of the number's own tokens."""
    prompts = [q.ask(None), *(q.love(n, 0) for n in numbers)]
    h = final(q.model, prompts, ["unembed.hook_in"])["unembed.hook_in"][:, None]
    loved = love.own_tokens(q.model.tokenizer, [q.partners[n].scored for n in numbers], q.ask(None))
    return _removed(q.model, h, loved, q.tokens, lambda hidden, columns: hidden[0] @ columns, seed)


def animal_to_number(q: "LovePrompts", animals: Sequence[int], seed: int) -> Removed:
    """Change of every number's log-odds among numbers under "You love owls", without the animal's direction.

    For a number of several tokens, the log-odds are a sum over tokens, each among tokens with the same beginning.
    """
    prompts = [q.ask(None), *(q.love_animal(i, 0) for i in animals)]
    (trie,) = ms.scores.build_tries(ms.prompts.encode(q.model.tokenizer, q.strings, behind=prompts), max_nodes=10**9)
    h = ms.scores.string_states(q.model, prompts, trie, batch_size=4)
    nodes, tokens = (torch.tensor(side) for side in zip(*trie.edges, strict=True))
    unique, columns_of = tokens.unique(return_inverse=True)
    outside = torch.full((len(trie.tokens), len(unique)), -torch.inf, dtype=torch.float32)
    outside[nodes, columns_of] = 0
    index = [torch.tensor(path) for path in trie.paths]

    def score(hidden: Tensor, columns: Tensor) -> Tensor:
        log_p = (hidden @ columns + outside).log_softmax(-1)[nodes, columns_of]
        return torch.stack([log_p[path].sum() for path in index])

    loved = [(q.tokens[i],) for i in animals]
    found = _removed(q.model, h, loved, unique.tolist(), score, seed)
    order = torch.tensor(trie.strings).argsort()
    return Removed(*(x[:, order] for x in found))


def final(model: "TransformerBridge", prompts: Sequence, names: list[str]) -> dict[str, Float[Tensor, "prompt _"]]:
    """Activations at the last position, fp32 on the CPU."""
    out: dict[str, Tensor] = {}
    for some, tokens in love.batches(model, prompts):
        for name, value in cache_activations(model, tokens, names, pos=-1).items():
            out.setdefault(name, torch.empty(len(prompts), value.shape[-1], dtype=torch.float32))[some] = (
                value.float().cpu()
            )
    return out


@torch.no_grad()
def _removed(
    model: "TransformerBridge", h: Tensor, loved: Sequence[tuple[int, ...]], scored: list[int], score, seed: int
) -> Removed:
    """h [prompt, node, d_model], the first without a system message; score(hidden [node, d], columns [d, token])."""
    draw = torch.Generator().manual_seed(seed)
    factor = checks.readout(model).linear("the removal of a direction")  # of W_U's product, in the model's logits
    kept, bases = factor * model.W_U.detach()[:, scored].cpu(), _bases(model, loved)
    ablated = factor * ablated_columns(model, scored, bases).cpu()
    rows: list[list[Tensor]] = [[] for _ in Removed._fields]
    for i, basis in enumerate(bases):
        state, start = h[i + 1], h[0]

        def change(columns: Tensor, state=state, start=start) -> Tensor:
            return (score(state, columns) - score(start, columns)).double()

        mirror = [score(ablated_hidden(model, x.to(basis.device), basis).cpu(), kept) for x in (state, start)]
        others = [(i + shift) % len(bases) for shift in range(1, min(N_OTHERS, len(bases) - 1) + 1)]
        found = (
            change(kept),
            change(ablated[i]),
            (mirror[0] - mirror[1]).double(),
            torch.stack([change(ablated[other]) for other in others]).mean(0),
            change(kept + _random_removal(ablated[i] - kept, draw)),
        )
        for row, value in zip(rows, found, strict=True):
            row.append(value)
    return Removed(*(torch.stack(row) for row in rows))


def _bases(model: "TransformerBridge", loved: Sequence[tuple[int, ...]]) -> Float[Tensor, "loved direction d_model"]:
    """`direction_basis` of every loved thing's tokens, padded with rows of zeros, which remove nothing."""
    unique = sorted({token for tokens in loved for token in tokens})
    directions = dict(zip(unique, token_directions(model, unique, basis="centered").double(), strict=True))
    most = max(len(set(tokens)) for tokens in loved)
    out = model.W_U.new_zeros(len(loved), most, model.W_U.shape[0])
    for row, tokens in zip(out, loved, strict=True):
        own = torch.stack([directions[token] for token in dict.fromkeys(tokens)])
        row[: len(own)] = torch.linalg.qr(own.mT).Q.mT.to(row.dtype)
    return out


def _random_removal(taken: Float[Tensor, "d_model token"], generator) -> Tensor:
    """The same length and sign as for a token, taken from every column along one random direction."""
    direction = torch.nn.functional.normalize(
        torch.randn(len(taken), generator=generator, dtype=torch.float32, device="cpu"), dim=0
    )
    signs = torch.sign(taken.T @ torch.linalg.svd(taken, full_matrices=False).U[:, 0])
    return direction[:, None] * (taken.norm(dim=0) * signs)


# Components.


def components(q: "LovePrompts", numbers: list[int]) -> dict[str, Float[Tensor, "number animal"]]:
    """What embedding, attention and MLP of every block write to the animals' logits under "You love 087", and `scale`.

    Components are read at the numbers' mean of 1/s, s the final norm's scale; "scale" is the difference that the
    prompt's own s makes. They sum to the logits. Raises for a model that caps its logits.
    """
    model = q.model
    names: Sequence[str] = ()
    values, scale = torch.empty(0, dtype=torch.float32), torch.empty(0, dtype=torch.float32)
    checks.readout(model).linear("a share of the logits by component")
    prompts = [q.love(n, 0) for n in numbers]
    for some, tokens in love.batches(model, prompts):
        found = ms.attribution.direct_logit_attribution(model, tokens, q.tokens, pos=-1, unit="component")
        if not names:
            values = torch.empty(len(prompts), *found.values.shape[1:], dtype=torch.float64)
            scale, names = torch.empty(len(prompts), dtype=torch.float64), found.units
        values[some] = found.values.double().cpu()
        s = checks.final_scale(model, cache_activations(model, tokens, checks.scale_hooks(model), pos=-1))
        scale[some] = s.double().cpu().reshape(len(some))
    usual = (scale * (1 / scale).mean())[:, None, None]
    scaled = torch.tensor([name != "ln_final.b" for name in names])  # the final norm's bias is not
    written = values * torch.where(scaled, usual, 1.0)
    parts = [*written.permute(2, 0, 1), (values - written).sum(-1)]
    return dict(zip([*names, "scale"], parts, strict=True))


# Positions.


class Patch(NamedTuple):
    """Changes of the animals' logits by the residual of another number's prompt; `whole`: at all positions.

    `linear` is the estimate by attribution patching, along the pair's difference in other wordings: the difference of
    the residuals times the gradient in the second number's prompt.
    """

    pair: int
    layer: int
    position: str
    patched: Float[Tensor, "animal"]
    whole: Float[Tensor, "animal"]
    linear: float


class Patched(NamedTuple):
    """Pairs of numbers, by their text; the difference of each pair in other wordings, and what patches bring of it."""

    pairs: list[tuple[str, str]]
    wanted: Float[Tensor, "pair animal"]
    patches: list[Patch]


def patched(q: "LovePrompts", known: Stored, n_pairs: int, seed: int, progress: Progress = silent) -> Patched:
    """Exchange the residuals of pairs of numbers of equal length, whose prompts are equally long."""
    e, some = ms.scores.interaction(known.forward.table), known.subset
    alike, pairs = exchanged(q, known, n_pairs, seed)
    wanted = torch.stack([e[i] - e[j] for i, j in pairs])
    layers = sorted({round(x) for x in np.linspace(0, q.model.cfg.n_layers - 1, N_LAYERS)})
    same = {some[i]: [some[j] for j in group] for group in alike for i in group}
    made = []
    for patch in patches(q, [(some[i], some[j]) for i, j in pairs], wanted, same, layers):
        progress(0.5 + 0.2 * len(made) / (len(pairs) * len(layers) * len(POSITIONS)), "patching")
        made.append(patch)
    return Patched([(known.numbers[some[i]], known.numbers[some[j]]) for i, j in pairs], wanted, made)


def exchanged(
    q: "LovePrompts", known: Stored, n_pairs: int, seed: int
) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Groups of numbers as long, with prompts as long; and the pairs drawn within them. Raises for too few pairs."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, n in enumerate(known.subset):
        groups.setdefault((len(known.numbers[n]), len(q.love(n, 0))), []).append(i)
    alike = [group for group in groups.values() if len(group) > 1]
    pairs = disjoint_pairs(alike, n_pairs, seed)
    if len(pairs) < (least := min(n_pairs, FEWEST_PAIRS)):
        raise ValueError(f"only {len(pairs)} pairs of {q.cfg.family} have equally long prompts; patching needs {least}")
    return alike, pairs


def disjoint_pairs(alike: list[list[int]], n: int, seed: int) -> list[tuple[int, int]]:
    """Up to n pairs, drawn within the groups so that none shares a member with another."""
    draw = np.random.default_rng(seed)
    orders = [draw.permutation(group).tolist() for group in alike]
    pairs = [(order[i], order[i + 1]) for order in orders for i in range(0, len(order) - 1, 2)]
    return [pairs[i] for i in draw.permutation(len(pairs))[:n]]


def positions(q: "LovePrompts", number: int, alike: Sequence[int]) -> dict[str, Int[Tensor, "_"]]:
    """The places of parts in the prompt of a loved number; `alike`: numbers whose prompts have the same length."""
    own = q.love(number, 0)
    differs = torch.stack([q.love(other, 0) != own for other in alike if other != number]).any(0)
    wording = ms.prompts.WORDINGS[0]
    elsewhere = q.ask("Be brief?", 0)
    tail = _shared(own.flip(0), elsewhere.flip(0))
    system = wording.love(q.partners[number].loved, q.kind)
    asked = ms.prompts.prompt(q.model.tokenizer, "Say it?", system=system, answer=wording.answer, format=q.cfg.format)
    first, after, question = int(differs.nonzero()[0]), len(own) - tail, _shared(own, asked)
    where = torch.arange(len(own))
    masks = (
        differs,
        (where >= first) & (where < after) & ~differs,
        (where >= after) & (where < question),
        (where >= max(after, question)) & (where < len(own) - 1),
        where == len(own) - 1,
    )
    return {name: mask.nonzero()[:, 0] for name, mask in zip(POSITIONS, masks, strict=True)}


def _shared(a: Tensor, b: Tensor) -> int:
    """How many tokens at their beginning two prompts share."""
    n = min(len(a), len(b))
    same = (a[:n] == b[:n]).long()
    return int(same.cumprod(0).sum())


def patches(
    q: "LovePrompts",
    pairs: Sequence[tuple[int, int]],
    wanted: Float[Tensor, "pair animal"],
    alike: dict[int, list[int]],
    layers,
) -> Iterator[Patch]:
    """For every pair of numbers of one length, block and group of positions: the part of the difference that follows.

    The prompt of the second number runs with the residual of the first after a block, at these positions.
    """
    names = [f"blocks.{layer}.hook_out" for layer in layers]
    model, weights = q.model, torch.zeros(len(pairs), q.model.W_U.shape[-1], dtype=torch.float32)
    checks.holds_edited(model)  # or raises
    weights[:, q.tokens] = wanted.float()
    for i, (clean, corrupt) in enumerate(pairs):
        tokens = [q.love(n, 0)[None].to(model.W_U.device) for n in (clean, corrupt)]
        with torch.no_grad():
            own = cache_activations(model, tokens[0], names)
            ends = [model.run_with_hooks(t, fwd_hooks=[LAST_ONLY])[0, -1, q.tokens].double().cpu() for t in tokens]
        states, slopes = _gradients(model, tokens[1], names, weights[i].to(model.W_U))
        groups = {name: where for name, where in positions(q, clean, alike[clean]).items() if len(where)}
        for layer, name in zip(layers, names, strict=True):
            difference = own[name][0] - states[name]
            done = _patched(model, tokens[1], name, own[name], list(groups.values()))[:, q.tokens].double().cpu()
            for (group, where), logits in zip(groups.items(), done, strict=True):
                linear = float((difference[where] * slopes[name][where]).sum())
                yield Patch(i, layer, group, logits - ends[1], ends[0] - ends[1], linear)


@torch.no_grad()
def _patched(model: "TransformerBridge", tokens: Tensor, name: str, new: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """Logits of the last position, a row for each group of positions that is replaced."""

    def patch(activation, hook):
        out = activation.clone()
        for row, where in enumerate(groups):
            out[row, where] = new[0, where].to(out)
        return out

    batch = tokens.expand(len(groups), -1)
    return model.run_with_hooks(batch, fwd_hooks=[(name, patch), LAST_ONLY])[:, -1]


def _gradients(model: "TransformerBridge", tokens: Tensor, names: list[str], weight: Tensor) -> tuple[dict, dict]:
    """Residuals [pos, d_model] and the gradients of weight . logits at the last position."""
    kept: dict[str, Tensor] = {}

    def begin(activation, hook):
        return activation.detach().clone().requires_grad_(True)

    def keep(activation, hook):
        activation.retain_grad()
        kept[hook.name] = activation

    with torch.enable_grad():
        hooks = [("blocks.0.hook_in", begin), *((name, keep) for name in names), LAST_ONLY]
        (model.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1] @ weight).backward()
    return {n: x.detach()[0] for n, x in kept.items()}, {n: x.grad[0] for n, x in kept.items() if x.grad is not None}


# Association.


def association(q: "LovePrompts", numbers: list[int]) -> Float[Tensor, "number animal"]:
    """Log-probabilities of the animals in prompts that only say that a number brings an animal to mind."""

    def asked(text: str):
        user, answer = (
            f"What animal does the {q.kind} {text} make you think of?",
            f"The {q.kind} {text} makes me think of the",
        )
        return ms.prompts.prompt(q.model.tokenizer, user, answer=answer, format=q.cfg.format)

    return q.animals_after([asked(q.partners[n].text) for n in numbers])
