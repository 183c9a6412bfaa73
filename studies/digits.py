"""Is it whole numbers that are entangled with animals, or their digits?

A tokenizer that splits digits makes 087 and 187 share two tokens, and even where a number is one token, similar numbers
may be alike. The interaction of every stored matrix of `studies.token_entanglement` is therefore split by least squares
into what digits in their positions add up to (per animal: one value for each length, position and digit) and the rest,
which belongs to whole numbers. Do the directions, and the wordings, agree in both parts? Unit of replication: the digit
(ten of them) and the animal, both resampled; a number counts as often as all its digits are drawn. Null: the digits of
one side relabelled (0..9 permuted, in all numbers alike), which keeps all that numbers share by having common digits.

    python -m studies.digits
"""

from collections.abc import Iterator
from dataclasses import dataclass

import mechsub as ms
from mechsub import lab
from mechsub.designs import love
from mechsub.lab.findings import Finding, cells
from mechsub.lazy import go, torch

PARTS = ("all", "digits", "whole numbers")
AGREEMENTS = {"the two directions": "directions", "animal to number, other wordings": "wordings"}


@dataclass(frozen=True)
class Config(love.OfMatrices, love.OfModel):
    n_permutations: lab.Count = lab.option(999, "relabellings of the digits, resamples of every interval")
    seed: lab.Index = lab.option(0, "seed of relabellings and resamples")


check = love.check_model


def upstream(cfg: Config) -> dict:
    return {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored) -> Iterator[dict]:
    tensors, made = matrices.tensors(), matrices.provenance()
    numbers = [word.text for word in love.choose_partners(love.asking(cfg))]
    forward, back = tensors["number_to_animal"], tensors["animal_to_number"].T
    for direction, scores in (("number to animal", forward), ("animal to number", back)):
        yield {"kind": "share", "direction": direction, **digit_share(scores, numbers, cfg)}
    words = tensors["animal_to_number_wordings"].mT
    pairs = {"the two directions": (forward, back)}
    if len(words) > 1:
        pairs["animal to number, other wordings"] = (words[0], words[1:].mean(0))
    for done, (name, (a, b)) in enumerate(pairs.items(), 1):
        lab.show_progress(done / (len(pairs) + 1), name)
        for part, found in agreements(a, b, numbers, cfg).items():
            yield {"kind": "agreement", "of": name, "part": part, **found}
    yield {
        "provenance": {
            **{key: made[key] for key in ("model_name", "revision", "weights_sha256", "model_dtype") if key in made},
            "matrices": "the cell of studies.token_entanglement under made_from",
            "basis": "log-probabilities over the whole vocabulary, double-centred, nats",
            "null": "digits relabelled; of shares: numbers shuffled within length",
            "unit": "digits and animals (crossed)",
        }
    }


def design(numbers: list[str]):
    """One column for every length, position and digit that occurs: [number, column], fp64."""
    places = [[(len(text), i, digit) for i, digit in enumerate(text)] for text in numbers]
    columns = {place: i for i, place in enumerate(sorted({place for row in places for place in row}))}
    out = torch.zeros(len(numbers), len(columns), dtype=torch.float64)
    for n, row in enumerate(places):
        out[n, [columns[place] for place in row]] = 1
    return out


def projection(numbers: list[str]):
    """The matrix that takes scores [number, animal] to what digits in their positions add up to."""
    left, size, _ = torch.linalg.svd(design(numbers), full_matrices=False)
    basis = left[:, size > 1e-8 * size.max()]
    return basis @ basis.T


def digit_share(scores, numbers: list[str], cfg: Config) -> dict:
    """Share of the interaction's variance that digits add up to, and of the same with numbers shuffled in a length."""
    x, onto = ms.scores.interaction(scores), projection(numbers)
    draw = torch.Generator().manual_seed(cfg.seed)
    whole, null = float(x.square().sum()), []
    for _ in range(min(cfg.n_permutations, 99)):
        order = torch.arange(len(x))
        for length in {len(text) for text in numbers}:
            members = torch.tensor([i for i, text in enumerate(numbers) if len(text) == length])
            order[members] = members[torch.randperm(len(members), generator=draw)]
        null.append(float((onto @ x[order]).square().sum()) / whole)
    share = float((onto @ x).square().sum()) / whole
    return {"share": share, "null_mean": sum(null) / len(null), "null_most": max(null)}


def agreements(a, b, numbers: list[str], cfg: Config) -> dict[str, dict]:
    """Correlation of two interactions [number, animal], of their digits' parts, and of the rest."""
    onto, draw = projection(numbers), torch.Generator().manual_seed(cfg.seed)
    x, y = ms.scores.interaction(a), ms.scores.interaction(b)
    parts = {"all": (x, y), "digits": (onto @ x, onto @ y), "whole numbers": (x - onto @ x, y - onto @ y)}
    orders = [relabelled(numbers, torch.randperm(10, generator=draw).tolist()) for _ in range(cfg.n_permutations)]
    weights = [_counts(numbers, x.shape[1], draw) for _ in range(cfg.n_permutations)]
    out = {}
    for part, (u, v) in parts.items():
        value = correlation(u, v)
        null = [correlation(u, v[order]) for order in orders]
        draws = torch.tensor([correlation(u, v, *drawn) for drawn in weights], dtype=torch.float64)
        low, high = draws[draws.isfinite()].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        null_95 = sorted(null)[int(0.95 * len(null))]
        p = ms.stats.permutation_p(value, null, scale=1.0)
        out[part] = {"value": value, "low": low, "high": high, "p": p, "null_95": null_95}
    return out


def relabelled(numbers: list[str], labels: list[int]):
    """Place of every number's namesake when digit d is called labels[d]."""
    places = {text: i for i, text in enumerate(numbers)}
    return torch.tensor([places["".join(str(labels[int(digit)]) for digit in text)] for text in numbers])


def _counts(numbers: list[str], n_animals: int, generator):
    """How often every number and every animal counts when ten digits and all animals are drawn with replacement."""
    digits = torch.randint(10, (10,), generator=generator).bincount(minlength=10).double()
    rows = torch.tensor([float(torch.prod(digits[[int(digit) for digit in text]])) for text in numbers])
    animals = torch.randint(n_animals, (n_animals,), generator=generator).bincount(minlength=n_animals).double()
    return rows.double(), animals


def correlation(x, y, rows=None, columns=None) -> float:
    """Pearson's correlation of two matrices, double-centred under weights of their rows and columns."""
    rows = torch.ones(x.shape[0], dtype=torch.float64) if rows is None else rows
    columns = torch.ones(x.shape[1], dtype=torch.float64) if columns is None else columns
    r, c = rows / rows.sum(), columns / columns.sum()

    def centred(m):
        m = m - (m @ c)[:, None]
        return m - r @ m

    u, v, w = centred(x), centred(y), r[:, None] * c
    return float((w * u * v).sum() / ((w * u * u).sum() * (w * v * v).sum()).sqrt())


def findings(cell: list[dict]) -> list[Finding]:
    return [_share(row) if row["kind"] == "share" else _agreement(row) for row in cell]


def _share(row: dict) -> Finding:
    null = f"numbers shuffled; at most {row['null_most']:.3f}"
    label = f"share of the interaction that digits add up to: {row['direction']}"
    key = f"digit_share/{row['direction'].replace(' ', '_')}"
    return Finding(key, label, row["share"], row["null_mean"], null_label=null)


def _agreement(row: dict) -> Finding:
    return Finding(
        f"{AGREEMENTS[row['of']]}/{row['part'].replace(' ', '_')}", f"agreement of {row['of']}: {row['part']}",
        ms.stats.Interval(row["value"], row["low"], row["high"], 10), row["null_95"], row["p"],
        "digits and animals (crossed)", null_label="digits relabelled, 95% are below",
    )  # fmt: skip


def plot(records: list[dict]):
    first = cells(records, Config, findings)[0]
    more = f" ({first.label}; other cells are in the table)" if first.label else ""
    panels = {}
    for name, key in AGREEMENTS.items():
        shown = [finding for finding in first.findings if finding.subject == key]
        if not shown:
            continue
        values, parts = [finding.value for finding in shown], [finding.score.replace("_", " ") for finding in shown]
        bars = ms.kinds.error_bar((value.mean, value.low, value.high) for value in values)
        own = {"mode": "markers", "marker": {"color": ms.kinds.OKABE_ITO[0], "size": 11}, "name": "stored"}
        null = {"mode": "markers", "marker": {"color": ms.kinds.GREY, "symbol": "line-ns-open", "size": 16}}
        legend = {"showlegend": not panels}
        traces = [
            go.Scatter(x=[value.mean for value in values], y=parts, error_x=bars, **own, **legend),
            go.Scatter(x=[finding.null for finding in shown], y=parts, name="null, 95%", **null, **legend),
        ]
        axis = {"type": "category", "autorange": "reversed"}
        panels[f"Agreement of {name}"] = ms.kinds.Panel(traces, {"title_text": "correlation"}, axis)
    shares = [f"{f.score.replace('_', ' ')} {f.value:.3f}" for f in first.findings if f.subject == "digit_share"]
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Whole numbers or digits: {first.options['model']}{more}",
        caption=f"Share of the interaction that digits in their positions add up to: {'; '.join(shares)}. 95% "
        "intervals over ten digits and all animals, both resampled; null: digits relabelled.",
    )


study = lab.Study(
    version=1,
    probes=(
        Config(model="tests/probes/models/tiny", spaced=False, n_permutations=9),
        Config(model="tests/probes/models/pair/instruct", n_permutations=9, seed=1),
    ),
)


if __name__ == "__main__":
    lab.main(study)
