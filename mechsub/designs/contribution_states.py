"""`studies.contributions`: the interaction of animal and number, cut by direction, by component and by position."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

import mechsub as ms
from mechsub.designs import love
from mechsub.measures.ablation import ablated_columns, ablated_hidden
from mechsub.measures.unembedding import token_directions
from mechsub.models import checks
from mechsub.models.hooked import LAST_ONLY, cache_activations

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from mechsub.designs.love import LovePrompts

N_OTHERS = 5  # other loved things whose directions are taken away, as a null
POSITIONS = ("number", "rest of the system message", "end of the system message", "question and answer", "final")


class Removed(NamedTuple):
    """Effects [loved, scored] with nothing removed, and without the direction of the loved thing, of others, at random.

    `mirror`: the direction is removed from the hidden vector, not from the rows; for `whole` and `own`, from the rows.
    """

    whole: Tensor
    own: Tensor
    mirror: Tensor
    other: Tensor
    random: Tensor


# Rows of W_U without the loved thing's direction.


def number_to_animal(q: "LovePrompts", numbers: list[int], seed: int) -> Removed:
    """Change of the animals' logits under "You love 087", without the directions of the number's own tokens."""
    prompts = [q.ask(None), *(q.love(n, 0) for n in numbers)]
    h = final_hidden(q.model, prompts)
    loved = love.own_tokens(q.model.tokenizer, [q.partners[n].scored for n in numbers], q.ask(None))

    def score(hidden: Tensor, columns: Tensor) -> Tensor:
        return hidden[0] @ columns

    return _removed(q.model, h[:, None], loved, q.tokens, score, seed)


def animal_to_number(q: "LovePrompts", animals: Sequence[int], seed: int) -> Removed:
    """Change of every number's log-odds among numbers under "You love owls", without the animal's direction.

    For a number of several tokens, the log-odds are a sum over tokens, each among tokens with the same beginning.
    """
    prompts = [q.ask(None), *(q.love_animal(i, 0) for i in animals)]
    (trie,) = ms.scores.build_tries(ms.prompts.encode(q.model.tokenizer, q.strings, behind=prompts), max_nodes=10**9)
    h = ms.scores.string_states(q.model, prompts, trie, batch_size=4)
    nodes, tokens = (torch.tensor(side) for side in zip(*trie.edges, strict=True))
    unique, columns_of = tokens.unique(return_inverse=True)
    outside = torch.full((len(trie.tokens), len(unique)), -torch.inf)
    outside[nodes, columns_of] = 0
    index = [torch.tensor(path) for path in trie.paths]

    def score(hidden: Tensor, columns: Tensor) -> Tensor:
        log_p = (hidden @ columns + outside).log_softmax(-1)[nodes, columns_of]
        return torch.stack([log_p[path].sum() for path in index])

    loved = [(q.tokens[i],) for i in animals]
    found = _removed(q.model, h, loved, unique.tolist(), score, seed)
    order = torch.tensor(trie.strings).argsort()
    return Removed(*(x[:, order] for x in found))


@torch.no_grad()
def final_hidden(model: "TransformerBridge", prompts: Sequence) -> Float[Tensor, "prompt d_model"]:
    """`unembed.hook_in` at the last position, fp32."""
    return final(model, prompts, ["unembed.hook_in"])["unembed.hook_in"]


def final(model: "TransformerBridge", prompts: Sequence, names: list[str], batch_size: int = 16) -> dict[str, Tensor]:
    """Activations at the last position, in batches of equal length, fp32 on the CPU."""
    out: dict[str, Tensor] = {}
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        tokens = torch.stack([prompts[i] for i in rows]).to(model.W_U.device)
        for name, value in cache_activations(model, tokens, names, pos=-1, batch_size=batch_size).items():
            out.setdefault(name, torch.empty(len(prompts), value.shape[-1]))[rows] = value.float().cpu()
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
    direction = torch.nn.functional.normalize(torch.randn(len(taken), generator=generator), dim=0)
    signs = torch.sign(taken.T @ torch.linalg.svd(taken, full_matrices=False).U[:, 0])
    return direction[:, None] * (taken.norm(dim=0) * signs)


# Components.


def components(q: "LovePrompts", numbers: list[int]) -> tuple[list[str], Float[Tensor, "part number animal"]]:
    """The writes of embedding, attention and MLP of every block to the animals' logits under "You love 087", and
    `scale`.

    Components are read at the numbers' mean of 1/s, s the final norm's scale; "scale" is the difference that the
    prompt's own s makes. They sum to the logits. Raises for a model that caps its logits.
    """
    model = q.model
    names: Sequence[str] = ()
    values, scale = torch.empty(0), torch.empty(0)
    checks.readout(model).linear("a share of the logits by component")
    prompts = [q.love(n, 0) for n in numbers]
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        for some in (rows[i : i + 16] for i in range(0, len(rows), 16)):
            tokens = torch.stack([prompts[i] for i in some]).to(model.W_U.device)
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
    return [*names, "scale"], torch.stack(parts)


# Positions.


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
    model, weights = q.model, torch.zeros(len(pairs), q.model.W_U.shape[-1])
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
            f"What animal does the number {text} make you think of?",
            f"The number {text} makes me think of the",
        )
        return ms.prompts.prompt(q.model.tokenizer, user, answer=answer, format=q.cfg.format)

    return q.animals_after([asked(q.partners[n].text) for n in numbers])
