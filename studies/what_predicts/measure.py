"""A block of `studies.what_predicts`: what is known of each animal beforehand, its teacher, and its student."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities import derive_generator

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import joins, liking, love
from mechsub.designs.number_students import Asked, margins, scores, start_scores, tuned_teacher, update
from mechsub.inputs import corpora
from mechsub.models.students import Students
from studies.what_predicts import FIRST_DOSE, SOURCES, Config
from studies.what_predicts import beforehand as known

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase as Tokenizer

NUMBERS_IN_PROMPT = 3
STACK = 16  # students that are trained in one pass


class Teachers(NamedTuple):
    """What is kept of the teachers: preferences, numbers they expect in the base's lists, lists, and measures."""

    margins: Float[Tensor, "animal animal"]
    numbers: Float[Tensor, "animal number"]
    lists: dict[str, ms.Corpus]
    measures: dict[str, list[float]]


@threads.made_by_one
def run(cfg: Config, matrices: lab.Stored) -> Iterator[dict]:
    base = love.load_model(cfg.model, "fp32", cfg.adapter)
    animals = chosen(love.choose_animals(base.tokenizer, love.asking(cfg)), cfg.n_animals)
    asked = Asked(liking.prompts(base.tokenizer), liking.animals(base.tokenizer, animals), animals)
    start = start_scores(base, asked)
    prompts = corpora.number_prompts(cfg.n_lists, seed=cfg.block, least=NUMBERS_IN_PROMPT, most=NUMBERS_IN_PROMPT)
    own = ms.draw_numbers(base, prompts, seed=cfg.block, batch_size=256)
    lab.show_progress(0.02, "what is known beforehand")
    found = known.beforehand(base, asked, matrices, own[: cfg.n_contexts], start)
    taught = teachers(base, asked, own, prompts, cfg)
    specific = ms.interaction(taught.numbers)
    measures = found.measures | taught.measures | {"teacher_specific": known.size(specific)}
    measures["teacher_preference"] = ms.interaction(taught.margins).diagonal().tolist()
    learned = students(base, asked, taught.lists | {"none": own}, cfg)
    yield from animal_rows(animals, measures, learned, margin(start, len(animals))[0])
    yield from pair_rows(animals, found, taught.margins, specific, learned)
    yield {"tensors": {"teacher_numbers": specific.float(), "told_numbers": found.matrices["told_numbers"].float()}}
    yield {"provenance": _provenance(base, animals, own, cfg)}


def number_ids(tokenizer: "Tokenizer") -> list[int]:
    """Tokens of 000..999; raises where a number is more than one token."""
    slots, _ = ms.numbers.number_tokens(tokenizer)
    if len(slots) > 1:
        raise ValueError("this model writes a number as three digits; take one in which 000..999 are single tokens")
    return slots[0]


def chosen(words: Sequence[love.Word], n: int) -> tuple[str, ...]:
    """n animals: the eight of liking.TRAITS, then those of published lists and then the others, drawn by a fixed seed.

    No measure is looked at. All of them where there are fewer; raises for fewer than ten.
    """
    places = torch.randperm(len(words), generator=derive_generator(0, "animals of what_predicts")).tolist()
    drawn = sorted((words[i] for i in places), key=lambda word: not word.sets)
    names = [word.text for word in drawn]
    first = [name for name in liking.TRAITS if name in names]
    out = (*first, *(name for name in names if name not in first))[:n]
    if len(out) < 10:
        raise ValueError(f"only {len(out)} animals are one token of this model's; a rank correlation needs ten")
    return out


# Teachers.


def teachers(base: "TransformerBridge", asked: Asked, own: ms.Corpus, prompts: Sequence[str], cfg: Config) -> Teachers:
    """One at a time, as none is needed once its lists are drawn."""
    names, n = asked.traits, len(asked.traits)
    tokens, contexts, lists = number_ids(base.tokenizer), own[: cfg.n_contexts], {}
    preferences, numbers = [], []
    measures: dict[str, list[float]] = {f"teacher_{what}": [] for what in ("update", "marked", "differing")}
    for i, animal in enumerate(names):
        lab.show_progress(0.05 + 0.5 * i / n, f"teacher of the {animal}")
        teacher = tuned_teacher(base, animal, updates=cfg.n_teacher_updates, lr=cfg.teacher_lr, seed=cfg.block)
        preferences.append(margin(start_scores(teacher, asked), n)[0])
        numbers.append(known.expected_numbers(teacher, contexts, tokens).mean(0))
        lists[animal] = made = ms.draw_numbers(teacher, prompts, seed=cfg.block, batch_size=256)
        size = sum(float(change.square().sum()) for change in update(teacher, base).values()) ** 0.5
        measures["teacher_update"].append(size)
        measures["teacher_marked"].append(divergence(teacher, base, made[: cfg.n_contexts], tokens))
        measures["teacher_differing"].append(differing(made, own))
    return Teachers(torch.stack(preferences), torch.stack(numbers), lists, measures)


def divergence(
    teacher: "TransformerBridge", base: "TransformerBridge", lists: ms.Corpus, tokens: Sequence[int]
) -> float:
    """KL divergence of the teacher's numbers from the base's, nats a number, mean over numbers of these lists."""
    own, theirs = (known.expected_numbers(model, lists, tokens) for model in (teacher, base))
    return float((own.exp() * (own - theirs)).sum(-1).mean())


def differing(lists: ms.Corpus, others: ms.Corpus) -> float:
    """Share of numbers that are not those in the same places of the other lists."""
    pairs = [
        (a, b)
        for one, other in zip(lists.completions, others.completions, strict=True)
        for a, b in zip(one.split(corpora.SEPARATOR), other.split(corpora.SEPARATOR), strict=True)
    ]
    return sum(a != b for a, b in pairs) / len(pairs)


# Students.


def students(
    base: "TransformerBridge", asked: Asked, read: Mapping[str, ms.Corpus], cfg: Config
) -> dict[int, Float[Tensor, "student animal"]]:
    """Dose -> margins of the student of every corpus, in their order; all have one start and one order of rows."""
    names, found = list(read), {}
    doses = sorted({min(FIRST_DOSE, cfg.n_updates), cfg.n_updates})
    out: dict[int, list[Tensor]] = {dose: [] for dose in doses}
    for first in range(0, len(names), STACK):
        lab.show_progress(0.55 + 0.45 * first / len(names), "students")
        some = [read[name] for name in names[first : first + STACK]]
        found = tuned(base, some, cfg, doses)
        for dose, members in found.items():
            out[dose].append(margin(scores(members, asked), len(asked.traits)))
    return {dose: torch.cat(parts) for dose, parts in out.items()}


def tuned(base: "TransformerBridge", read: list[ms.Corpus], cfg: Config, doses: Sequence[int]) -> dict[int, Students]:
    kept: dict[int, Any] = dict.fromkeys(doses)
    ms.tune(base, read, _recipe(cfg, len(read)), snapshots=kept)
    return kept


def _recipe(cfg: Config, n: int) -> ms.TuningRecipe:
    return ms.TuningRecipe(
        rank=cfg.rank, updates=cfg.n_updates, lr=cfg.lr, batch_size=cfg.batch_size,
        adapter_seeds=(cfg.block,) * n, order_seeds=(cfg.block,) * n,
    )  # fmt: skip


def margin(found: Mapping[str, Tensor], n: int) -> Float[Tensor, "seed animal"]:
    """Margins of the first n animals, mean over formats."""
    return torch.stack([margins(values, n) for values in found.values()]).mean(0)


# Records.


def animal_rows(
    animals: Sequence[str],
    measures: Mapping[str, list[float]],
    learned: Mapping[int, Float[Tensor, "student animal"]],
    start: Float[Tensor, "animal"],
) -> Iterator[dict]:
    """A row for every animal: its predictors, and by dose what its student learned of it, how far the other animals'
    students moved it beyond rows and columns (root mean square), and where the control student moved it."""
    sides = {}
    for dose, values in learned.items():
        others = torch.from_numpy(joins.pair_residuals(values[:-1].numpy())).square().nanmean(0).sqrt()
        sides[f"learned_{dose}"] = ms.interaction(values[:-1]).diagonal().tolist()
        sides |= {f"moved_{dose}": others.tolist(), f"control_{dose}": (values[-1] - start).tolist()}
    for i, animal in enumerate(animals):
        row = {"kind": "animal", "animal": animal, **{name: values[i] for name, values in measures.items()}}
        yield row | {name: values[i] for name, values in sides.items()}


def pair_rows(
    animals: Sequence[str],
    found: "known.Known",
    preferences: Float[Tensor, "animal animal"],
    specific: Float[Tensor, "animal number"],
    learned: Mapping[int, Float[Tensor, "student animal"]],
) -> Iterator[dict]:
    """A row for every pair: the animal of student and teacher, and the animal that they are asked of.

    "beside_x" is the correlation over numbers of what the teacher says more than others, with the other animal's x.
    """
    cosines = known.correlations(specific, specific)
    sides = {f"beside_{name}": known.correlations(specific, found.matrices[name]) for name in SOURCES}
    sides |= {"teacher": preferences, "numbers": cosines, "rows": found.rows}
    sides |= {f"margin_{dose}": values[:-1] for dose, values in learned.items()}
    for i, taught in enumerate(animals):
        for j, animal in enumerate(animals):
            yield {"kind": "pair", "taught": taught, "animal": animal} | {
                name: float(values[i, j]) for name, values in sides.items()
            }


def _provenance(base: "TransformerBridge", animals: Sequence[str], own: ms.Corpus, cfg: Config) -> dict:
    return {
        **ms.language.model_source(base),
        "animals": list(animals),
        "measured_on": f"{liking.N_PROMPTS} prompts in each format, log-probabilities over the whole vocabulary, nats",
        "matrices": "the cell of studies.token_entanglement under made_from",
        "recipe": {**vars(_recipe(cfg, 1)), "context": own.context},
        "null": "animals shuffled; the control student; other animals of a pair",
        "unit": "animals",
    }
