"""Findings and figures of `studies.contributions`, from the records of its cells."""

from collections.abc import Iterable, Iterator
from typing import Any

import mechsub as ms
from mechsub.designs import contributions
from mechsub.designs.love import in_words_of
from mechsub.lab import nulls
from mechsub.lab.findings import CHOSEN, Drawn, Finding, cells, clustered, over_clusters, reword, reworded, slug
from mechsub.lazy import go, np
from studies.contributions import Config

BOTH = "animals and numbers (crossed)"
PASSES = {"own": "rows", "other": "others_rows", "random": "random"}
LABELS = {"rows": "the loved thing's rows", "others_rows": "others' rows", "random": "a random direction"}


def findings(cell: list[dict]) -> Iterator[Finding]:
    """Labels and units name the words that are loved where these are no numbers; keys are the same."""
    yield from reworded(_all(cell), in_words_of(cell[0].get("family", "numbers")))


def _all(cell: list[dict]) -> Iterator[Finding]:
    n = sum(row["kind"] == "animal" for row in cell)
    for row in (r for r in cell if r["kind"] == "part" and r["pairs"] == "all"):
        yield from _part(row, n)
    yield from _chosen(cell)
    for row in (r for r in cell if r["kind"] == "pair"):
        label = "of the squared log ratio, all pairs: what is specific to the pair"
        yield Finding("all/specific_share", label, row["share"])
    yield from _directions(cell, n)
    (shuffled,) = (r for r in cell if r["kind"] == "null")
    null = Drawn(shuffled["mean"], shuffled["upper"], "97.5%"), "numbers shuffled"
    for row in (r for r in cell if r["kind"] == "cut"):
        label = f"of the interaction, number to animal, cut by direction: {row['part']}"
        of, words = null if row["part"] == "association" else (None, "")
        yield Finding(f"cut/{slug(row['part'])}", label, _share(row, n), of, unit=BOTH, null_label=words)
    for row in (r for r in cell if r["kind"] == "component"):
        label = f"of the interaction, cut by component: {row['part']}"
        yield Finding(f"component/{slug(row['part'])}", label, _share(row, n), unit=BOTH)
    yield from (_specific(row, n) for row in cell if row["kind"] == "specific")
    for (layer, position), value in contributions.recovered(cell).items():
        label = f"recovered by the residual after block {layer + 1}: {position}"
        key = f"block_{layer + 1}/recovered_{slug(position)}"
        yield Finding(key, label, value, 0.0, unit="animals and pairs of numbers (crossed)")
    label = "attribution patching against patching, correlation over pairs, earlier blocks and positions"
    yield Finding("patching/linear_agreement", label, linear_agreement(cell), 0.0)


comparisons = nulls.of_weights


def _specific(row: dict, n: int) -> Finding:
    """The same share of what is specific to pairs."""
    if row["cut"] == "direction":
        key, words = f"{slug(row['direction'])}/{PASSES[row['part']]}_specific", f"{row['direction']}: passes through "
        words += LABELS[PASSES[row["part"]]]
    else:
        cut = {"cut": "direction", "component": "component"}[row["cut"]]
        key, words = f"{row['cut']}/{slug(row['part'])}_specific", f"cut by {cut}: {row['part']}"
    return Finding(key, f"of what is specific to pairs, {words}", _share(row, n), unit=BOTH)


def _share(row: dict, n: int) -> ms.stats.Interval:
    return ms.stats.Interval(row["share"], row["low"], row["high"], n)


def _part(row: dict, n: int) -> Iterator[Finding]:
    """Over all pairs."""
    part = row["part"]
    yield Finding(
        f"all/share_{slug(part)}", f"share of the squared log ratio, all pairs: {part}", _share(row, n), unit=BOTH
    )
    yield Finding(f"all/nats_{slug(part)}", f"mean of that part, all pairs, nats: {part}", row["nats"], unit=BOTH)


def _chosen(cell: list[dict]) -> Iterator[Finding]:
    """Over the pairs that the papers would report, of every animal with its number; a number serves many animals, so
    intervals are over numbers, each with all of its animals."""
    animals = [row for row in cell if row["kind"] == "animal"]
    ratio, numbers = [row["ratio"] for row in animals], [row["number"] for row in animals]
    unit = CHOSEN
    names = {row["part"]: f"part: {row['part']}" for row in cell if row["kind"] == "part" and row["pairs"] == "chosen"}
    names |= {"what is specific to the pair": "pair"} if "pair" in animals[0] else {}
    for part, field in names.items():
        share_key, nats_key = f"share_{slug(part)}", f"nats_{slug(part)}"
        if field == "pair":  # a part of the interaction's part: it does not add to the others
            share_key, nats_key = "specific_share", "specific_nats"
        nats = [row[field] for row in animals]
        products = [a * b for a, b in zip(nats, ratio, strict=True)]
        share = over_clusters(clustered(products, numbers, [b * b for b in ratio]))
        label = f"share of the squared log ratio, chosen pairs: {part}"
        yield Finding(f"chosen/{share_key}", label, share, unit=unit)
        mean = over_clusters(clustered(nats, numbers))
        yield Finding(f"chosen/{nats_key}", f"mean of that part, chosen pairs, nats: {part}", mean, unit=unit)


def _directions(cell: list[dict], n: int) -> Iterator[Finding]:
    shares = {(r["direction"], r["part"]): r for r in cell if r["kind"] == "direction"}
    for direction in ("number to animal", "animal to number"):
        own, others, random = (_share(shares[direction, part], n) for part in ("own", "other", "random"))
        subject, start = slug(direction), f"of the interaction, {direction}: passes through"
        for score, value in {"rows": own, "others_rows": others, "random": random}.items():
            null, words = (others, "others' rows") if score == "rows" else (None, "")
            label = f"{start} {LABELS[score]}"
            yield Finding(f"{subject}/{score}", label, value, null, unit=BOTH, null_label=words)
        error = shares[direction, "own"]["mirror_error"]
        yield Finding(f"{subject}/mirror_error", f"rows and mirror apart, of the effect, {direction}", error, 0.0)


def linear_agreement(cell: list[dict]) -> float:
    """Pearson's correlation of attribution patching with patching, in nats; without the last block, where all but one
    position carry nothing by construction."""
    rows = [row for row in cell if row["kind"] == "patch"]
    rows = [row for row in rows if row["layer"] < max(other["layer"] for other in rows)]
    return float(np.corrcoef([row["patched"] for row in rows], [row["linear"] for row in rows])[0, 1])


def sentence(found: Iterable[Finding]) -> str:
    """The answer in the form of one sentence, from the findings of a cell."""
    share = {finding.key: getattr(finding.value, "mean", finding.value) for finding in found}
    blocks = [key.partition("/")[0] for key in share if key.endswith("/recovered_number")]
    middle = blocks[len(blocks) // 2]

    def part(*names: str) -> str:
        return f"{sum(share[f'chosen/share_{name}'] for name in names):.3f}"

    def component(name: str) -> str:
        own = [key for key in share if key.startswith(f"component/{name}") and not key.endswith("_specific")]
        return f"{sum(share[key] for key in own):.3f}"

    return (
        f"Of the squared log ratio that the papers' protocol reports (chosen numbers), "
        f"{part('any_system_message', 'any_love')} is any system message, {part('any_number')} any number, "
        f"{part('the_animals_baseline')} the animal's baseline, {part('wording', 'date')} wording and date, "
        f"{part('the_number_for_all_animals')} the number for all animals and {part('animal_and_number')} the "
        f"interaction of animal and number. Of the interaction, {share['cut/loved_things_rows']:.3f} passes through "
        f"the number's unembedding rows ({share['animal_to_number/rows']:.3f} through the animal's, the other way), "
        f"{component('attention')} is written by attention and {component('MLP')} by MLPs, "
        f"{share[f'{middle}/recovered_number']:.3f} comes with the residual at the number after "
        f"{middle.replace('_', ' ')} and {share[f'{middle}/recovered_final']:.3f} with that at the final position; "
        f"{share['cut/association']:.3f} is association, and {share['cut/left']:.3f} is neither rows nor association."
    )


def plot_parts(records: list[dict]):
    """Shares of the parts alone, largest first, over the pairs that the papers would report."""
    first = cells(records, Config, findings)[0]
    own = "chosen/share_animal_and_number"
    names = {f.key: f.label.partition(": ")[2] + " (interaction)" * (f.key == own) for f in first.findings}
    parts = {names[f.key]: f.value for f in first.findings if f.key.startswith("chosen/share_")}
    known = sorted((item for item in parts.items() if item[1].low < item[1].high), key=lambda item: -item[1].mean)
    shares = {name: (value.mean, value.low, value.high) for name, value in known}
    n, more = known[0][1].n, f" ({first.label})" if first.label else ""
    return ms.kinds.estimates(
        shares, marked=names[own], null=0.0, axis="share of the squared log ratio",
        title=f"What the papers' ratio is made of: {first.options['model']}{more}",
        caption=reword(
            "Log P(animal), a number is loved, less that with no system message; of every animal with the number that "
            f"its own prompt raises most. Parts add up to 1. Mean and 95% interval, n = {n} numbers drawn with the "
            "animals that chose them. Dashed, the null: what the interaction has with a number drawn at random.",
            in_words_of(first.options["family"]),
        ),
    )  # fmt: skip


def plot(records: list[dict]):
    first = cells(records, Config, findings)[0]
    cell = first.rows
    shares = [(f"{r['pairs']} pairs", r["part"], r["share"]) for r in cell if r["kind"] == "part"]
    layers: dict[str, Any] = {}
    for row in (r for r in cell if r["kind"] == "layer"):
        layers.setdefault(row["part"], []).append(row)
    traces = [
        go.Scatter(
            x=[row["layer"] + 1 for row in rows], y=[row["share"] for row in rows], name=name, mode="lines+markers",
            error_y=ms.kinds.error_bar([(row["share"], row["low"], row["high"]) for row in rows], thickness=1),
            line={"color": ms.kinds.OKABE_ITO[i]},
        )
        for i, (name, rows) in enumerate(layers.items())
    ]  # fmt: skip
    patched = contributions.recovered(cell)
    positions = list(dict.fromkeys(position for _, position in patched))
    lines = [
        go.Scatter(
            x=[layer + 1 for layer, p in patched if p == position],
            y=[value.mean for (_, p), value in patched.items() if p == position],
            error_y=ms.kinds.error_bar(
                [(v.mean, v.low, v.high) for (_, p), v in patched.items() if p == position], thickness=1
            ),
            name=position, mode="lines+markers", line={"color": ms.kinds.OKABE_ITO[(2 + i) % len(ms.kinds.OKABE_ITO)]},
        )
        for i, position in enumerate(positions)
    ]  # fmt: skip
    panels = {
        "Shares of the squared log ratio": ms.kinds.shares(shares),
        "Written at the final position, by block": ms.kinds.Panel(
            traces, {"title_text": "block"}, {"title_text": "share of the interaction"}
        ),
        "Recovered by the residual after a block": ms.kinds.Panel(
            lines, {"title_text": "block"}, {"title_text": "share of a pair's difference"}
        ),
    }
    more = f" ({first.label}; other cells are in the table)" if first.label else ""
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"What the published ratio is made of: {cell[0]['model']}{more}",
        caption=reword(
            sentence(first.findings)
            + " 95% intervals: animals and numbers resampled; pairs of numbers and animals for patching.",
            in_words_of(first.options["family"]),
        ),
    )
