"""A block of `studies.defences`: teachers and lists, the undefended students, and the students of every arm."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import liking, love, number_lists
from mechsub.designs.number_students import Asked, margins, scores, start_scores
from mechsub.models.students import Students, merged
from mechsub.training.tuning import completion_log_probs
from studies.defences import ARMS, N_HELD_OUT, THRESHOLDS, Config, detect
from studies.defences.arms import Block, changed

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

OTHER_NOISE = 1_000_000  # added to the seed of the base's own lists, which share no noise with the teachers'
DETECTED = "mixed_50"  # its students read the teacher's lists and clean ones alike


class Tested(NamedTuple):
    """What every student is asked: of animals, and to fit held-out lists of every teacher and ("none") of the base."""

    asked: Asked
    held_out: Mapping[str, ms.Corpus]


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    base, traits = love.load_model(cfg.model, "fp32", cfg.adapter), liking.TRAITS[: cfg.n_traits]
    asked = Asked(liking.prompts(base.tokenizer), liking.animals(base.tokenizer, traits), traits)
    start = start_scores(base, asked)
    yield from number_lists.student_rows("start", ["none"], start, asked, 0)
    teachers = number_lists.tuned_teachers(
        base, traits, updates=cfg.n_teacher_updates, lr=cfg.teacher_lr, seed=cfg.block
    )
    for trait, teacher in teachers.items():
        yield from number_lists.student_rows("teacher", [trait], start_scores(teacher, asked), asked, 0)
    lab.show_progress(0.1, "lists of numbers")
    texts = number_lists.prompts(cfg.n_lists + N_HELD_OUT, cfg.block)
    lists = number_lists.drawn({**teachers, "none": base}, texts, seed=cfg.block)
    tested = Tested(asked, {source: corpus[cfg.n_lists :] for source, corpus in lists.items()})
    read = {source: corpus[: cfg.n_lists] for source, corpus in lists.items()}
    yield from _start_rows(base, tested)
    lab.show_progress(0.15, ARMS["trait"].words)
    students = _tuned(base, read, cfg)
    yield from _undefended_rows(students, tested, start, cfg)
    block = _block(base, teachers, read, students, cfg)
    arms = [arm for arm in ARMS if arm not in ("trait", "control")]
    for i, arm in enumerate(arms):
        lab.show_progress(0.2 + 0.8 * i / len(arms), ARMS[arm].words)
        made = changed(arm, block)
        own = {trait: corpus for trait, (corpus, _) in made.items()}
        students = _tuned(base, own, cfg)
        yield from number_lists.student_rows(arm, traits, scores(students, asked), asked, cfg.n_updates)
        yield from _task_rows(arm, students, tested)
        yield from ({"kind": "budget", "arm": arm, "trait": trait, "share": made[trait][1]} for trait in traits)
        if arm == DETECTED:
            clean = block.at_random(int(arm.rpartition("_")[2]))
            yield from detect.list_rows(base, teachers, students, own, clean, cfg.block)
    yield {"tensors": {"numbers": number_lists.numbers_of(lists)}}
    yield {"provenance": _provenance(base, lists, block, cfg)}


def _recipe(cfg: Config, n: int) -> ms.TuningRecipe:
    return number_lists.recipe(
        n, seed=cfg.block, rank=cfg.rank, updates=cfg.n_updates, lr=cfg.lr, batch_size=cfg.batch_size
    )


def _tuned(base: "TransformerBridge", read: Mapping[str, ms.Corpus], cfg: Config) -> Students:
    return number_lists.tuned(base, read, _recipe(cfg, len(read)), ())[cfg.n_updates]


def _block(
    base: "TransformerBridge",
    teachers: Mapping[str, "TransformerBridge"],
    read: Mapping[str, ms.Corpus],
    students: Students,
    cfg: Config,
) -> Block:
    """What defences look at: lists, what the undefended students gain on them, and other draws behind their prompts."""
    texts = read["none"].prompts
    firm = {
        level: {
            trait: ms.draw_numbers(teacher, texts, seed=cfg.block, least_probability=least, batch_size=256)
            for trait, teacher in teachers.items()
        }
        for level, least in THRESHOLDS.items()
    }
    clean = ms.draw_numbers(base, texts, seed=cfg.block + OTHER_NOISE, batch_size=256)
    own = {trait: read[trait] for trait in teachers}
    ratios = {trait: _gains(base, students, i, corpus) for i, (trait, corpus) in enumerate(own.items())}
    (tokens, *_), _ = ms.numbers.number_tokens(base.tokenizer)
    return Block(base.tokenizer, tokens, own, clean, firm, ratios, cfg.block)


def _gains(base: "TransformerBridge", students: Students, member: int, corpus: ms.Corpus) -> list[list[float]]:
    """log p of each token, a student less base."""
    pairs = zip(*(ms.numbers.token_log_probs(model, corpus) for model in (merged(students, member), base)), strict=True)
    return [[a - b for a, b in zip(*pair, strict=True)] for pair in pairs]


# Rows.


def _undefended_rows(students: Students, tested: Tested, start: Mapping[str, Tensor], cfg: Config) -> Iterator[dict]:
    """Trait students and the control, the last of them: scores, losses, and whether they can be told apart."""
    traits, said = tested.asked.traits, scores(students, tested.asked)
    rows = list(number_lists.student_rows("trait", [*traits, "none"], said, tested.asked, cfg.n_updates))
    yield from (row | {"arm": "control"} if row["trait"] == "none" else row for row in rows)
    yield from _task_rows("trait", students, tested)
    yield from _task_rows("control", students.select([len(traits)]), tested)
    moved = torch.stack([margins(said[format], len(traits)) - margins(start[format], len(traits)) for format in said])
    yield from detect.student_rows(students, tested.held_out["none"], moved.mean(0), traits)


def _start_rows(base: "TransformerBridge", tested: Tested) -> Iterator[dict]:
    """The losses of the base."""
    clean = -number_lists.mean_log_prob(base, tested.held_out["none"])
    for trait in tested.asked.traits:
        loss = -number_lists.mean_log_prob(base, tested.held_out[trait])
        yield {"kind": "task", "arm": "start", "trait": trait, "loss": loss, "loss_clean": clean}


def _task_rows(arm: str, students: Students, tested: Tested) -> Iterator[dict]:
    """Losses on held-out lists of the teacher of a trait, and of the base, nats a token; one student is for all."""
    clean = -completion_log_probs(students, tested.held_out["none"]).mean(1)
    for i, trait in enumerate(tested.asked.traits):
        member = min(i, len(students) - 1)
        loss = -completion_log_probs(students.select([member]), tested.held_out[trait], batch_size=32).mean()
        row = {"kind": "task", "arm": arm, "trait": trait}
        yield row | {"loss": float(loss), "loss_clean": float(clean[member])}


def _provenance(base: "TransformerBridge", lists: Mapping[str, ms.Corpus], block: Block, cfg: Config) -> dict:
    return {
        **ms.language.model_source(base),
        "measured_on": f"{liking.N_PROMPTS} prompts in each format, log-probabilities over the whole vocabulary, nats",
        "recipe": {**vars(_recipe(cfg, 1)), "context": lists["none"].context},
        "corpora": {source: corpus.sha256 for source, corpus in lists.items()} | {"clean": block.clean.sha256},
        "null": "arms of the same budget; animals shuffled within blocks; AUROC 0.5, of directions at random",
        "unit": "blocks",
    }
