"""Is the interaction of numbers and animals about pairs, or is it a few axes?

The interaction of every stored matrix of `studies.token_entanglement` is split into orthogonal parts: slopes (a number
that sharpens or flattens all animals, an animal that follows all numbers), what numbers of one length do alike, what
digits in their places add up to, and what is left, which alone can be about pairs. Of each direction: the shares of the
parts, the participation ratio of the interaction and of what is left, and how far other wordings bring both back
(reliability: mean correlation of two wordings, and by Spearman-Brown of the mean of all). Between the directions: the
agreement in every part; over the mean of all wordings also divided by the root of both reliabilities (disattenuated).

Units: digits (ten, as a number counts as often as all its digits are drawn) and animals, both resampled; words instead
of digits in other families. Nulls: every animal's scores shuffled within length by themselves; of agreements: numbers
shuffled within length. Null of training: weights drawn anew from the model's configuration (`--weights random-0`),
whose draws are the unit where several are named beside the trained weights.

    python -m studies.interaction_spectrum --family numbers names cities colors
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import mechsub as ms
from mechsub import lab
from mechsub.designs import love
from mechsub.designs.word_parts import are_numbers, features, of_rows
from mechsub.lab import nulls
from mechsub.lab.findings import Finding, cells, reworded
from mechsub.lazy import torch

FORWARD, BACK = "number_to_animal", "animal_to_number"
NAMES = {
    "all": "the interaction", "slopes": "slopes", "length": "length", "digits": "digits in their places",
    "left": "what is left",
}  # fmt: skip
N_SHUFFLES = 19  # for the nulls of shares


@dataclass(frozen=True)
class Config(love.OfMatrices, love.OfFamily):
    n_resamples: lab.Count = lab.option(399, "resamples of every interval, shuffles of every agreement")
    seed: lab.Index = lab.option(0, "seed of resamples and shuffles")


check = love.check_model


def upstream(cfg: Config) -> dict:
    return {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored) -> Iterator[dict]:
    tensors, made = matrices.tensors(), matrices.provenance()
    words = [word.text for word in love.choose_partners(love.asking(cfg))]
    known = features(words)
    forward, back = tensors[FORWARD].double(), tensors[BACK].T.double()
    draw = torch.Generator().manual_seed(cfg.seed)
    for direction, scores in ((FORWARD, forward), (BACK, back)):
        lab.show_progress(0.3 if direction == BACK else 0.0, f"shares, {direction}")
        nulls = [_shares(_shuffled(scores, words, draw), known) for _ in range(N_SHUFFLES)]
        found = intervals(
            lambda r, c, s=scores: _shares(s[r][:, c], of_rows(known, r)),
            words,
            forward.shape[1],
            cfg.n_resamples,
            draw,
        )
        for name, value in found.items():
            null = sum(one[name] for one in nulls) / N_SHUFFLES
            yield {"kind": "share", "direction": direction, "of": name, **value, "null": null}
    lab.show_progress(0.6, "agreement")
    yield from _agreements(forward, back, words, known, cfg, draw)
    lab.show_progress(0.8, "wordings")
    yield from _wordings(tensors, words, cfg, draw)
    yield {
        "provenance": {
            **{key: made[key] for key in ("model_name", "revision", "weights_sha256", "model_dtype") if key in made},
            "matrices": "the cell of studies.token_entanglement under made_from",
            "basis": "log-probabilities over the whole vocabulary, double-centred, nats",
            "null": "every animal's scores shuffled within length; of agreements: numbers shuffled within length",
            "unit": f"{'digits' if are_numbers(words) else 'words'} and animals (crossed)",
        }
    }


def _shares(scores, known: dict) -> dict[str, float]:
    """Of the squares of the interaction; and participation ratios, of it and of what is left."""
    parts = ms.interaction_parts(scores, known)
    whole = ms.interaction(scores)
    total = float(whole.square().sum())
    shares = {name: float(part.square().sum()) / total for name, part in parts.items()}
    return shares | {f"ratio_{name}": _ratio(part) for name, part in (("all", whole), ("left", parts["left"]))}


def _ratio(part) -> float:
    return float(ms.spectra.participation_ratio(torch.linalg.svdvals(part).square()))


def _shuffled(scores, words: list[str], draw):
    """Every column shuffled by itself among numbers of one length."""
    out = scores.clone()
    for group in _by_length(words):
        for column in range(scores.shape[1]):
            out[group, column] = scores[group[torch.randperm(len(group), generator=draw)], column]
    return out


def _by_length(words: list[str]) -> list:
    lengths = [len(word) for word in words]
    return [torch.tensor([i for i, n in enumerate(lengths) if n == wanted]) for wanted in sorted(set(lengths))]


def intervals(statistic: Callable, words: list[str], n_columns: int, n: int, draw) -> dict[str, dict[str, float]]:
    """name -> value, low and high (95%) of statistic(rows, columns), which gives several by name.

    Percentiles less the resamples' own bias: words that are drawn twice make fewer axes, and smaller rests.
    """
    seen = statistic(torch.arange(len(words)), torch.arange(n_columns))
    drawn: dict[str, list[float]] = {name: [] for name in seen}
    for _ in range(n):
        columns = torch.randint(n_columns, (n_columns,), generator=draw)
        for name, value in statistic(_drawn(words, draw), columns).items():
            drawn[name].append(value)
    out = {}
    for name, value in seen.items():
        values = torch.tensor(drawn[name], dtype=torch.float64)
        values = values[values.isfinite()]
        values = values - (values.mean() - value)
        ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
        low, high = values.quantile(ends).tolist() if len(values) else (math.nan, math.nan)
        out[name] = {"value": value, "low": low, "high": high}
    return out


def _drawn(words: list[str], draw):
    """Places of words drawn with replacement; a number as often as all of its digits, of ten, are drawn."""
    if not are_numbers(words):
        return torch.randint(len(words), (len(words),), generator=draw)
    while True:
        digits = torch.randint(10, (10,), generator=draw).bincount(minlength=10)
        counts = torch.stack([digits[[int(digit) for digit in word]].prod() for word in words])
        if int((counts > 0).sum()) >= love.FEWEST:
            return torch.repeat_interleave(torch.arange(len(words)), counts)


def _correlation(a, b) -> float:
    """Of two centred matrices; NaN where one is empty of variance."""
    size = float(a.square().sum() * b.square().sum()) ** 0.5
    return float((a * b).sum()) / size if size else float("nan")


def _agreements(forward, back, words: list[str], known: dict, cfg: Config, draw) -> Iterator[dict]:
    def agreement(r, c) -> dict[str, float]:
        sides = [_parts(scores[r][:, c], of_rows(known, r)) for scores in (forward, back)]
        return {name: _correlation(*(side[name] for side in sides)) for name in sides[0]}

    found = intervals(agreement, words, forward.shape[1], cfg.n_resamples, draw)
    sides = [_parts(scores, known) for scores in (forward, back)]
    for name, value in found.items():
        a, b = (side[name] for side in sides)
        null = [_correlation(a, b[_within(words, draw)]) for _ in range(cfg.n_resamples)]
        p = ms.stats.permutation_p(value["value"], null, scale=1.0)
        yield {"kind": "agreement", "of": name, **value, "p": p, "null_95": sorted(null)[int(0.95 * len(null))]}


def _parts(scores, known: dict) -> dict:
    return {"all": ms.interaction(scores), **ms.interaction_parts(scores, known)}


def _within(words: list[str], draw):
    """An order in which numbers are shuffled within their length."""
    order = torch.arange(len(words))
    for group in _by_length(words):
        order[group] = group[torch.randperm(len(group), generator=draw)]
    return order


def _wordings(tensors: dict, words: list[str], cfg: Config, draw) -> Iterator[dict]:
    """Reliabilities of both directions, and their agreement over the mean of all wordings, on the words of both."""
    numbers, animals = tensors["subset_partner"].long(), tensors["subset_animal"].long()
    forward = tensors["number_to_animal_wordings"][:, :, animals].double()
    back = tensors["animal_to_number_wordings"].mT[:, numbers].double()
    chosen = [words[i] for i in numbers.tolist()]
    known = features(chosen)
    if len(forward) < 2:
        return

    def statistics(r, c) -> dict[str, float]:
        out = {}
        sides = {FORWARD: forward[:, r][:, :, c], BACK: back[:, r][:, :, c]}
        own = of_rows(known, r)
        each = {name: [_parts(scores, own) for scores in side] for name, side in sides.items()}
        mean = {name: _parts(side.mean(0), own) for name, side in sides.items()}
        for part in ("all", "left"):
            whole = {}
            for name, by_wording in each.items():
                pairs = itertools.combinations([parts[part] for parts in by_wording], 2)
                one = _average([_correlation(a, b) for a, b in pairs])
                whole[name] = len(by_wording) * one / (1 + (len(by_wording) - 1) * one)
                out |= {f"{name}/{part}/wording": one, f"{name}/{part}/wordings": whole[name]}
            agreed = _correlation(mean[FORWARD][part], mean[BACK][part])
            product = whole[FORWARD] * whole[BACK]
            known_apart = min(whole.values()) > 0
            out |= {
                f"directions/{part}/wordings": agreed,
                f"directions/{part}/disattenuated": agreed / product**0.5 if known_apart else float("nan"),
            }
        return out

    for name, value in intervals(statistics, chosen, len(animals), cfg.n_resamples, draw).items():
        direction, part, over = name.split("/")
        if over == "disattenuated" and math.isnan(value["value"]):
            continue  # no wording brings one of them back, so that there is nothing to divide by
        yield {"kind": "wordings", "direction": direction, "of": part, "over": over, **value}


def _average(values: list[float]) -> float:
    return sum(values) / len(values)


# Findings.


def findings(cell: list[dict]) -> list[Finding]:
    """Labels name the words that are loved; their replicates are digits, or the words where these are no numbers."""
    made = {"share": _share, "agreement": _agreement, "wordings": _over_wordings}
    family = cell[0].get("family", "numbers")
    found = reworded((made[row["kind"]](row) for row in cell), love.in_words_of(family))
    unit, n = ("digits", 10) if family == "numbers" else (family, 0)
    return [replace(f, unit=f"{unit} and animals (crossed)", n=n) for f in found]


def _interval(row: dict):
    return ms.stats.Interval(row["value"], row["low"], row["high"], 0)


def _share(row: dict) -> Finding:
    of, words = row["of"], row["direction"].replace("_", " ")
    ratio = of.startswith("ratio_")
    part = NAMES[of.removeprefix("ratio_")]
    label = f"participation ratio of {part}, {words}" if ratio else f"share of the interaction: {part}, {words}"
    key = f"{row['direction']}/{'participation' if ratio else 'share'}_{of.removeprefix('ratio_')}"
    return Finding(
        key, label, _interval(row), row["null"], null_label="every animal's scores shuffled within length",
    )  # fmt: skip


def _agreement(row: dict) -> Finding:
    return Finding(
        f"directions/agreement_{row['of']}", f"agreement of the directions: {NAMES[row['of']]}", _interval(row),
        row["null_95"], row["p"], null_label="numbers shuffled within length, 95% are below",
    )  # fmt: skip


def _over_wordings(row: dict) -> Finding:
    words = {
        "wording": "correlation of two wordings", "wordings": "reliability of the mean of all wordings",
        "disattenuated": "agreement over all wordings, disattenuated",
    }[row["over"]]  # fmt: skip
    if row["direction"] == "directions" and row["over"] == "wordings":
        words = "agreement over all wordings"
    return Finding(
        f"{row['direction']}/{row['over']}_{row['of']}", f"{words}: {NAMES[row['of']]}, {row['direction']}",
        _interval(row), 0.0,
    )  # fmt: skip


comparisons = nulls.of_weights


def plot(records: list[dict]):
    """Shares of the parts, both directions of every cell."""
    shown = []
    for cell in cells(records, Config, findings):
        for row in cell.rows:
            if row["kind"] == "share" and not row["of"].startswith("ratio_"):
                name = " ".join(filter(None, (cell.label, row["direction"].replace("_", " "))))
                shown.append((name, NAMES[row["of"]], row["value"]))
    panel = ms.kinds.shares(shown)
    return ms.kinds.grid(
        [ms.kinds.Panel(panel.traces, {"title_text": "share of the squares"}, panel.y)], ["Parts of the interaction"],
        title="The interaction of numbers and animals by parts",
        caption="Orthogonal parts, in this order; only what is left can be about pairs.",
    )  # fmt: skip


study = lab.Study(
    version=2,  # intervals less the bias of the resamples
    judged=True,
    probes=(
        Config(model="tests/probes/models/tiny", spaced=False, n_resamples=5),
        Config(model="tests/probes/models/pair/instruct", n_resamples=5, seed=1),
    ),
)


if __name__ == "__main__":
    lab.main(study)
