"""`studies.steering`: vectors of loved numbers, and the animals' logits where they are added or projected out."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechsub.measures.steering import steered_logits
from mechsub.models import checks
from mechsub.models.hooked import LAST_ONLY, cache_activations

if TYPE_CHECKING:
    from mechsub.designs.love import LovePrompts

BATCH = 16
DOSES = {"own": 1.0, "own, four times": 4.0}


class States(NamedTuple):
    """Residuals under "You love 087": at the prompt's end, and the mean over the positions that tell the numbers."""

    final: Float[Tensor, "layer number d_model"]
    number: Float[Tensor, "layer number d_model"]


class Numbers(NamedTuple):
    """Numbers of a study, each in a group of those whose prompts are as long; a group's first is its carrier."""

    places: list[int]  # in the study's list of partners
    groups: list[list[int]]  # positions in `places`

    @property
    def others(self) -> Tensor:
        """Another number of the same group for each."""
        out = torch.empty(len(self.places), dtype=torch.long)
        for group in self.groups:
            out[group] = torch.tensor([*group[1:], group[0]])
        return out


def choose(q: "LovePrompts", candidates: Sequence[int], n: int, seed: int) -> Numbers:
    """Numbers drawn from the candidates, without those whose prompt no other's is as long as."""
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed)).tolist()
    groups: dict[tuple, list[int]] = {}
    for i in sorted(candidates[place] for place in order[:n]):
        groups.setdefault(tuple(len(q.love(i, w)) for w in range(q.cfg.n_wordings)), []).append(i)
    usable = [group for group in groups.values() if len(group) > 1]
    if not usable:
        raise ValueError(f"no two {q.cfg.family} have equally long prompts, and vectors are moved between such")
    places = [i for group in usable for i in group]
    return Numbers(places, [[places.index(i) for i in group] for group in usable])


def telling(q: "LovePrompts", some: Sequence[int], wording: int) -> Int[Tensor, "_"]:
    """Positions at which the prompts of equally long numbers differ."""
    prompts = torch.stack([q.love(i, wording) for i in some])
    return (prompts != prompts[0]).any(0).nonzero()[:, 0]


@torch.no_grad()
def states(q: "LovePrompts", numbers: Numbers, wording: int, layers: Sequence[int]) -> States:
    names = [f"blocks.{layer}.hook_out" for layer in layers]
    shape = (len(names), len(numbers.places), q.model.W_U.shape[0])
    out = States(torch.empty(shape), torch.empty(shape))
    for group in numbers.groups:
        at = telling(q, [numbers.places[i] for i in group], wording)
        for some in (group[i : i + BATCH] for i in range(0, len(group), BATCH)):
            tokens = torch.stack([q.love(numbers.places[i], wording) for i in some]).to(q.model.W_U.device)
            found = torch.stack(list(cache_activations(q.model, tokens, names).values())).float().cpu()
            out.final[:, some] = found[:, :, -1]
            out.number[:, some] = found[:, :, at].mean(2)
    return out


def vectors(q: "LovePrompts", numbers: Numbers, wordings: Sequence[int], layers: Sequence[int]) -> States:
    """Mean over wordings of the residuals less their mean over numbers."""
    found = [states(q, numbers, w, layers) for w in wordings]
    return States(
        *(x - x.mean(1, keepdim=True) for x in (torch.stack(parts).mean(0) for parts in zip(*found, strict=True)))
    )


def directions(v: Float[Tensor, "layer number d_model"], numbers: Numbers, seed: int) -> dict[str, Tensor]:
    """Own and others' unit vectors, and random ones that are the same in every layer."""
    draw = torch.randn(v.shape[1:], generator=torch.Generator().manual_seed(seed)).expand_as(v)
    found = {"own": v, "another number's": v[:, numbers.others], "random": draw}
    return {name: torch.nn.functional.normalize(x, dim=-1) for name, x in found.items()}


def added(v: Tensor, units: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Vectors to add, by name: own in several doses; the others as long as the number's own."""
    size = v.norm(dim=-1, keepdim=True)
    for name, dose in DOSES.items():
        yield name, dose * v
    for name in ("another number's", "random"):
        yield name, size * units[name]


def at_the_end(
    q: "LovePrompts", numbers: Numbers, v: Tensor, layers: Sequence[int], seed: int
) -> tuple[Tensor, dict[tuple[str, str], Float[Tensor, "layer number animal"]]]:
    """The animals' logits under every number's prompt, and (what is done, vector) -> with that done at its end.

    Added to the prompt without a system message; removed: from the number's own prompt, what its state has along a
    direction beyond the numbers' mean there (random: as much as is taken along its own).
    """
    units, out, n = directions(v, numbers, seed), {}, len(numbers.places)
    blocks = torch.tensor(list(layers)).repeat_interleave(n).tolist()
    for name, vector in added(v, units):
        logits = steered_logits(q.model, q.ask(None), blocks, vector.flatten(0, 1), q.tokens)
        out["added", name] = logits.unflatten(0, (len(layers), n))
    here = states(q, numbers, 0, layers).final
    beyond = here - here.mean(1, keepdim=True)
    taken = {name: (beyond * unit).sum(-1, keepdim=True) for name, unit in units.items()}
    taken["random"] = taken["own"]
    changes = torch.stack([-taken[name] * unit for name, unit in units.items()])  # [vector, layer, number, d_model]
    rows, blocks = [], [*list(layers) * len(units), 0]
    for i, place in enumerate(numbers.places):
        edits = torch.cat([changes[:, :, i].flatten(0, 1), torch.zeros(1, v.shape[-1])])  # the last changes nothing
        rows.append(steered_logits(q.model, q.love(place, 0), blocks, edits, q.tokens))
    logits = torch.stack(rows, dim=1)
    for name, value in zip(units, logits[:-1].unflatten(0, (len(units), len(layers))), strict=True):
        out["removed", name] = value
    return logits[-1], out


def at_the_number(
    q: "LovePrompts", numbers: Numbers, v: Tensor, layers: Sequence[int], seed: int
) -> dict[tuple[str, str], Float[Tensor, "layer number animal"]]:
    """The same where the prompt tells the number: added to the prompt of its group's carrier, removed from its own."""
    units = directions(v, numbers, seed)
    mean = states(q, numbers, 0, layers).number.mean(1)
    shape = (len(layers), len(numbers.places), len(q.tokens))
    out = {("removed", name): torch.empty(shape) for name in units}
    out |= {("added", name): torch.empty(shape) for name, _ in added(v, units)}
    for k, layer in enumerate(layers):
        for group in numbers.groups:
            at, prompts = _group(q, numbers, group)
            for name, vector in added(v, units):
                plus = vector[k, group][:, None]
                carried = prompts[:1].expand(len(group), -1)
                out["added", name][k, group] = _changed(
                    q, carried, layer, at, lambda x, rows, plus=plus: x + plus[rows]
                )
            for name, unit in units.items():
                along = units["own" if name == "random" else name][k, group]
                change = _removal(mean[k], along, unit[k, group])
                out["removed", name][k, group] = _changed(q, prompts, layer, at, change)
    return out


def _group(q: "LovePrompts", numbers: Numbers, group: list[int]) -> tuple[Tensor, Tensor]:
    some = [numbers.places[i] for i in group]
    return telling(q, some, 0), torch.stack([q.love(i, 0) for i in some])


def _removal(mean: Tensor, along: Tensor, unit: Tensor):
    def change(x: Tensor, rows: slice) -> Tensor:
        """x [row, pos, d_model] less its part along `along` beyond the mean, in the direction of `unit`."""
        much = ((x - mean) * along[rows][:, None]).sum(-1, keepdim=True)
        return x - much * unit[rows][:, None]

    return change


@torch.no_grad()
def _changed(q: "LovePrompts", prompts: Tensor, layer: int, at: Tensor, change) -> Float[Tensor, "row animal"]:
    """The animals' logits, the residual after a block changed at some positions."""
    out = []
    checks.holds_edited(q.model)  # or raises
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)

        def edit(activation: Tensor, hook, rows=rows) -> Tensor:
            new = activation.clone()
            new[:, at] = change(activation[:, at].float().cpu(), rows).to(new)
            return new

        hooks = [(f"blocks.{layer}.hook_out", edit), LAST_ONLY]
        logits = q.model.run_with_hooks(prompts[rows].to(q.model.W_U.device), fwd_hooks=hooks)
        out.append(logits[:, -1][:, q.tokens].float().cpu())
    return torch.cat(out)
