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

import mechsub as ms
from mechsub import lab
from mechsub.designs import contributions, love


@dataclass(frozen=True)
class Config:
    model: str = lab.option("smollm2-135m-instruct", "Hugging Face id, local folder, or the default model")
    adapter: str = lab.option(*love.ADAPTER)
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
    yield from contributions.ratio_records(found, cfg)
    lab.show_progress(0.2, "rows of W_U")
    yield from contributions.direction_records(found, cfg, lab.show_progress)
    lab.show_progress(0.5, "components")
    yield from contributions.component_records(found, cfg)
    lab.show_progress(0.6, "patching")
    yield from contributions.patch_records(found, cfg, lab.show_progress)
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


def table(records: list[dict]) -> list[dict]:
    return [{"cell": label, **row} for label, cell in lab.by_cell(records, Config) for row in _table(cell)]


def _table(cell: list[dict]) -> Iterator[dict]:
    n = sum(row["kind"] == "animal" for row in cell)

    def interval(row: dict):
        return ms.stats.Interval(row["share"], row["low"], row["high"], n)

    for pairs in ("all", "chosen"):
        for row in (r for r in cell if r["kind"] == "part" and r["pairs"] == pairs):
            nats = f"{row['nats']:.3f}"
            if "nats_low" in row:
                nats = str(ms.stats.Interval(row["nats"], row["nats_low"], row["nats_high"], n))
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
    for (layer, position), value in contributions.recovered(cell).items():
        what = f"recovered by the residual after block {layer + 1}: {position}"
        yield {"quantity": what, "value": value, "mean, nats": "", "null": 0.0}
    agreement = linear_agreement(cell)
    what = "attribution patching against patching, correlation over pairs, earlier blocks and positions"
    yield {"quantity": what, "value": agreement, "mean, nats": "", "null": 0.0}


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
    patched = contributions.recovered(cell)
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
    label, cell = lab.by_cell(records, Config)[0]
    rows = [row for row in cell if row["kind"] == "part" and row["pairs"] == "chosen" and row["low"] < row["high"]]
    pair = {"animal and number": "the pair itself"}
    shares = {
        pair.get(row["part"], row["part"]): (row["share"], row["low"], row["high"])
        for row in sorted(rows, key=lambda row: -row["share"])
    }
    n, more = sum(row["kind"] == "animal" for row in cell), "" if label == "all" else f" ({label})"
    return ms.kinds.estimates(
        shares, marked="the pair itself", null=0.0, axis="share of the squared log ratio",
        title=f"What the papers' ratio is made of: {cell[0]['model']}{more}",
        caption="Log P(animal), a number is loved, less that with no system message; of every animal with the number "
        f"that its own prompt raises most. Parts add up to 1. Mean and 95% interval over n = {n} animals. Dashed, the "
        "null: what the pair itself has with a number drawn at random.",
    )  # fmt: skip


def plot(records: list[dict]):
    import plotly.graph_objects as go

    label, cell = lab.by_cell(records, Config)[0]
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
            traces, {"title_text": "block"}, {"title_text": "share of what is specific"}
        ),
        "Recovered by the residual after a block": ms.kinds.Panel(
            lines, {"title_text": "block"}, {"title_text": "share of a pair's difference"}
        ),
    }
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    return ms.kinds.grid(
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
