"""Table and figure of `studies.token_entanglement`, from the records of its cells."""

from collections.abc import Iterator

import mechsub as ms
from mechsub import lab, stats
from mechsub.designs.love import KINDS, TWICE
from studies.token_entanglement import BEST_OF


def table(records: list[dict], Config) -> list[dict]:
    return [{"cell": label, **row} for label, cell in lab.by_cell(records, Config) for row in _rows(cell)]


def _rows(cell: list[dict]) -> Iterator[dict]:
    kinds, family = _by_kind(cell), cell[0]["family"]
    yield from _doubled(kinds["animal"], KINDS[family])
    yield from _places(kinds["animal"], KINDS[family], len(kinds["partner"]))
    yield from _best_of(kinds["animal"], family)
    yield from _baselines(kinds)
    for row in kinds["share"]:
        what = f"share of {row['table']}: {row['source']}".replace("number", KINDS[family])
        yield {"quantity": what, "value": row["share"], "null": "", "p": ""}
    yield from (_correlation(row, family) for row in kinds["test"])
    lists = kinds["list"]
    for row, p in zip(lists, stats.holm([row["p"] for row in lists]) if lists else [], strict=True):
        what = f"listed animals above others: {row['list']} ({row['n']} animals)"
        yield {"quantity": what, "value": row["value"], "null": "0.500", "p": p}


def _doubled(animals: list[dict], one: str) -> Iterator[dict]:
    """The papers' measure: both directions above twice."""
    yield {
        "quantity": f"animals over 2x both ways, a random {one}",
        "value": sum(a["share_of_numbers_over_2x_both"] for a in animals) / len(animals),
        "null": "",
        "p": "",
    }
    for by in ("probability", "ratio", "interaction"):
        raised = [a[f"animal_to_number_by_{by}"] > TWICE for a in animals]
        both = [up and a[f"number_to_animal_by_{by}"] > TWICE for up, a in zip(raised, animals, strict=True)]
        chance = [up * a[f"others_over_2x_by_{by}"] for up, a in zip(raised, animals, strict=True)]
        yield {
            "quantity": f"animals over 2x both ways, {one} by {by}",
            "value": stats.clopper_pearson(sum(both), len(both)),
            "null": f"{sum(chance) / len(chance):.3f} (the {one} of another animal, chosen so)",
            "p": stats.sign_flip_p([own - other for own, other in zip(both, chance, strict=True)]),
        }


def _places(animals: list[dict], one: str, n_partners: int) -> Iterator[dict]:
    for by in ("probability", "interaction"):
        places = [a[f"percentile_by_{by}"] for a in animals]
        yield {
            "quantity": f"place of the {one} by {by} among all {n_partners}, for its animal",
            "value": stats.student_t(places),
            "null": "0.500",
            "p": stats.sign_flip_p([place - 0.5 for place in places]),
        }


def _best_of(animals: list[dict], many: str) -> Iterator[dict]:
    adjusted = stats.benjamini_yekutieli([a["best_of_k_p"] for a in animals])
    yield {
        "quantity": f"animals whose best of {BEST_OF} {many} beats random best of {BEST_OF} (BY < 0.05)",
        "value": stats.clopper_pearson(sum(p < 0.05 for p in adjusted), len(adjusted)),
        "null": "0.000",
        "p": "",
    }


def _baselines(kinds: dict[str, list[dict]]) -> Iterator[dict]:
    """Checks: what being loved does to the animal itself, and what other prompts without a number do."""
    loved = stats.student_t([a["loved"] for a in kinds["animal"]])
    yield {"quantity": "effect of being loved on the animal itself, nats", "value": loved, "null": "0.000", "p": ""}
    for name in dict.fromkeys(row["baseline"] for row in kinds["baseline"]):
        values = [row["log_ratio"] for row in kinds["baseline"] if row["baseline"] == name]
        if name != "none":
            what = f"log ratio to none: {name}, nats"
            yield {"quantity": what, "value": stats.student_t(values), "null": "0.000", "p": ""}


def _correlation(row: dict, many: str) -> dict:
    """Beside the stricter of its two nulls."""
    stricter = "null_numbers" if row["p_numbers"] >= row["p"] else "null"
    shuffled = "shuffled within length" if stricter == "null_numbers" else "and animals shuffled"
    return {
        "quantity": f"correlation of interactions: {row['test'].replace('number', KINDS[many])}",
        "value": stats.Interval(row["value"], row["low"], row["high"], row["animals"], 0.95),
        "null": f"{row[f'{stricter}_mean']:.3f}, 95% below {row[f'{stricter}_95']:.3f} ({many} {shuffled})",
        "p": max(row["p"], row["p_numbers"]),
    }


def _by_kind(cell: list[dict]) -> dict[str, list[dict]]:
    kinds: dict[str, list[dict]] = {
        name: [] for name in ("animal", "partner", "baseline", "share", "test", "list", "pair")
    }
    for row in cell:
        kinds[row["kind"]].append(row)
    return kinds


def plot(records: list[dict], Config):
    label, cell = lab.by_cell(records, Config)[0]
    kinds = _by_kind(cell)
    animals, pairs, family = kinds["animal"], kinds["pair"], cell[0]["family"]
    up = [a["number_to_animal_by_probability"] for a in animals]
    down = [a["animal_to_number_by_probability"] for a in animals]
    chance = sum(a["share_of_numbers_over_2x_both"] for a in animals) / len(animals)
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
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Token entanglement: {cell[0]['model']}, {family}{more}",
        caption=f"{len(animals)} animals, {len(kinds['partner'])} {family}. Dashed: no change; dotted: twice. With a "
        f"random number instead of the chosen one, {chance:.2f} of animals exceed twice both ways. The heatmap's rows "
        "and columns were chosen by size: it shows what an interaction looks like and tests nothing.",
    )
