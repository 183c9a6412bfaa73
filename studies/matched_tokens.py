"""Are numbers special? The same matrices with words that match the numbers' norm and frequency in their place.

Every number of a subset is given a word that is one token, no animal and no number, and nearest to it in two respects:
the norm of its direction (mean over the tokens of a string) and its log-probability where the answer stands, with no
system message; numbers without such a word are left out. Both are then loved ("... is your favorite word") and scored
opposite the same animals. If entangled numbers were special, their interaction would be larger, more stable over
wordings, or more alike in both directions than that of the words. Null: partners shuffled within equal length. Units:
partners and animals, crossed.

    python -m studies.matched_tokens --n-permutations 199
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mechsub as ms
from mechsub import lab
from mechsub.designs import love
from mechsub.lab.findings import Finding, cells, slug
from mechsub.lazy import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

QUANTITIES = {  # of an interaction, with their part of a key
    "s.d. of the interaction, nats": "size",
    "agreement of two wordings": "wordings",
    "agreement of the directions": "directions",
}
CALIPER = 0.1  # standard deviations, of norm and log-probability over the numbers, that a word may be away


@dataclass(frozen=True)
class Config(love.OfMatrices, love.OfModel):
    n_permutations: lab.Resamples = lab.option(999, "shuffles of every permutation test, resamples of every bootstrap")
    seed: lab.Index = lab.option(0, "seed of shuffles and resamples")


check = love.check_model


def upstream(cfg: Config) -> dict:
    return {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored) -> Iterator[dict]:
    numbers, tensors = love.prompted(cfg, matrices.tensors(), lab.show_progress)
    model, animals = numbers.model, numbers.animals
    subset = tensors["subset_partner"].tolist()
    kept, words, pairs = matched_words(numbers, subset, tensors["none_to_number"])
    chosen = [subset[i] for i in kept]
    asked = love.LovePrompts(model, animals, words, numbers.cfg)
    asked.kind = "word"
    places = range(len(words))
    lab.show_progress(0.2, "words to animals")
    wordings = [asked.animals_after([asked.love(i, w) for i in places]) for w in range(2)]
    lab.show_progress(0.6, "animals to words")
    back = asked.partners_after([asked.love_animal(i, 0) for i in range(len(animals))]).T
    measured = {
        "numbers": (tensors["number_to_animal_wordings"][:, kept], tensors["animal_to_number"].T[chosen]),
        "matched words": (torch.stack(wordings), back),
    }
    yield {"tensors": {"word_to_animal_wordings": torch.stack(wordings), "animal_to_word": back}}
    for row in pairs:
        yield {"kind": "pair", **row}
    for partners, (forward, backward) in measured.items():
        lengths = [len(row["number" if partners == "numbers" else "word"]) for row in pairs]
        yield from _records(partners, forward, backward, lengths, cfg)
    yield {
        "provenance": {
            **ms.language.model_source(model),
            "basis": "raw W_U norms; log-probabilities over the whole vocabulary, nats",
            "numbers": f"{len(kept)} of the {len(subset)} numbers of token_entanglement's subset, those with a word",
            "words": f"lower-case single tokens with a space before them, within {CALIPER} s.d. of norm and "
            "log-probability together, each used once",
            "null": "partners shuffled within equal length",
            "unit": "partners and animals (crossed)",
        }
    }


def matched_words(numbers: "love.LovePrompts", subset: list[int], base) -> tuple[list[int], list, list[dict]]:
    """Numbers of the subset that have a word within the caliper, the words, and how near they are.

    The hardest to match choose first; no word is used twice.
    """
    model = numbers.model
    candidates = _candidates(model.tokenizer)
    if len(candidates) < len(subset):
        raise ValueError(f"this tokenizer has {len(candidates)} words of one token, too few for {len(subset)} numbers")
    strings = love.own_tokens(model.tokenizer, [numbers.strings[i] for i in subset], numbers.ask(None))
    logp = ms.scores.next_token_log_probs(model, [numbers.ask(None)], tokens=list(candidates.values()))[0]
    sides = [
        torch.stack([ms.unembedding.token_directions(model, tokens).norm(dim=-1).cpu(), values], dim=-1).double()
        for tokens, values in ((strings, base[subset]), (list(candidates.values()), logp))
    ]
    scale = sides[0].std(0)
    distance = torch.cdist(sides[0] / scale, sides[1] / scale)
    chosen, rows, texts = {}, [], list(candidates)
    for i in distance.amin(1).argsort(descending=True).tolist():
        j = int(distance[i].argmin())
        if distance[i, j] <= CALIPER:
            distance[:, j] = torch.inf
            chosen[i] = love.Word(texts[j], texts[j], f" {texts[j]}", candidates[texts[j]])
    if len(chosen) < 4:
        raise ValueError(f"only {len(chosen)} of {len(subset)} numbers have a word of their norm and frequency")
    kept = sorted(chosen)
    for i in kept:
        own, other = sides[0][i].tolist(), sides[1][texts.index(chosen[i].text)].tolist()
        rows.append(
            {
                "number": numbers.partners[subset[i]].text,
                "word": chosen[i].text,
                "number_norm": own[0],
                "word_norm": other[0],
                "number_log_p": own[1],
                "word_log_p": other[1],
            }
        )
    return kept, [chosen[i] for i in kept], rows


def _candidates(tokenizer: "Tokenizer") -> dict[str, int]:
    """Lower-case words of three letters and more that are one token with a space before them, and name no animal."""
    from mechsub.inputs import continuations, prompts

    names = {form for animal in ms.words.animals() for form in (animal.singular, animal.plural)}
    texts = continuations.pieces(tokenizer, range(len(tokenizer)))
    words = [text for text in texts if re.fullmatch(" [a-z]{3,}", text) and text[1:] not in names]
    return {text[1:]: token for text, token in prompts.single_tokens(tokenizer, words).items()}


def _records(partners: str, forward, backward, lengths: list[int], cfg: Config) -> Iterator[dict]:
    """Size, stability and two-way agreement of an interaction."""
    first, other = (ms.scores.interaction(table) for table in (forward[0], forward[1]))
    keys = {"kind": "summary", "partners": partners, "n": first.shape[0], "animals": first.shape[1]}

    def size(rows, columns) -> float:
        return float(ms.scores.interaction(first[rows][:, columns]).square().mean().sqrt())

    everything = size(slice(None), slice(None))
    low, high = ms.scores.crossed_bootstrap(size, *first.shape, n=cfg.n_permutations, seed=cfg.seed)
    yield {
        **keys,
        "quantity": "s.d. of the interaction, nats",
        "value": everything,
        "low": low,
        "high": high,
        "p": None,
    }
    for quantity, y in (
        ("agreement of two wordings", other),
        ("agreement of the directions", ms.scores.interaction(backward)),
    ):
        low, high = love.correlation_interval(first, y, cfg.n_permutations, cfg.seed)
        # Partners move within equal length, animals stay: what longer words have in common is in the null.
        p, null = ms.scores.permutation_p(
            first, y, n=cfg.n_permutations, seed=cfg.seed, strata=lengths, move_columns=False
        )
        value = ms.scores.matrix_correlation(first, y)
        yield {**keys, "quantity": quantity, "value": value, "low": low, "high": high, "p": p, "null_95": _top(null)}


def _top(null: list[float]) -> float:
    return sorted(null)[int(0.95 * len(null))]


def findings(cell: list[dict]) -> Iterator[Finding]:
    words = "partners shuffled within equal length, 95% are below"
    for row in (row for row in cell if row["kind"] == "summary"):
        yield Finding(
            f"{slug(row['partners'])}/{QUANTITIES[row['quantity']]}", f"{row['quantity']}: {row['partners']}",
            ms.stats.Interval(row["value"], row["low"], row["high"], row["n"]), row.get("null_95"), row["p"],
            "partners and animals (crossed)", null_label=words if "null_95" in row else "",
        )  # fmt: skip
    pairs = [row for row in cell if row["kind"] == "pair"]
    for name in ("norm", "log_p"):
        gap = ms.stats.student_t([row[f"number_{name}"] - row[f"word_{name}"] for row in pairs])
        yield Finding(f"unmatched/{name}", f"left unmatched: {name}", gap, unit="pairs of number and word")


def plot(records: list[dict]):
    first = cells(records, Config, findings)[0]
    points = [
        {"label": f"{side}: {name.replace('_', ' ')}", "facet": name.replace("_", " "), "value": row[f"{side}_{name}"]}
        for row in first.rows
        if row["kind"] == "pair"
        for side in ("number", "word")
        for name in ("norm", "log_p")
    ]
    lines = [f"{f.label} {f.value}." for f in first.findings if f.subject != "unmatched"]
    return ms.kinds.interval_bars(
        points, value="value", label="label", color=None, unit="partners",
        title=f"Numbers and matched words: {first.options['model']}", axis="norm, or log-probability in nats",
        caption="How well the words match. " + " ".join(lines),
    )  # fmt: skip


study = lab.Study(
    version=1,
    probes=(
        Config(model="tests/probes/models/tiny", spaced=False, n_permutations=100),
        Config(model="tests/probes/models/tiny", spaced=False, n_permutations=119, seed=1),
    ),
)


if __name__ == "__main__":
    lab.main(study)
