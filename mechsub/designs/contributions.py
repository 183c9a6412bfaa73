"""Parts of a log ratio, and the parts of a model that carry the interaction: records of `studies.contributions`.

Records are of the interaction, and of its part specific to pairs (kind "specific": left after slopes, length and
digits).

`studies.planted_shares` runs the same functions on models in which the shares are known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import mechsub as ms
from mechsub.designs import love, word_parts
from mechsub.designs.love import Progress, silent
from mechsub.lazy import late, np, torch

if TYPE_CHECKING:
    from torch import Tensor

    from mechsub.designs import contribution_parts as cp
    from mechsub.designs import contribution_states as cs
    from mechsub.designs.love import LovePrompts, Prompted
else:
    cp, cs = late("mechsub.designs.contribution_parts"), late("mechsub.designs.contribution_states")

N_LAYERS = 6  # blocks after which residuals are patched, evenly from the first to the last
N_FOLDS = 4  # of the numbers: what association predicts of a fold is fitted on the others
CUT = ("loved thing's rows", "association", "left")
N_LOVED = 6  # colors, and cities, that "any love" is the mean of
MESSAGES = ("", "You are a helpful assistant.")


@runtime_checkable
class Draws(Protocol):
    """Options of pairs, resamples and seed: `Options`, or a Config that has these fields."""

    @property
    def n_pairs(self) -> int: ...
    @property
    def n_resamples(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Options:
    """Pairs of numbers whose residuals are exchanged, resamples of every interval, and the seed of both."""

    n_pairs: int
    n_resamples: int
    seed: int


def ratio_records(found: "Prompted", cfg: Draws) -> Iterator[dict]:
    """Shares of the squared log ratio and mean nats of every part: all pairs, and those the papers would report."""
    m, q = measured(found), found.asked
    parts = cp.parts(m)
    everything = torch.stack(list(parts.values()))
    if (error := float((everything.sum(0) - m.published).abs().max())) > 1e-9:
        raise ValueError(f"the parts miss the published ratio by up to {error:.2g} nats")

    def shares(rows, columns):
        some = m.take(rows, columns)
        return torch.tensor(list(cp.ratio_shares(cp.parts(some), some.published).values()), dtype=torch.float64)

    n_rows, n_columns = m.published.shape
    low, high = cp.bootstrap(shares, n_rows, n_columns, cfg.n_resamples, cfg.seed)
    whole = cp.ratio_shares(parts, m.published)
    some = found.tensors["subset_partner"]
    rise = (found.tensors["animal_to_number"] - found.tensors["none_to_number"])[:, some]
    chosen, every = rise.argmax(-1), torch.arange(len(q.animals))
    ratio = m.published[chosen, every]
    for i, (name, part) in enumerate(parts.items()):
        yield {
            "kind": "part",
            "pairs": "all",
            "part": name,
            "share": whole[name],
            "low": float(low[i]),
            "high": float(high[i]),
            "nats": float(part.mean()),
        }
        share = ms.stats.ratio_of_means((part[chosen, every] * ratio).tolist(), ratio.square().tolist())
        nats = ms.stats.student_t(part[chosen, every].tolist())
        yield {
            "kind": "part",
            "pairs": "chosen",
            "part": name,
            "share": share.mean,
            "low": share.low,
            "high": share.high,
            "nats": nats.mean,
            "nats_low": nats.low,
            "nats_high": nats.high,
        }
    keep = word_parts.specific(m.others, [q.partners[n].text for n in some.tolist()])
    pair = None if keep is None else keep(m.others)
    if pair is not None:
        yield {"kind": "pair", "share": cp.ratio_shares({"pair": pair}, m.published)["pair"]}
    for i, animal in enumerate(q.animals):
        row: dict = {"kind": "animal", "animal": animal.text, "number": q.partners[int(some[chosen[i]])].text}
        row |= {} if pair is None else {"pair": float(pair[chosen[i], i])}
        yield row | {"ratio": float(ratio[i]), **{f"part: {n}": float(p[chosen[i], i]) for n, p in parts.items()}}


def measured(found: "Prompted"):
    """Log ratios of the subset's numbers; it computes baselines in the other wordings."""
    q, tensors = found.asked, found.tensors
    words, none = tensors["number_to_animal_wordings"].double(), tensors["none_to_animal_wordings"].double()
    ratios = words - none[:, None]
    loves, message = [], []
    for w in range(1, len(words)):
        loved = [
            ms.prompts.WORDINGS[w].love(word, kind)
            for family, kind in (("colors", "color"), ("cities", "city"))
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


# What the specific part passes through.


def direction_records(found: "Prompted", cfg: Draws, progress: Progress = silent) -> Iterator[dict]:
    """Both directions: the part through the loved thing's rows; number to animal: also association, and the rest."""
    q, tensors = found.asked, found.tensors
    some, few = tensors["subset_partner"].tolist(), tensors["subset_animal"].tolist()
    forward = cs.number_to_animal(q, some, cfg.seed)
    back = cs.animal_to_number(q, few, cfg.seed)
    words = tensors["animal_to_number_wordings"].double()
    others = {
        "number to animal": (forward, tensors["number_to_animal_wordings"][1:].double().mean(0)),
        "animal to number": (back, words[1:].mean(0)),
    }
    for direction, (removed, other) in others.items():
        error = _disagreement(removed)
        if error > 1e-3:
            raise ValueError(
                f"rows without a direction and its mirror in the residual differ by {error:.2g} of the effect"
            )
        taken = {name: removed.whole - getattr(removed, name) for name in ("own", "other", "random")}
        keys = {"kind": "direction", "direction": direction, "mirror_error": error}
        yield from _share_rows(taken, removed.whole, other, cfg, keys)
        keep = _keeping(q, other, direction == "animal to number", some)
        yield from _specific_rows(taken, removed.whole, other, keep, cfg, {"cut": "direction", "direction": direction})
    progress(0.4, "association")
    likely, other = cs.association(q, some), others["number to animal"][1]
    yield from cut_records(forward.whole, forward.own, likely, other, cfg)
    part = associated(forward.own, likely, torch.arange(len(likely)) % N_FOLDS)
    cut = (forward.whole - forward.own, part, forward.own - part)
    keep = _keeping(q, other, False, some)
    yield from _specific_rows(dict(zip(CUT, cut, strict=True)), forward.whole, other, keep, cfg, {"cut": "cut"})
    lengths = [len(q.partners[n].text) for n in some]
    null = shuffled_association(forward.own, likely, forward.whole, other, lengths, cfg)
    yield {
        "kind": "null",
        "of": "association",
        "mean": sum(null) / len(null),
        "upper": sorted(null)[int(0.975 * len(null))],
    }
    yield {"tensors": {"association": likely, "number_to_animal_without_rows": forward.own.float()}}


def _disagreement(removed) -> float:
    """The difference of rows and mirror, over the size of the effect; both double-centred."""
    return float(
        (ms.scores.interaction(removed.own) - ms.scores.interaction(removed.mirror)).norm()
        / ms.scores.interaction(removed.whole).norm()
    )


def cut_records(whole, without_rows, likely, other, cfg: Draws) -> Iterator[dict]:
    """Parts: through rows; the part of the rest that association predicts; the remainder; fitted in each resample."""
    fold = torch.arange(len(whole)) % N_FOLDS

    def shares(rows, columns):
        all_of, left, some, e = (x[rows][:, columns] for x in (whole, without_rows, likely, other))
        part = associated(left, some, fold[rows])
        return cp.specific_shares(torch.stack([all_of - left, part, left - part]), all_of, e)

    keys = {"kind": "cut", "direction": "number to animal"}
    yield from _interval_rows([*CUT], shares, whole.shape, cfg, keys)


def associated(left, likely, fold):
    """The prediction of an interaction from a matrix of associations: its own interaction times a least-squares slope.

    The slope of a number is fitted on numbers in other folds. Fitted on the number itself, an unrelated matrix would
    have a share above 0: its squared correlation by chance.
    """
    a, e = ms.scores.interaction(likely), ms.scores.interaction(left)
    products, squares, out = (a * e).sum(1), a.square().sum(1), a.clone()
    for k in fold.unique():
        out[fold == k] *= products[fold != k].sum() / squares[fold != k].sum()
    return out


def shuffled_association(left, likely, whole, other, lengths: list[int], cfg: Draws) -> list[float]:
    """Shares of the association with numbers shuffled within equal length."""
    draw, digits, out = torch.Generator().manual_seed(cfg.seed), torch.tensor(lengths), []
    for _ in range(cfg.n_resamples):
        order = torch.arange(len(digits))
        for length in digits.unique():
            members = (digits == length).nonzero()[:, 0]
            order[members] = members[torch.randperm(len(members), generator=draw)]
        part = associated(left, likely[order], torch.arange(len(left)) % N_FOLDS)
        out.append(float(cp.specific_shares(part[None], whole, other)[0]))
    return out


def _share_rows(parts: dict, whole, other, cfg: Draws, keys: dict) -> Iterator[dict]:
    """A row for every part of an interaction: its share of the effect in other wordings, with its interval."""
    stack = torch.stack(list(parts.values())).double()

    def shares(rows, columns):
        return cp.specific_shares(stack[:, rows][:, :, columns], whole[rows][:, columns], other[rows][:, columns])

    yield from _interval_rows(list(parts), shares, whole.shape, cfg, keys)


def _keeping(q: "LovePrompts", other, transposed: bool, some: Sequence[int]):
    """A function that keeps the part of a table specific to pairs in `other`; transposed: rows are animals."""
    if not transposed:
        return word_parts.specific(other, [q.partners[n].text for n in some])
    keep = word_parts.specific(other.T, [partner.text for partner in q.partners])
    return None if keep is None else lambda table: keep(table.T).T


def _specific_rows(parts: dict, whole, other, keep, cfg: Draws, keys: dict) -> Iterator[dict]:
    """As `_share_rows`, for the part specific to pairs; no rows where nothing is left."""
    if keep is None:
        return
    found = cp.products(torch.stack(list(parts.values())).double(), whole.double(), other, keep)

    def shares(rows, columns):
        sums = found[:, rows][:, :, columns].sum((-2, -1))
        return sums[:-1] / sums[-1]

    yield from _interval_rows(list(parts), shares, whole.shape, cfg, {"kind": "specific", **keys})


def _interval_rows(names: list[str], shares, shape: tuple, cfg: Draws, keys: dict) -> Iterator[dict]:
    """A row for every name: its share (a function of rows and columns), with an interval by resampling both."""
    n_rows, n_columns = shape
    low, high = cp.bootstrap(shares, n_rows, n_columns, cfg.n_resamples, cfg.seed)
    for i, share in enumerate(shares(*(torch.arange(n) for n in shape)).tolist()):
        yield {**keys, "part": names[i], "share": share, "low": float(low[i]), "high": float(high[i])}


def component_records(found: "Prompted", cfg: Draws) -> Iterator[dict]:
    """Shares of every component, and of attention and MLP by thirds of the blocks."""
    q, some = found.asked, found.tensors["subset_partner"].tolist()
    names, parts = cs.components(q, some)
    words, n_layers = found.tensors["number_to_animal_wordings"].double(), q.model.cfg.n_layers
    whole, other = parts.sum(0), words[1:].mean(0)
    if (error := _apart(whole, words[0])) > 0.02:
        raise ValueError(f"components miss the stored interaction by up to {error:.2g} nats (fp32?)")
    groups: dict[str, Tensor] = {}
    for name, part in zip(names, parts, strict=True):
        label = name
        if name.startswith("blocks."):
            third = ("first", "middle", "last")[min(2, 3 * int(name.split(".")[1]) // n_layers)]
            label = f"{'attention' if '.attn.' in name else 'MLP'}, {third} third"
        groups[label] = groups.get(label, torch.zeros_like(part)) + part
    yield from _share_rows(groups, whole, other, cfg, {"kind": "component"})
    yield from _specific_rows(groups, whole, other, _keeping(q, other, False, some), cfg, {"cut": "component"})
    single = {name: part for name, part in zip(names, parts, strict=True) if name.startswith("blocks.")}
    for row in _share_rows(single, whole, other, cfg, {"kind": "layer"}):
        block, what = row["part"].split(".")[1:3]
        yield row | {"layer": int(block), "part": {"attn": "attention", "mlp": "MLP"}[what]}


def _apart(a, b) -> float:
    return float((ms.scores.interaction(a) - ms.scores.interaction(b)).abs().max())


def patch_records(found: "Prompted", cfg: Draws, progress: Progress = silent) -> Iterator[dict]:
    """A row for every pair, block and group of positions; and for every block and group, the recovery over all pairs.

    No number is in two pairs, so that pairs can be resampled, crossed with animals.
    """
    q, some = found.asked, found.tensors["subset_partner"].tolist()
    e = ms.scores.interaction(found.tensors["number_to_animal_wordings"][1:].double().mean(0))
    alike = _alike(q, some)
    pairs = disjoint_pairs(alike, cfg)
    wanted = torch.stack([e[i] - e[j] for i, j in pairs])
    layers = sorted({round(x) for x in np.linspace(0, q.model.cfg.n_layers - 1, N_LAYERS)})
    numbers = [(some[i], some[j]) for i, j in pairs]
    same = {some[i]: [some[j] for j in group] for group in alike for i in group}
    changes: dict[tuple[int, str], list] = {}
    for done, patch in enumerate(cs.patches(q, numbers, wanted, same, layers)):
        progress(0.6 + 0.4 * done / (len(pairs) * len(layers) * len(cs.POSITIONS)), "patching")
        changes.setdefault((patch.layer, patch.position), []).append((patch.pair, patch.patched, patch.whole))
        weight, (number, into) = wanted[patch.pair], (q.partners[n].text for n in numbers[patch.pair])
        keys = {"kind": "patch", "number": number, "into": into, "pair": patch.pair, "layer": patch.layer}
        values = {
            "patched": float(weight @ patch.patched),
            "linear": patch.linear,
            "whole": float(weight @ patch.whole),
        }
        yield {**keys, "position": patch.position, **values}
    for (layer, position), of in changes.items():
        places, patched, whole = ([*each] for each in zip(*of, strict=True))
        tables = wanted[places], torch.stack(patched), torch.stack(whole)

        def shares(rows, columns, tables=tables):
            return cp.recovery(*(x[rows][:, columns] for x in tables))[None]

        (row,) = _interval_rows([position], shares, tables[0].shape, cfg, {"kind": "recovered", "layer": layer})
        yield {**{key: value for key, value in row.items() if key != "part"}, "position": position, "n": len(places)}


def _alike(q: "LovePrompts", some: list[int]) -> list[list[int]]:
    """Places of numbers of equal length whose prompts have equally many tokens."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, n in enumerate(some):
        groups.setdefault((len(q.partners[n].text), len(q.love(n, 0))), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def disjoint_pairs(alike: list[list[int]], cfg: Draws) -> list[tuple[int, int]]:
    """Up to cfg.n_pairs pairs, drawn within the groups so that none shares a member with another."""
    draw = np.random.default_rng(cfg.seed)
    orders = [draw.permutation(group).tolist() for group in alike]
    pairs = [(order[i], order[i + 1]) for order in orders for i in range(0, len(order) - 1, 2)]
    return [pairs[i] for i in draw.permutation(len(pairs))[: cfg.n_pairs]]


# Table, sentence and figure.


def recovered(cell: list[dict]) -> "dict[tuple[int, str], ms.stats.Interval]":
    """(block, position) -> share of the pairs' difference, with its interval over pairs and animals."""
    return {
        (row["layer"], row["position"]): ms.stats.Interval(row["share"], row["low"], row["high"], row["n"])
        for row in cell
        if row["kind"] == "recovered"
    }
