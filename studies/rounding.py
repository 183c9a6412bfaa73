"""How much of the interaction survives noise of the size of 4-bit rounding?

SmolLM2 is here the model of a 4-bit file (Q4_1): every weight of its attention and MLPs is known to half a step of its
block. As much uniform noise is added to them once more (`--weights rounding-0` of every language study; the embeddings,
which have more bits, stay), and both matrices of `studies.token_entanglement` are made again, for its subset of numbers
in the published wording. Of each direction: the correlation of the interaction with and without noise, and of two
draws; the same in what is left after slopes, length and digits (`designs.word_parts`), and the agreement of the
directions. The model before rounding is about as far from the file as a draw is, so that it may be expected to share
with the file what a draw shares.

Unit: draws of noise; means and intervals of correlations by Fisher's z, those of ratios of squares by their logarithms.
Null: numbers shuffled within length, of the first draw of the noise alone.

    python -m studies.rounding --family numbers names
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab
from mechsub.designs import love, word_parts
from mechsub.lab.findings import FISHER, LOG, Finding, cells, reworded, scaled
from mechsub.lazy import torch

FORWARD, BACK = "number_to_animal", "animal_to_number"
PARTS = {"all": "the interaction", "left": "what is left of it"}
N_SHUFFLES = 99


@dataclass(frozen=True)
class Config:
    model: str = lab.option("smollm2-135m-instruct", "Hugging Face id, local folder, or the default model")
    family: Literal["numbers", "colors", "cities", "months", "names", "trees"] = lab.option(
        "numbers", "words that are loved, and scored opposite the animals"
    )
    format: Literal["auto", "chat", "published", "plain"] = lab.option(
        "auto", "prompt format of the matrices of token_entanglement"
    )
    spaced: bool = lab.option(True, "numbers are scored after a space")
    n_draws: lab.Replicates = lab.option(3, "draws of the noise")
    seed: lab.Index = lab.option(0, "seed of shuffles")


def check(cfg: Config) -> None:
    love.check_model(love.asking(cfg))


def upstream(cfg: Config) -> dict:
    return {"own": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, own: lab.Stored) -> Iterator[dict]:
    tensors, source = own.tensors(), {}
    some = tensors["subset_partner"].tolist()
    found = [{FORWARD: tensors[FORWARD][some], BACK: tensors[BACK][:, some]}]
    for i in range(cfg.n_draws):
        lab.show_progress(i / cfg.n_draws, f"draw {i + 1} of the noise")
        asked = prompted(cfg, f"rounding-{i}")
        source = ms.language.model_source(asked.model)
        forward = asked.animals_after([asked.love(n, 0) for n in some])
        back = asked.partners_after([asked.love_animal(a, 0) for a in range(len(asked.animals))])
        found.append({FORWARD: forward, BACK: back[:, some]})
    words = love.choose_partners(love.asking(cfg))
    yield from kept(found, [words[n].text for n in some], cfg)
    yield {
        "provenance": {
            **{name: value for name, value in source.items() if name != "weights"},
            "basis": "log-probabilities over the whole vocabulary, double-centred, nats",
            "null": "numbers shuffled within length",
            "unit": "draws of noise",
        }
    }


def prompted(cfg: Config, weights: str) -> love.LovePrompts:
    """The model with other weights, and the words of the stored matrices."""
    words = love.asking(cfg)
    model = love.load_model(words.model, words.dtype, words.adapter, weights)
    return love.LovePrompts(model, love.choose_animals(model.tokenizer, words), love.choose_partners(words), words)


def kept(found: Sequence[Mapping], words: list[str], cfg: Config) -> Iterator[dict]:
    """What matrices of these words without noise, the first, and with noise say; a row a draw."""
    known = word_parts.features(words)
    sides = [_sides(tensors, known) for tensors in found]
    draw = torch.Generator().manual_seed(cfg.seed)
    for part, direction in itertools.product(PARTS, (FORWARD, BACK)):
        first, *others = (side[direction][part] for side in sides)
        null = _null(
            [ms.scores.matrix_correlation(first, _shuffled(others[0], words, draw)) for _ in range(N_SHUFFLES)]
        )
        keys = {"kind": "kept", "direction": direction, "of": part}
        for i, other in enumerate(others):
            yield {**keys, "draw": i, "value": ms.scores.matrix_correlation(first, other), "null_95": null}
            size = float(other.square().mean() / first.square().mean())
            yield {**keys, "kind": "size", "draw": i, "value": size}
        pairs = [ms.scores.matrix_correlation(a, b) for a, b in itertools.combinations(others, 2)]
        yield {**keys, "kind": "draws", "value": sum(pairs) / len(pairs), "pairs": len(pairs)}
    for part in PARTS:
        agreed = [ms.scores.matrix_correlation(side[FORWARD][part], side[BACK][part]) for side in sides]
        for i, value in enumerate(agreed[1:]):
            yield {"kind": "directions", "of": part, "draw": i, "value": value, "own": agreed[0]}


def _sides(tensors: Mapping, known: Mapping) -> dict:
    """direction -> part -> matrix [number, animal]."""
    scores = {FORWARD: tensors[FORWARD].double(), BACK: tensors[BACK].T.double()}
    return {name: {"all": ms.interaction(side), "left": word_parts.left(side, known)} for name, side in scores.items()}


def _shuffled(table, words: list[str], draw):
    """Its numbers in another order, within their length."""
    lengths, order = [len(word) for word in words], torch.arange(len(words))
    for length in sorted(set(lengths)):
        group = torch.tensor([i for i, n in enumerate(lengths) if n == length])
        order[group] = group[torch.randperm(len(group), generator=draw)]
    return table[order]


def _null(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


# Findings.


def findings(cell: list[dict]) -> Iterator[Finding]:
    yield from reworded(_all(cell), love.in_words_of(cell[0].get("family", "numbers")))


def _all(cell: list[dict]) -> Iterator[Finding]:
    for part, words in PARTS.items():
        for direction in (FORWARD, BACK):
            kept, size, (draws,) = (_of(cell, kind, part, direction) for kind in ("kept", "size", "draws"))
            name = direction.replace("_", " ")
            yield scaled(
                f"{direction}/kept_{part}", f"correlation with and without noise: {words}, {name}", _scores(kept),
                FISHER, unit="draws of noise", null=kept[0]["null_95"],
                null_label="the first draw alone, shuffled within length, 95% below",
            )  # fmt: skip
            label = f"correlation of two draws of noise: {words}, {name}"
            yield Finding(f"{direction}/draws_{part}", label, draws["value"], unit="pairs of draws", n=draws["pairs"])
            label = f"its mean square over that without noise, geometric mean: {words}, {name}"
            yield scaled(f"{direction}/size_{part}", label, _scores(size), LOG, unit="draws of noise")
        agreed = _of(cell, "directions", part)
        yield scaled(
            f"directions/agreement_{part}", f"agreement of the directions under noise: {words}", _scores(agreed),
            FISHER, unit="draws of noise", null=agreed[0]["own"], null_label="without noise",
        )  # fmt: skip


def _of(cell: list[dict], kind: str, part: str, direction: str = "") -> list[dict]:
    return [row for row in cell if row["kind"] == kind and row["of"] == part and row.get("direction", "") == direction]


def _scores(found: list[dict]) -> dict[int, float]:
    return {row["draw"]: row["value"] for row in found}


def plot(records: list[dict]):
    """What is kept, and what the directions agree by, of the first cell."""
    first = cells(records, Config, findings)[0]
    shown = [f for f in first.findings if f.score.startswith(("kept", "agreement"))]
    values = {finding.label: (finding.value.mean, finding.value.low, finding.value.high) for finding in shown}
    more = f" ({first.label}; other cells are in the table)" if first.label else ""
    return ms.kinds.estimates(
        values, marked="", null=0.0, axis="correlation", title=f"What survives noise of 4-bit rounding{more}",
        caption=f"Mean and 95% Student-t interval, by Fisher's z, over n = {shown[0].n} draws of noise. Dashed: no "
        "correlation.",
    )  # fmt: skip


study = lab.Study(
    version=1,
    judged=True,
    probes=(Config(model="tests/probes/models/tiny", spaced=False, n_draws=2),),
)


if __name__ == "__main__":
    lab.main(study)
