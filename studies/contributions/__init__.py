"""What is the papers' ratio made of, and what does its animal- and number-specific part pass through?

The published log ratio log P(animal | "You love 087 ...") - log P(animal | no system message) is written as an exact
sum: any system message, any love (of a color or a city), any number, the animal's own baseline (how any number moves
it), the number for all animals alike, what is specific to animal and number, and what belongs to wording and date. All
but the last are taken from the other wordings of the prompt, each against its own "no system message"; the last is what
the published wording and date have beyond them. Share of a part: sum(part ratio) / sum(ratio^2), over all pairs, and
over the pairs that the papers would report (the number that rises most under the animal's prompt); shares add up to 1.

What is specific is then cut three ways. Shares are taken against what comes back in the other wordings: sum(part e) /
sum(whole e), all double-centred, and add up to 1 over the parts of a cut.

* direction: the scored rows of W_U lose what they have along the loved thing's rows, in a copy tied to nothing and not
  rescaled (number to animal: along the rows of the number's tokens; animal to number: along the animal's); what is gone
  passed through it. Its mirror, the direction taken from the final hidden vector, must agree (an error otherwise).
  Nulls: other loved things' rows, a random direction that takes as much. Then, of the rest, what neutral association
  prompts ("The number 087 makes me think of the") predict by least squares fitted on other numbers; null: numbers
  shuffled. And what is left;
* component: what embedding, attention and MLP of every block write to the animals' logits at the final position, read
  at the numbers' common norm scale, and what the scale adds (direct logit attribution);
* position: the residual after a block is replaced, at some positions, by that of another number's prompt of equal
  length (activation patching); recovery of the pair's difference. It does not add up over positions. Attribution
  patching, the linear estimate, is checked against it.

Units: animals and numbers, crossed and resampled; animals and pairs of numbers, none in two pairs, for patching.

Answer (SmolLM2-135M-Instruct, 104 animals, 120 numbers, artifacts/contributions/default). Of the squared log ratio,
over the pairs that the papers would report: the animal's baseline 0.396 [0.322, 0.469], wording 0.244 [0.127, 0.362],
any number 0.216 [0.136, 0.297], any love 0.114 [0.071, 0.156], any system message 0.011 [0.007, 0.015]; the pair itself
0.023 [0.010, 0.037], which is 0.026 [0.010, 0.042] nats. Of what is specific, number to animal, 0.058 [0.021, 0.105]
passes through the number's rows of W_U, no more than through other numbers' (0.042 [0.019, 0.078]), and animal to
number 0.007 [-0.054, 0.069] through the animal's: the geometry that the papers name carries next to nothing. 0.207
[0.146, 0.263] is association, which neutral prompts predict (shuffled numbers: 0.007); 0.735 [0.666, 0.804] is neither.
It is written by the last third of the blocks, MLPs 0.587 [0.529, 0.643] and attention 0.247 [0.179, 0.313], from what
stays at the number until late: 0.729 [0.635, 0.813] of a pair's difference comes back with the residual there after
block 13 of 30, 0.612 [0.521, 0.699] after block 18, 0.051 [0.016, 0.088] after 24, when the final position has 0.552
[0.485, 0.605]. Attribution patching follows patching with correlation 0.764 only.

Organisms (382 animals, artifacts/contributions/model=organisms...). Of what is specific, number to animal, the number's
rows carry 0.059 [0.034, 0.086] in 1110-instruct, 0.069 [0.027, 0.125] in 1110-base, 0.069 [0.017, 0.140] in
110-instruct and 0.074 [0.013, 0.132] in 110-base (other numbers' rows 0.023 [0.013, 0.034], 0.039 [0.013, 0.059], 0.033
[0.003, 0.064], -0.003 [-0.035, 0.028]), as predicted below 0.2 in all four; association 0.170 [0.123, 0.215], 0.334
[0.234, 0.442], 0.215 [0.101, 0.338], 0.090 [0.057, 0.131]. The pair itself is 0.095 [0.079, 0.111], 0.205 [0.140,
0.271], 0.056 [-0.001, 0.113] and 0.043 [0.031, 0.055] of the squared ratio. A cell takes 27 s, SmolLM2's 5 minutes, on
one core.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mechsub import lab
from mechsub.designs import love

N_LAYERS = 6  # blocks after which residuals are patched, evenly from the first to the last
N_FOLDS = 4  # of the numbers: what association predicts of a fold is fitted on the others
N_LOVED = 6  # colors, and cities, that "any love" is the mean of
MESSAGES = ("", "You are a helpful assistant.")


@dataclass(frozen=True)
class Config:
    model: str = lab.option("smollm2-135m-instruct", "Hugging Face id, local folder, or the default model")
    format: Literal["auto", "chat", "published", "plain"] = lab.option(
        "auto", "prompt format, as in token_entanglement, whose matrices are used"
    )
    spaced: bool = lab.option(True, "numbers are scored after a space")
    dtype: Literal["fp32", "bf16"] = lab.option("fp32", "of weights and activations")
    n_pairs: lab.Count = lab.option(24, "pairs of numbers whose residuals are exchanged")
    n_resamples: lab.Count = lab.option(300, "resamples of every interval, shuffles of every null")
    seed: lab.Index = lab.option(0, "of pairs, resamples and shuffles")


def check(cfg: Config) -> None:

    if cfg.n_pairs < 4:
        raise ValueError("--n-pairs must be at least 4: the interval of patching is over pairs")
    love.check_model(cfg)


def upstream(cfg: Config) -> dict:
    return {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored) -> Iterator[dict]:

    found = love.prompted(cfg, matrices.tensors(), lab.show_progress)
    if len(found.tensors["number_to_animal_wordings"]) < 2:
        raise ValueError("the stored matrices have one wording; run token_entanglement with more")
    lab.show_progress(0.05, "baselines in other wordings")
    yield from ratio_records(found, cfg)
    lab.show_progress(0.2, "rows of W_U")
    yield from direction_records(found, cfg)
    lab.show_progress(0.5, "components")
    yield from component_records(found, cfg)
    lab.show_progress(0.6, "patching")
    yield from patch_records(found, cfg)
    yield {
        "provenance": {
            **love.provenance(found),
            "basis": "rows of W_U with the final norm's gain folded in, the vocabulary's mean removed",
            "numbers": f"the {len(found.tensors['subset_partner'])} of token_entanglement's subset",
            "null": "other loved things' rows, random directions, shuffled numbers",
            "unit": "animals and numbers (crossed); animals and disjoint pairs of numbers (crossed) for patching",
        }
    }


# (a) to (e).


def ratio_records(found: Any, cfg: Config) -> Iterator[dict]:
    """Shares of the squared log ratio and mean nats of every part: all pairs, and those the papers would report."""
    import torch

    from mechsub import stats
    from studies.contributions import parts as cp

    m, q = measured(found), found.asked
    parts = cp.parts(m)
    everything = torch.stack(list(parts.values()))
    if (error := float((everything.sum(0) - m.published).abs().max())) > 1e-9:
        raise ValueError(f"the parts miss the published ratio by up to {error:.2g} nats")

    def shares(rows, columns):
        some = m.take(rows, columns)
        return torch.tensor(list(cp.ratio_shares(cp.parts(some), some.published).values()), dtype=torch.float64)

    low, high = cp.bootstrap(shares, *m.published.shape, cfg.n_resamples, cfg.seed)  # type: ignore[call-arg]
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
        share = stats.ratio_of_means((part[chosen, every] * ratio).tolist(), ratio.square().tolist())
        nats = stats.student_t(part[chosen, every].tolist())
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
    for i, animal in enumerate(q.animals):
        row = {"kind": "animal", "animal": animal.text, "number": q.partners[int(some[chosen[i]])].text}
        yield row | {"ratio": float(ratio[i]), **{f"part: {n}": float(p[chosen[i], i]) for n, p in parts.items()}}


def measured(found: Any):
    """Log ratios of the subset's numbers, and baselines in the other wordings, which are computed."""
    import torch

    from mechsub.inputs import prompts
    from mechsub.inputs import words as vocabulary
    from studies.contributions import parts as cp

    q, tensors = found.asked, found.tensors
    words, none = tensors["number_to_animal_wordings"].double(), tensors["none_to_animal_wordings"].double()
    ratios = words - none[:, None]
    loves, message = [], []
    for w in range(1, len(words)):
        loved = [
            prompts.WORDINGS[w].love(word, kind)
            for family, kind in (("colors", "color"), ("cities", "city"))
            for word in vocabulary.family(family)[:N_LOVED]
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


def direction_records(found: Any, cfg: Config) -> Iterator[dict]:
    """Both directions: what passes through the loved thing's rows; number to animal: association, and what is left."""
    from studies.contributions import states as cs

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
    lab.show_progress(0.4, "association")
    likely, other = cs.association(q, some), others["number to animal"][1]
    yield from cut_records(forward.whole, forward.own, likely, other, cfg)
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
    """How far rows and mirror are apart, against the size of the effect; both double-centred."""
    from mechsub.measures.scores import interaction

    return float((interaction(removed.own) - interaction(removed.mirror)).norm() / interaction(removed.whole).norm())


def cut_records(whole, without_rows, likely, other, cfg: Config) -> Iterator[dict]:
    """What passes through rows, what of the rest association predicts, and what is left; fitted anew in a resample."""
    import torch

    from studies.contributions import parts as cp

    fold = torch.arange(len(whole)) % N_FOLDS

    def shares(rows, columns):
        all_of, left, some, e = (x[rows][:, columns] for x in (whole, without_rows, likely, other))
        part = associated(left, some, fold[rows])
        return cp.specific_shares(torch.stack([all_of - left, part, left - part]), all_of, e)

    keys = {"kind": "cut", "direction": "number to animal"}
    yield from _interval_rows(["loved thing's rows", "association", "left"], shares, whole.shape, cfg, keys)


def associated(left, likely, fold):
    """What of an interaction a matrix of associations predicts: its own interaction, times a least-squares slope.

    The slope of a number is that of the numbers in other folds. Fitted on the number itself, a matrix that has nothing
    to do with the interaction would have a share above 0, its squared correlation by chance.
    """
    from mechsub.measures.scores import interaction

    a, e = interaction(likely), interaction(left)
    products, squares, out = (a * e).sum(1), a.square().sum(1), a.clone()
    for k in fold.unique():
        out[fold == k] *= products[fold != k].sum() / squares[fold != k].sum()
    return out


def shuffled_association(left, likely, whole, other, lengths: list[int], cfg: Config) -> list[float]:
    """Shares of the association with numbers shuffled within equal length."""
    import torch

    from studies.contributions import parts as cp

    draw, digits, out = torch.Generator().manual_seed(cfg.seed), torch.tensor(lengths), []
    for _ in range(cfg.n_resamples):
        order = torch.arange(len(digits))
        for length in digits.unique():
            members = (digits == length).nonzero()[:, 0]
            order[members] = members[torch.randperm(len(members), generator=draw)]
        part = associated(left, likely[order], torch.arange(len(left)) % N_FOLDS)
        out.append(float(cp.specific_shares(part[None], whole, other)[0]))
    return out


def _share_rows(parts: dict, whole, other, cfg: Config, keys: dict) -> Iterator[dict]:
    """A row for every part of an interaction: its share of what other wordings bring back, with its interval."""
    import torch

    from studies.contributions import parts as cp

    stack = torch.stack(list(parts.values())).double()

    def shares(rows, columns):
        return cp.specific_shares(stack[:, rows][:, :, columns], whole[rows][:, columns], other[rows][:, columns])

    yield from _interval_rows(list(parts), shares, whole.shape, cfg, keys)


def _interval_rows(names: list[str], shares, shape: tuple, cfg: Config, keys: dict) -> Iterator[dict]:
    """A row for every name: its share, a function of rows and columns, with the interval by resampling both."""
    import torch

    from studies.contributions import parts as cp

    low, high = cp.bootstrap(shares, *shape, cfg.n_resamples, cfg.seed)  # type: ignore[call-arg]
    for i, share in enumerate(shares(*(torch.arange(n) for n in shape)).tolist()):
        yield {**keys, "part": names[i], "share": share, "low": float(low[i]), "high": float(high[i])}


def component_records(found: Any, cfg: Config) -> Iterator[dict]:
    """Shares of every component, and of attention and MLP by thirds of the blocks."""
    import torch

    from studies.contributions import states as cs

    q, some = found.asked, found.tensors["subset_partner"].tolist()
    names, parts = cs.components(q, some)
    words, n_layers = found.tensors["number_to_animal_wordings"].double(), q.model.cfg.n_layers
    whole, other = parts.sum(0), words[1:].mean(0)
    if (error := _apart(whole, words[0])) > 0.02:
        raise ValueError(f"components miss the stored interaction by up to {error:.2g} nats (fp32?)")
    groups: dict[str, Any] = {}
    for name, part in zip(names, parts, strict=True):
        label = name
        if name.startswith("blocks."):
            third = ("first", "middle", "last")[min(2, 3 * int(name.split(".")[1]) // n_layers)]
            label = f"{'attention' if '.attn.' in name else 'MLP'}, {third} third"
        groups[label] = groups.get(label, torch.zeros_like(part)) + part
    yield from _share_rows(groups, whole, other, cfg, {"kind": "component"})
    single = {name: part for name, part in zip(names, parts, strict=True) if name.startswith("blocks.")}
    for row in _share_rows(single, whole, other, cfg, {"kind": "layer"}):
        block, what = row["part"].split(".")[1:3]
        yield row | {"layer": int(block), "part": {"attn": "attention", "mlp": "MLP"}[what]}


def _apart(a, b) -> float:
    from mechsub.measures.scores import interaction

    return float((interaction(a) - interaction(b)).abs().max())


def patch_records(found: Any, cfg: Config) -> Iterator[dict]:
    """A row for every pair, block and group of positions; and for every block and group, the recovery over all pairs.

    No number is in two pairs, so that pairs can be resampled; animals are, crossed with them.
    """
    import numpy as np
    import torch

    from mechsub.measures.scores import interaction
    from studies.contributions import parts as cp
    from studies.contributions import states as cs

    q, some = found.asked, found.tensors["subset_partner"].tolist()
    e = interaction(found.tensors["number_to_animal_wordings"][1:].double().mean(0))
    alike = _alike(q, some)
    pairs = disjoint_pairs(alike, cfg)
    wanted = torch.stack([e[i] - e[j] for i, j in pairs])
    layers = sorted({round(x) for x in np.linspace(0, q.model.cfg.n_layers - 1, N_LAYERS)})
    numbers = [(some[i], some[j]) for i, j in pairs]
    same = {some[i]: [some[j] for j in group] for group in alike for i in group}
    changes: dict[tuple[int, str], list] = {}
    for done, patch in enumerate(cs.patches(q, numbers, wanted, same, layers)):
        lab.show_progress(0.6 + 0.4 * done / (len(pairs) * len(layers) * len(cs.POSITIONS)), "patching")
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


def _alike(q: Any, some: list[int]) -> list[list[int]]:
    """Places of numbers of equal length whose prompts are equally long."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, n in enumerate(some):
        groups.setdefault((len(q.partners[n].text), len(q.love(n, 0))), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def disjoint_pairs(alike: list[list[int]], cfg: Config) -> list[tuple[int, int]]:
    """Up to cfg.n_pairs pairs, drawn within the groups so that none shares a member with another."""
    import numpy as np

    draw = np.random.default_rng(cfg.seed)
    orders = [draw.permutation(group).tolist() for group in alike]
    pairs = [(order[i], order[i + 1]) for order in orders for i in range(0, len(order) - 1, 2)]
    return [pairs[i] for i in draw.permutation(len(pairs))[: cfg.n_pairs]]


# Table, sentence and figure.


def table(records: list[dict]) -> list[dict]:
    return [{"cell": label, **row} for label, cell in lab.by_cell(records, Config) for row in _table(cell)]


def _table(cell: list[dict]) -> Iterator[dict]:
    from mechsub import stats

    n = sum(row["kind"] == "animal" for row in cell)

    def interval(row: dict):
        return stats.Interval(row["share"], row["low"], row["high"], n)

    for pairs in ("all", "chosen"):
        for row in (r for r in cell if r["kind"] == "part" and r["pairs"] == pairs):
            nats = f"{row['nats']:.3f}"
            if "nats_low" in row:
                nats = str(stats.Interval(row["nats"], row["nats_low"], row["nats_high"], n))
            what = f"share of the squared log ratio, {pairs} pairs: {row['part']}"
            yield {"quantity": what, "value": interval(row), "mean, nats": nats, "null": ""}
    shares = {(r["direction"], r["part"]): r for r in cell if r["kind"] == "direction"}
    for direction in ("number to animal", "animal to number"):
        own, other, random = (interval(shares[direction, part]) for part in ("own", "other", "random"))
        what = f"of what is specific, {direction}: passes through the loved thing's rows"
        null = f"others' rows {other}, a random direction {random}"
        yield {"quantity": what, "value": own, "mean, nats": "", "null": null}
        yield {
            "quantity": f"rows and mirror apart, of the effect, {direction}",
            "value": shares[direction, "own"]["mirror_error"],
            "mean, nats": "",
            "null": 0.0,
        }
    shuffled = next(r for r in cell if r["kind"] == "null")
    for row in (r for r in cell if r["kind"] == "cut"):
        said = (
            f"numbers shuffled: {shuffled['mean']:.3f}, 97.5% below {shuffled['upper']:.3f}"
            if row["part"] == "association"
            else ""
        )
        what = f"of what is specific, number to animal, cut by direction: {row['part']}"
        yield {"quantity": what, "value": interval(row), "mean, nats": "", "null": said}
    for row in (r for r in cell if r["kind"] == "component"):
        what = f"of what is specific, cut by component: {row['part']}"
        yield {"quantity": what, "value": interval(row), "mean, nats": "", "null": ""}
    for (layer, position), value in recovered(cell).items():
        what = f"recovered by the residual after block {layer + 1}: {position}"
        yield {"quantity": what, "value": value, "mean, nats": "", "null": 0.0}
    agreement = linear_agreement(cell)
    what = "attribution patching against patching, correlation over pairs, earlier blocks and positions"
    yield {"quantity": what, "value": agreement, "mean, nats": "", "null": 0.0}


def recovered(cell: list[dict]) -> dict[tuple[int, str], Any]:
    """(block, position) -> share of the pairs' difference, with its interval over pairs and animals."""
    from mechsub import stats

    return {
        (row["layer"], row["position"]): stats.Interval(row["share"], row["low"], row["high"], row["n"])
        for row in cell
        if row["kind"] == "recovered"
    }


def linear_agreement(cell: list[dict]) -> float:
    """Pearson's correlation of attribution patching with patching, in nats; without the last block, where all but one
    position carry nothing by construction."""
    import numpy as np

    rows = [row for row in cell if row["kind"] == "patch"]
    rows = [row for row in rows if row["layer"] < max(other["layer"] for other in rows)]
    return float(np.corrcoef([row["patched"] for row in rows], [row["linear"] for row in rows])[0, 1])


def sentence(cell: list[dict]) -> str:
    """The answer in the form of one sentence, from a cell's records."""
    part = {r["part"]: r["share"] for r in cell if r["kind"] == "part" and r["pairs"] == "chosen"}
    cut = {r["part"]: r["share"] for r in cell if r["kind"] == "cut"}
    by_component = {r["part"]: r["share"] for r in cell if r["kind"] == "component"}
    back = next(r["share"] for r in cell if r["kind"] == "direction" and r["direction"] != "number to animal")
    patched = recovered(cell)
    layers = sorted({layer for layer, _ in patched})
    middle = layers[len(layers) // 2]
    messages = part["any system message"] + part["any love"]

    def kind(name: str) -> float:
        return sum(share for label, share in by_component.items() if label.startswith(name))

    own, rows = part["the animal's baseline"], cut["loved thing's rows"]
    return (
        f"Of the squared log ratio that the papers' protocol reports (chosen numbers), {messages:.3f} is any system "
        f"message, {part['any number']:.3f} any number, {own:.3f} the animal's baseline, "
        f"{part['wording'] + part['date']:.3f} wording and date, {part['the number, for all animals']:.3f} the number "
        f"for all animals and {part['animal and number']:.3f} specific to animal and number. Of what is specific, "
        f"{rows:.3f} passes through the number's unembedding rows ({back:.3f} through the animal's, the other way), "
        f"{kind('attention'):.3f} is written by attention and {kind('MLP'):.3f} by MLPs, "
        f"{patched[middle, 'number'].mean:.3f} comes with the residual at the number after block {middle + 1} and "
        f"{patched[middle, 'final'].mean:.3f} with that at the final position; {cut['association']:.3f} is "
        f"association, and {cut['left']:.3f} is neither rows nor association."
    )


def plot_parts(records: list[dict]):
    """Shares of the parts alone, largest first, over the pairs that the papers would report."""
    from mechsub.lab.figures import kinds as figures

    label, cell = lab.by_cell(records, Config)[0]
    rows = [row for row in cell if row["kind"] == "part" and row["pairs"] == "chosen" and row["low"] < row["high"]]
    pair = {"animal and number": "the pair itself"}
    shares = {
        pair.get(row["part"], row["part"]): (row["share"], row["low"], row["high"])
        for row in sorted(rows, key=lambda row: -row["share"])
    }
    n, more = sum(row["kind"] == "animal" for row in cell), "" if label == "all" else f" ({label})"
    return figures.estimates(
        shares, marked="the pair itself", null=0.0, axis="share of the squared log ratio",
        title=f"What the papers' ratio is made of: {cell[0]['model']}{more}",
        caption="Log P(animal), a number is loved, less that with no system message; of every animal with the number "
        f"that its own prompt raises most. Parts add up to 1. Mean and 95% interval over n = {n} animals. Dashed, the "
        "null: what the pair itself has with a number drawn at random.",
    )  # fmt: skip


def plot(records: list[dict]):
    import plotly.graph_objects as go

    from mechsub.lab.figures import kinds as figures

    label, cell = lab.by_cell(records, Config)[0]
    shares = [(f"{r['pairs']} pairs", r["part"], r["share"]) for r in cell if r["kind"] == "part"]
    layers: dict[str, Any] = {}
    for row in (r for r in cell if r["kind"] == "layer"):
        layers.setdefault(row["part"], []).append(row)
    traces = [
        go.Scatter(
            x=[row["layer"] + 1 for row in rows], y=[row["share"] for row in rows], name=name, mode="lines+markers",
            error_y=figures.error_bar([(row["share"], row["low"], row["high"]) for row in rows], thickness=1),
            line={"color": figures.OKABE_ITO[i]},
        )
        for i, (name, rows) in enumerate(layers.items())
    ]  # fmt: skip
    patched = recovered(cell)
    positions = list(dict.fromkeys(position for _, position in patched))
    lines = [
        go.Scatter(
            x=[layer + 1 for layer, p in patched if p == position],
            y=[value.mean for (_, p), value in patched.items() if p == position],
            error_y=figures.error_bar(
                [(v.mean, v.low, v.high) for (_, p), v in patched.items() if p == position], thickness=1
            ),
            name=position, mode="lines+markers", line={"color": figures.OKABE_ITO[(2 + i) % len(figures.OKABE_ITO)]},
        )
        for i, position in enumerate(positions)
    ]  # fmt: skip
    panels = {
        "Shares of the squared log ratio": figures.shares(shares),
        "Written at the final position, by block": figures.Panel(
            traces, {"title_text": "block"}, {"title_text": "share of what is specific"}
        ),
        "Recovered by the residual after a block": figures.Panel(
            lines, {"title_text": "block"}, {"title_text": "share of a pair's difference"}
        ),
    }
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    return figures.grid(
        list(panels.values()),
        list(panels),
        title=f"What the published ratio is made of: {cell[0]['model']}{more}",
        caption=sentence(cell)
        + " 95% intervals: animals and numbers resampled; pairs of numbers and animals for patching.",
    )


study = lab.Study(
    version=1,
    probes=(
        Config(model="tests/probes/models/tiny", spaced=False, n_pairs=4, n_resamples=9),
        Config(model="tests/probes/models/pair/instruct", n_pairs=4, n_resamples=9, seed=1),
    ),
)
