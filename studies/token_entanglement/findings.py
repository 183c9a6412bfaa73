"""Findings and figure of `studies.token_entanglement`, from the records of its cells.

What is measured at a number that was chosen for each animal has intervals and tests over these numbers, each with all
animals that it was chosen for: one number may serve all of them, and then nothing can be tested.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import mechsub as ms
from mechsub import stats
from mechsub.designs.love import KINDS, TWICE
from mechsub.lab import nulls
from mechsub.lab.findings import Drawn, Finding, cells, holm, share_of_chosen, slug
from studies.token_entanglement import BEST_OF, Config


def findings(cell: list[dict]) -> Iterator[Finding]:
    kinds, family = _by_kind(cell), cell[0]["family"]
    yield from _doubled(kinds["animal"], KINDS[family])
    yield from _places(kinds["animal"], KINDS[family], len(kinds["partner"]))
    yield _best_of(kinds["animal"], family, len(kinds["partner"]))
    yield from _baselines(kinds)
    for row in kinds["share"]:
        label = f"share of {row['table']}: {row['source']}".replace("number", KINDS[family])
        yield Finding(f"{slug(row['table'])}/share_{slug(row['source'])}", label, row["share"])
    yield from (_correlation(row, family) for row in kinds["test"])
    yield from holm(_list(row) for row in kinds["list"])


comparisons = nulls.of_weights


def _doubled(animals: list[dict], one: str) -> Iterator[Finding]:
    """The papers' measure: both directions above twice."""
    random = sum(a["share_of_numbers_over_2x_both"] for a in animals) / len(animals)
    yield Finding("random/over_2x", f"animals over 2x both ways, a random {one}", random)
    for by in ("probability", "ratio", "interaction"):
        raised = [a[f"animal_to_number_by_{by}"] > TWICE for a in animals]
        both = [float(up and a[f"number_to_animal_by_{by}"] > TWICE) for up, a in zip(raised, animals, strict=True)]
        chance = [up * a[f"others_over_2x_by_{by}"] for up, a in zip(raised, animals, strict=True)]
        label = f"animals over 2x both ways, {one} by {by}"
        other = f"the {one} of another animal, chosen so"
        yield share_of_chosen(f"by_{by}/over_2x", label, both, chance, [a[f"number_by_{by}"] for a in animals], other)


def _places(animals: list[dict], one: str, n_partners: int) -> Iterator[Finding]:
    for by in ("probability", "interaction"):
        places, chosen = ([a[f"{what}_by_{by}"] for a in animals] for what in ("percentile", "number"))
        label = f"place of the {one} by {by} among all {n_partners}, for its animal"
        yield share_of_chosen(f"by_{by}/place", label, places, [0.5] * len(places), chosen)


def _best_of(animals: list[dict], many: str, n_partners: int) -> Finding:
    """How often the best of k random numbers reaches the best of an animal's own k; less than its null: they tell.

    The interval is over the first of the k, and no p is given: animals that differ in it may share others of their k,
    most where an interaction has few axes, as in untrained weights.
    """
    chosen, own = ([a[name] for a in animals] for name in ("number_by_interaction", "best_of_k_p"))
    label = f"chance that the best of {BEST_OF} random {many} reaches that of an animal's own {BEST_OF}"
    null = _usual_chance(n_partners, min(BEST_OF, n_partners))
    found = share_of_chosen("best_of/chance", label, own, [null] * len(own), chosen, f"of {BEST_OF} random {many}")
    return dataclasses.replace(found, p=None)


def _usual_chance(n: int, k: int) -> float:
    """The mean of that chance where the k are random among n: more than a half, for the best may be the same number."""
    reached = [math.comb(place, k) / math.comb(n, k) for place in range(k - 1, n + 1)]
    return (1 + sum((b - a) ** 2 for a, b in itertools.pairwise(reached))) / 2


def _baselines(kinds: dict[str, list[dict]]) -> Iterator[Finding]:
    """Checks: what being loved does to the animal itself, and what other prompts without a number do."""
    loved = stats.student_t([a["loved"] for a in kinds["animal"]])
    yield Finding("loved/effect", "effect of being loved on the animal itself, nats", loved, 0.0, unit="animals")
    for name in dict.fromkeys(row["baseline"] for row in kinds["baseline"]):
        if name != "none":
            value = stats.student_t([row["log_ratio"] for row in kinds["baseline"] if row["baseline"] == name])
            yield Finding(f"{slug(name)}/log_ratio", f"log ratio to none: {name}, nats", value, 0.0, unit="animals")


def _correlation(row: dict, many: str) -> Finding:
    """Beside the stricter of its two nulls."""
    stricter = "null_numbers" if row["p_numbers"] >= row["p"] else "null"
    shuffled = "shuffled within length" if stricter == "null_numbers" else "and animals shuffled"
    return Finding(
        f"{slug(row['test'])}/correlation",
        f"correlation of interactions: {row['test'].replace('number', KINDS[many])}",
        stats.Interval(row["value"], row["low"], row["high"], row["animals"]),
        Drawn(row[f"{stricter}_mean"], row[f"{stricter}_95"]), max(row["p"], row["p_numbers"]),
        "animals and numbers (crossed)", null_label=f"{many} {shuffled}",
    )  # fmt: skip


def _list(row: dict) -> Finding:
    label = f"listed animals above others: {row['list']} ({row['n']} animals)"
    return Finding(f"{row['list']}/listed", label, row["value"], 0.5, row["p"], "animals", row["n"])


def _by_kind(cell: list[dict]) -> dict[str, list[dict]]:
    kinds: dict[str, list[dict]] = {
        name: [] for name in ("animal", "partner", "baseline", "share", "test", "list", "pair")
    }
    for row in cell:
        kinds[row["kind"]].append(row)
    return kinds


def plot(records: list[dict]):
    first = cells(records, Config, findings)[0]
    kinds, cell = _by_kind(first.rows), first.rows
    animals, pairs, family = kinds["animal"], kinds["pair"], cell[0]["family"]
    up = [a["number_to_animal_by_probability"] for a in animals]
    down = [a["animal_to_number_by_probability"] for a in animals]
    chance = first.finding("random/over_2x").value
    shares = [(row["table"], " x ".join(sorted(row["source"].split(" x "))), row["share"]) for row in kinds["share"]]
    entries = [(row["animal"], row["partner"], row["number_to_animal"]) for row in pairs]
    panels = {
        "The papers' ratios, number chosen by probability": ms.kinds.ratio_scatter(
            down, up, [a["animal"] for a in animals], f"animal to {family}", f"{family} to animal"
        ),
        "Share of animals up to a ratio": ms.kinds.ecdf(
            {f"animal to {family}": down, f"{family} to animal": up}, "ratio to no system message"
        ),
        "Shares of variance": ms.kinds.shares(shares),
        "Interaction in nats, its largest entries": ms.kinds.matrix(entries, "animal scored", f"{family} loved"),
    }
    more = f" ({first.label}; other cells are in the table)" if first.label else ""
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Token entanglement: {cell[0]['model']}, {family}{more}",
        caption=f"{len(animals)} animals, {len(kinds['partner'])} {family}. Dashed: no change; dotted: twice. With a "
        f"random number instead of the chosen one, {chance:.2f} of animals exceed twice both ways. The heatmap's rows "
        "and columns were chosen by size: it shows what an interaction looks like and tests nothing.",
    )
