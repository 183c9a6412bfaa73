"""Does loving a number raise an animal, and loving the animal raise that number, beyond what any number or animal does?

A system prompt says "You love 087 ..."; the answer to "What is your favorite animal?" is scored for every animal. The
reverse: under "You love owls ..." every number is scored where the animal would stand. Both are full matrices of
log-probabilities over all animals of a public list that are one token, and all 1,110 numbers of one to three digits (or
another family of words, `--family`).

The papers report the ratio to the same chat without a system message. The table has it beside its null, any other
number. The estimand is the interaction of the matrix; `studies.interaction_spectrum` says what of it is specific to
pairs. Two tests: does the interaction come back in other wordings, and do the two directions agree? Nulls: shuffled
numbers and animals, and the same model with weights that never saw a text (`--weights random-0`). Units of replication:
animals and numbers, both resampled; of untrained weights the draw.

    python -m studies.token_entanglement --family names --n-animals 20
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab
from mechsub.designs import love
from mechsub.lazy import scipy_stats, torch

BEST_OF = 10
SHOWN = 30  # rows and columns of the interaction that the figure shows


@dataclass(frozen=True)
class Config(love.OfFamily):
    format: Literal["auto", "chat", "published", "plain"] = lab.option(
        "auto", "prompt format; published: template text tokenised again, today's date"
    )
    spaced: bool = lab.option(True, "numbers are scored after a space (' 087'), as in text; false: as published")
    n_animals: lab.Index = lab.option(0, "single-token animals used, drawn at random; 0: all")
    n_partners: lab.Index = lab.option(0, "numbers (or other words) used, drawn by length; 0: all")
    n_wordings: lab.Count = lab.option(5, "wordings of the love and of the question; the first is the published")
    n_subset: lab.Count = lab.option(120, "numbers in the runs of other wordings, with half as many animals")
    n_permutations: lab.Resamples = lab.option(999, "shuffles of every permutation test, resamples of every bootstrap")
    batch_size: lab.Count = lab.option(16, "prompts a forward pass")
    dtype: Literal["fp32", "bf16"] = lab.option("fp32", "of weights and activations; log-probabilities are fp32")
    seed: lab.Index = lab.option(0, "seed of subsets, shuffles and resamples")

    def __post_init__(self):
        if self.n_wordings > love.N_WORDINGS:
            raise ValueError(f"--n-wordings can be at most {love.N_WORDINGS}")
        love.check_counts(self.n_animals, self.n_partners)


def check(cfg: Config) -> None:
    """After hours, a resample of so few would hold one word alone, whose interaction is constant."""
    if cfg.n_wordings > 1 and cfg.n_subset < 2 * love.FEWEST:
        raise ValueError(
            f"--n-subset must be at least {2 * love.FEWEST}, for {love.FEWEST} animals that can be resampled"
        )
    love.check_model(cfg)


def run(cfg: Config) -> Iterator[dict]:
    lab.show_progress(0.0, "loading the model")
    model = love.load_model(cfg.model, cfg.dtype, cfg.adapter, cfg.weights)
    words = love.Asking(**{field.name: getattr(cfg, field.name) for field in dataclasses.fields(love.Asking)})
    chosen, partners = love.choose_animals(model.tokenizer, words), love.choose_partners(words)
    asked = love.LovePrompts(model, chosen, partners, words)
    tensors = asked.matrices(lab.show_progress)
    yield {"tensors": tensors}
    yield from _animal_records(chosen, partners, tensors, cfg)
    yield from _partner_records(partners, tensors)
    yield from _baseline_records(chosen, tensors, asked.baselines)
    yield from _share_records(tensors)
    yield from _tests(chosen, partners, tensors, cfg)
    yield from _pair_records(chosen, partners, tensors)
    yield {
        "provenance": {
            **ms.language.model_source(model),
            "basis": "raw W_U; log-probabilities over the whole vocabulary, fp32 log-softmax, nats",
            "prompt_format": cfg.format
            if cfg.format != "auto"
            else ("chat" if model.mechsub_source["chat_template"] else "plain"),
            "system_role": ms.prompts.system_role(model.tokenizer),
            "template_date": ms.prompts.template_date(model.tokenizer, cfg.format),
            "prompt_ids": {
                name: ids.tolist() for name, ids in (("number", asked.love(0, 0)), ("animal", asked.love_animal(0, 0)))
            },
            "animals": f"all {len(chosen)} of the public list that are one token behind the prompt's answer"
            if not cfg.n_animals
            else f"{len(chosen)} of those that are one token, drawn with seed {cfg.seed}",
            "null": "other numbers; shuffled numbers and animals (two-way); best of k against random best of k",
            "unit": "animals and numbers (crossed)",
        }
    }


def _animal_records(animals: list[love.Word], partners: list[love.Word], tensors: dict, cfg: Config) -> Iterator[dict]:
    """What the papers report of an animal, beside where their number lies among all numbers."""
    forward, back = tensors["number_to_animal"], tensors["animal_to_number"]
    up = forward - tensors["baseline_to_animal"][0]  # [number, animal]: the papers' log ratio
    down = back - tensors["none_to_number"]  # [animal, number]
    specific, specific_back = ms.scores.interaction(forward), ms.scores.interaction(back)
    scores = {"probability": back, "ratio": down, "interaction": specific_back}
    picks = {by: found.argmax(-1) for by, found in scores.items()}
    for i, animal in enumerate(animals):
        row = {
            "kind": "animal",
            "animal": animal.text,
            "token": animal.token,
            "sets": list(animal.sets),
            "log_p_none": float(tensors["baseline_to_animal"][0, i]),
            "any_number": float(up[:, i].mean()),
            "loved": float(tensors["animal_to_animal"][i, i] - tensors["baseline_to_animal"][0, i]),
            "sd_over_numbers": float(specific[:, i].std()),
            "share_of_numbers_over_2x": float((up[:, i] > love.TWICE).double().mean()),
            "share_of_numbers_over_2x_both": float(((up[:, i] > love.TWICE) & (down[i] > love.TWICE)).double().mean()),
        }
        for by, numbers in picks.items():
            n = int(numbers[i])
            # Chosen by the animal's own prompt, a number meets "animal to number" by selection. The null keeps that,
            # and asks how often a number chosen so for another animal meets "number to animal".
            others = torch.cat([numbers[:i], numbers[i + 1 :]])
            row |= {
                f"number_by_{by}": partners[n].text,
                f"number_to_animal_by_{by}": float(up[n, i]),
                f"animal_to_number_by_{by}": float(down[i, n]),
                f"percentile_by_{by}": love.percentile(specific[:, i], n),
                f"others_over_2x_by_{by}": float((up[others, i] > love.TWICE).double().mean()),
            }
        k = min(BEST_OF, len(partners))
        best = specific[specific_back[i].topk(k).indices, i].max()
        null = ms.scores.best_of_null(specific[:, i], k, seed=cfg.seed)
        row["best_of_k_p"] = float((1 + ms.stats.as_large(null, float(best)).sum()) / (1 + len(null)))
        yield row


def _partner_records(partners: list[love.Word], tensors: dict) -> Iterator[dict]:
    back = tensors["animal_to_number"] - tensors["none_to_number"]
    forward = tensors["number_to_animal"] - tensors["baseline_to_animal"][0]
    for i, partner in enumerate(partners):
        yield {
            "kind": "partner",
            "partner": partner.text,
            "scored": partner.scored,
            "log_p_none": float(tensors["none_to_number"][i]),
            "any_animal": float(back[:, i].mean()),
            "to_animals": float(forward[i].mean()),
        }


def _baseline_records(animals: list[love.Word], tensors: dict, baselines: dict[str, list]) -> Iterator[dict]:
    """Mean log-probability of every animal under each baseline, and under any number and any other animal."""
    names = [name for name, systems in baselines.items() for _ in systems]
    table = tensors["baseline_to_animal"]
    others = tensors["animal_to_animal"].clone()
    others[range(len(animals)), range(len(animals))] = torch.nan
    rows = {name: table[[n == name for n in names]].mean(0) for name in baselines}
    rows |= {"any number": tensors["number_to_animal"].mean(0), "another animal": others.nanmean(0)}
    for name, values in rows.items():
        for animal, value, none in zip(animals, values.tolist(), table[0].tolist(), strict=True):
            yield {"kind": "baseline", "baseline": name, "animal": animal.text, "log_ratio": value - none}


def _share_records(tensors: dict) -> Iterator[dict]:
    """Shares of the variance of the papers' log ratio."""
    tables = {
        "number to animal": (tensors["number_to_animal"] - tensors["baseline_to_animal"][0], ("number", "animal")),
        "animal to number": (tensors["animal_to_number"] - tensors["none_to_number"], ("animal", "number")),
        "number to animal, wordings": (
            tensors["number_to_animal_wordings"] - tensors["none_to_animal_wordings"][:, None],
            ("wording", "number", "animal"),
        ),
        "animal to number, wordings": (
            tensors["animal_to_number_wordings"] - tensors["none_to_number_wordings"][:, None],
            ("wording", "animal", "number"),
        ),
    }
    if "number_to_animal_dates" in tensors:
        tables["number to animal, dates"] = (tensors["number_to_animal_dates"], ("date", "number", "animal"))
    for name, (table, axes) in tables.items():
        if table.shape[0] > 1:
            for source, share in ms.scores.variance_shares(table, axes).items():
                yield {"kind": "share", "table": name, "source": source, "share": share}


def _tests(animals: list[love.Word], partners: list[love.Word], tensors: dict, cfg: Config) -> Iterator[dict]:
    some, few = tensors["subset_partner"], tensors["subset_animal"]
    length = [len(partner.scored) for partner in partners]
    forward, back = tensors["number_to_animal"], tensors["animal_to_number"].T
    lab.show_progress(0.9, "permutation tests")
    draws = {"n": cfg.n_permutations, "seed": cfg.seed}
    yield love.correlation_record("the two directions", forward, back, length, **draws)
    if cfg.n_wordings > 1:
        words = tensors["number_to_animal_wordings"]
        strata = [length[i] for i in some.tolist()]
        yield love.correlation_record("number to animal, other wordings", words[0], words[1:].mean(0), strata, **draws)
        words = tensors["animal_to_number_wordings"].mT
        yield love.correlation_record("animal to number, other wordings", words[0], words[1:].mean(0), length, **draws)
        # The directions again, each from wordings that the other was not measured with.
        rest = tensors["number_to_animal_wordings"][1:].mean(0)[:, few]
        yield love.correlation_record("the two directions, other wordings", back[some][:, few], rest, strata, **draws)
    specific = ms.scores.interaction(forward)
    yield from _list_tests(animals, specific, ms.scores.interaction(back))


def _list_tests(animals: list[love.Word], forward, back) -> Iterator[dict]:
    """Do the papers' animals lie high among all animals? Per animal: the correlation of its two directions."""
    agreement = [_pearson(forward[:, i], back[:, i]) for i in range(len(animals))]
    for name in love.SETS:
        inside = [value for value, animal in zip(agreement, animals, strict=True) if name in animal.sets]
        outside = [value for value, animal in zip(agreement, animals, strict=True) if name not in animal.sets]
        if len(inside) < 3 or len(outside) < 3:
            continue
        test = scipy_stats.mannwhitneyu(inside, outside, alternative="greater")
        yield {
            "kind": "list",
            "list": name,
            "n": len(inside),
            "value": float(test.statistic) / (len(inside) * len(outside)),  # P(listed > unlisted); 0.5 is no difference
            "p": float(test.pvalue),
        }


def _pearson(a, b) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-300))


def _pair_records(animals: list[love.Word], partners: list[love.Word], tensors: dict) -> Iterator[dict]:
    """The part of the interaction that the figure shows: the animals and numbers with the largest entries."""
    specific, back = (
        ms.scores.interaction(tensors["number_to_animal"]),
        ms.scores.interaction(tensors["animal_to_number"]),
    )
    columns = specific.abs().amax(0).topk(min(SHOWN, len(animals))).indices.tolist()
    rows = specific[:, columns].abs().amax(1).topk(min(SHOWN, len(partners))).indices.tolist()
    for n in sorted(rows):
        for a in sorted(columns):
            pair = {"kind": "pair", "partner": partners[n].text, "animal": animals[a].text}
            yield pair | {"number_to_animal": float(specific[n, a]), "animal_to_number": float(back[a, n])}


_TINY: dict = {"n_subset": 16, "n_permutations": 100}
study = lab.Study(version=1, probes=(
    Config(**_TINY, model="tests/probes/models/tiny", n_partners=24, n_wordings=2),
    Config(**_TINY, model="tests/probes/models/tiny", family="colors", format="plain", n_animals=8, seed=1),
    Config(
        **_TINY, model="tests/probes/models/pair/instruct", format="published", spaced=False, n_partners=12,
        n_wordings=1, batch_size=4,
    ),
    Config(**_TINY, model="tests/probes/models/pair/base", family="months", n_wordings=2),
    Config(**_TINY, model="tests/probes/models/window", family="colors", n_animals=8, n_wordings=1),
))  # fmt: skip
