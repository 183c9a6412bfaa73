"""Parts of a log ratio, and the parts of a model that carry the interaction: records of `studies.contributions`.

All is made of what `contribution_states.gather` found, without the model. Of the interaction, and of what in it is
specific to pairs (kind "specific": left after slopes, length and digits). `studies.planted_shares` runs the same
functions on models in which the shares are known.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import mechsub as ms
from mechsub.designs import word_parts
from mechsub.lazy import late, torch

if TYPE_CHECKING:
    from torch import Tensor

    from mechsub.designs import contribution_parts as cp
    from mechsub.designs import contribution_states as cs
else:
    cp, cs = late("mechsub.designs.contribution_parts"), late("mechsub.designs.contribution_states")

N_FOLDS = 4  # of the numbers: what association predicts of a fold is fitted on the others
CUT = ("loved thing's rows", "association", "left")


class Draws(NamedTuple):
    """Resamples of every interval, shuffles of every null; and the seed of both."""

    n: int
    seed: int


def compare(found: "cs.Gathered", draws: Draws) -> Iterator[dict]:
    """All records, and the tensors that are kept."""
    known = found.stored
    yield from ratio_records(found.measured, found.chosen, known.animals, known.forward.words, draws)
    yield from direction_records(found.directions, known.forward, known.back, draws)
    yield from component_records(found.components, known.published, known.forward, draws)
    yield from patch_records(found.patched, draws)


def ratio_records(m: "cp.Measured", chosen, animals: list[str], numbers: Sequence[str], draws: Draws) -> Iterator[dict]:
    """Shares of the squared log ratio and mean nats of every part: all pairs, and those the papers would report."""
    parts = cp.parts(m)
    everything = torch.stack(list(parts.values()))
    if (error := float((everything.sum(0) - m.published).abs().max())) > 1e-9:
        raise ValueError(f"the parts miss the published ratio by up to {error:.2g} nats")

    def shares(rows, columns):
        some = m.take(rows, columns)
        return torch.tensor(list(cp.ratio_shares(cp.parts(some), some.published).values()), dtype=torch.float64)

    low, high = cp.bootstrap(shares, m.published.shape, *draws)
    whole, every = cp.ratio_shares(parts, m.published), torch.arange(len(animals))
    ratio = m.published[chosen, every]
    for i, (name, part) in enumerate(parts.items()):
        limits = {"low": float(low[i]), "high": float(high[i])}
        yield {"kind": "part", "pairs": "all", "part": name, "share": whole[name], **limits, "nats": float(part.mean())}
        share = ms.stats.ratio_of_means((part[chosen, every] * ratio).tolist(), ratio.square().tolist())
        nats = ms.stats.student_t(part[chosen, every].tolist())
        ends = {"share": share.mean, "low": share.low, "high": share.high}
        ends |= {"nats": nats.mean, "nats_low": nats.low, "nats_high": nats.high}
        yield {"kind": "part", "pairs": "chosen", "part": name, **ends}
    keep = word_parts.specific(m.others, numbers)
    pair = None if keep is None else keep(m.others)
    if pair is not None:
        yield {"kind": "pair", "share": cp.ratio_shares({"pair": pair}, m.published)["pair"]}
    for i, animal in enumerate(animals):
        row: dict = {"kind": "animal", "animal": animal, "number": numbers[int(chosen[i])]}
        row |= {} if pair is None else {"pair": float(pair[chosen[i], i])}
        yield row | {"ratio": float(ratio[i]), **{f"part: {n}": float(p[chosen[i], i]) for n, p in parts.items()}}


# What the specific part passes through.


def direction_records(found: "cs.Directions", forward: "cp.Other", back: "cp.Other", draws: Draws) -> Iterator[dict]:
    """Both directions: what passes through the loved thing's rows; number to animal: association, and what is left."""
    both = {"number to animal": (found.number_to_animal, forward), "animal to number": (found.animal_to_number, back)}
    for direction, (removed, other) in both.items():
        if (error := _disagreement(removed)) > 1e-3:
            raise ValueError(f"rows without a direction and its mirror differ by {error:.2g} of the effect")
        taken = {name: removed.whole - getattr(removed, name) for name in ("own", "other", "random")}
        keys = {"kind": "direction", "direction": direction, "mirror_error": error}
        yield from _share_rows(taken, removed.whole, other, draws, keys)
        yield from _specific_rows(taken, removed.whole, other, draws, {"cut": "direction", "direction": direction})
    whole, left, likely = found.number_to_animal.whole, found.number_to_animal.own, found.association
    yield from cut_records(whole, left, likely, forward.table, draws)
    part = associated(left, likely, torch.arange(len(likely)) % N_FOLDS)
    cut = dict(zip(CUT, (whole - left, part, left - part), strict=True))
    yield from _specific_rows(cut, whole, forward, draws, {"cut": "cut"})
    null = shuffled_association(left, likely, whole, forward.table, [len(word) for word in forward.words], draws)
    upper = sorted(null)[int(0.975 * len(null))]
    yield {"kind": "null", "of": "association", "mean": sum(null) / len(null), "upper": upper}
    yield {"tensors": {"association": likely, "number_to_animal_without_rows": left.float()}}


def _disagreement(removed) -> float:
    """How far rows and mirror are apart, against the size of the effect; both double-centred."""
    own, mirror, whole = (ms.scores.interaction(x) for x in (removed.own, removed.mirror, removed.whole))
    return float((own - mirror).norm() / whole.norm())


def cut_records(whole, without_rows, likely, other, draws: Draws) -> Iterator[dict]:
    """What passes through rows, what of the rest association predicts, and what is left; fitted anew in a resample."""
    fold = torch.arange(len(whole)) % N_FOLDS

    def shares(rows, columns):
        all_of, left, some, e = (x[rows][:, columns] for x in (whole, without_rows, likely, other))
        part = associated(left, some, fold[rows])
        return cp.specific_shares(torch.stack([all_of - left, part, left - part]), all_of, e)

    keys = {"kind": "cut", "direction": "number to animal"}
    yield from _interval_rows([*CUT], shares, whole.shape, draws, keys)


def associated(left, likely, fold):
    """The prediction of an interaction from a matrix of associations: its own interaction times a least-squares slope.

    The slope of a number is fitted on numbers in other folds. Fitted on the number itself, an unrelated matrix would
    have a share above 0: its squared correlation by chance. A matrix without an interaction predicts nothing.
    """
    a, e = ms.scores.interaction(likely), ms.scores.interaction(left)
    products, squares, out = (a * e).sum(1), a.square().sum(1), a.clone()
    for k in fold.unique():
        known = squares[fold != k].sum()
        out[fold == k] *= products[fold != k].sum() / known if known > 0 else 0.0
    return out


def shuffled_association(left, likely, whole, other, lengths: list[int], draws: Draws) -> list[float]:
    """Shares of the association with numbers shuffled within equal length."""
    draw, digits, out = torch.Generator().manual_seed(draws.seed), torch.tensor(lengths), []
    for _ in range(draws.n):
        order = torch.arange(len(digits))
        for length in digits.unique():
            members = (digits == length).nonzero()[:, 0]
            order[members] = members[torch.randperm(len(members), generator=draw, device="cpu")]
        part = associated(left, likely[order], torch.arange(len(left)) % N_FOLDS)
        out.append(float(cp.specific_shares(part[None], whole, other)[0]))
    return out


def _share_rows(parts: dict, whole, other: "cp.Other", draws: Draws, keys: dict) -> Iterator[dict]:
    """A row for every part of an interaction: its share of what other wordings bring back, with its interval."""
    stack = torch.stack(list(parts.values())).double()

    def shares(rows, columns):
        return cp.specific_shares(stack[:, rows][:, :, columns], *(x[rows][:, columns] for x in (whole, other.table)))

    yield from _interval_rows(list(parts), shares, whole.shape, draws, keys)


def _specific_rows(parts: dict, whole, other: "cp.Other", draws: Draws, keys: dict) -> Iterator[dict]:
    """The same of what is specific to pairs; nothing where nothing is left."""
    if other.keep is None:
        return
    found = cp.products(torch.stack(list(parts.values())).double(), whole.double(), other.table, other.keep)

    def shares(rows, columns):
        sums = found[:, rows][:, :, columns].sum((-2, -1))
        return sums[:-1] / sums[-1]

    yield from _interval_rows(list(parts), shares, whole.shape, draws, {"kind": "specific", **keys})


def _interval_rows(names: list[str], shares, shape: tuple, draws: Draws, keys: dict) -> Iterator[dict]:
    """A row for every name: its share, a function of rows and columns, with the interval by resampling both."""
    low, high = cp.bootstrap(shares, shape, *draws)
    for i, share in enumerate(shares(*(torch.arange(n) for n in shape)).tolist()):
        yield {**keys, "part": names[i], "share": share, "low": float(low[i]), "high": float(high[i])}


def component_records(found: "dict[str, Tensor]", published, other: "cp.Other", draws: Draws) -> Iterator[dict]:
    """Shares of every component, and of attention and MLP by thirds of the blocks."""
    whole = torch.stack(list(found.values())).sum(0)
    if (error := _apart(whole, published)) > 0.02:
        raise ValueError(f"components miss the stored interaction by up to {error:.2g} nats (fp32?)")
    single = {name: part for name, part in found.items() if name.startswith("blocks.")}
    n_layers = 1 + max(int(name.split(".")[1]) for name in single)
    groups: dict[str, Tensor] = {}
    for name, part in found.items():
        label = name
        if name in single:
            third = ("first", "middle", "last")[min(2, 3 * int(name.split(".")[1]) // n_layers)]
            label = f"{'attention' if '.attn.' in name else 'MLP'}, {third} third"
        groups[label] = groups.get(label, torch.zeros_like(part)) + part
    yield from _share_rows(groups, whole, other, draws, {"kind": "component"})
    yield from _specific_rows(groups, whole, other, draws, {"cut": "component"})
    for row in _share_rows(single, whole, other, draws, {"kind": "layer"}):
        block, what = row["part"].split(".")[1:3]
        yield row | {"layer": int(block), "part": {"attn": "attention", "mlp": "MLP"}[what]}


def _apart(a, b) -> float:
    return float((ms.scores.interaction(a) - ms.scores.interaction(b)).abs().max())


def patch_records(found: "cs.Patched", draws: Draws) -> Iterator[dict]:
    """A row for every pair, block and group of positions; and for every block and group, the recovery over all pairs.

    No number is in two pairs, so that pairs can be resampled, crossed with animals.
    """
    changes: dict[tuple[int, str], list] = {}
    for patch in found.patches:
        changes.setdefault((patch.layer, patch.position), []).append((patch.pair, patch.patched, patch.whole))
        weight, (number, into) = found.wanted[patch.pair], found.pairs[patch.pair]
        keys = {"kind": "patch", "number": number, "into": into, "pair": patch.pair, "layer": patch.layer}
        ends = {"patched": float(weight @ patch.patched), "linear": patch.linear, "whole": float(weight @ patch.whole)}
        yield {**keys, "position": patch.position, **ends}
    for (layer, position), of in changes.items():
        places, patched, whole = ([*each] for each in zip(*of, strict=True))
        tables = found.wanted[places], torch.stack(patched), torch.stack(whole)

        def shares(rows, columns, tables=tables):
            return cp.recovery(*(x[rows][:, columns] for x in tables))[None]

        (row,) = _interval_rows([position], shares, tables[0].shape, draws, {"kind": "recovered", "layer": layer})
        yield {**{key: value for key, value in row.items() if key != "part"}, "position": position, "n": len(places)}


# Table, sentence and figure.


def recovered(cell: list[dict]) -> "dict[tuple[int, str], ms.stats.Interval]":
    """(block, position) -> share of the pairs' difference, with its interval over pairs and animals."""
    return {
        (row["layer"], row["position"]): ms.stats.Interval(row["share"], row["low"], row["high"], row["n"])
        for row in cell
        if row["kind"] == "recovered"
    }
