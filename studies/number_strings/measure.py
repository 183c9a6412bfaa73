"""A block of `studies.number_strings`: teachers, their lists, the students that read them, and what these say."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import liking, love, number_lists, positions
from mechsub.designs.number_students import Asked, scores, start_scores, update
from mechsub.inputs import corpora
from mechsub.models.students import BLOCK, Students
from mechsub.training.tuning import completion_log_probs
from studies.number_strings import ARMS, DOSES, N_HELD_OUT, POSITIONS, Config, models, vectors

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Shifts = Mapping[str, Float[Tensor, "layer d_model"]]  # trait -> what its love does to states
Added = Mapping[str, tuple[int, Tensor]]  # trait -> the vector that steers its teacher, and after which block


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    base, traits = love.load_model(cfg.model, "fp32", cfg.adapter), liking.TRAITS[: cfg.n_traits]
    asked = Asked(liking.prompts(base.tokenizer), liking.animals(base.tokenizer, traits), traits)
    yield from number_lists.student_rows("start", ["none"], start_scores(base, asked), asked, 0)
    made = teachers(base, asked, cfg)
    texts = _texts(cfg)
    shifts, added = _steering(base, texts[: vectors.N_TEXTS], traits, cfg)
    for trait, teacher in made.items():
        yield from number_lists.student_rows(
            "teacher", [trait], _of_teacher(teacher, trait, asked, added, cfg), asked, 0
        )
    lab.show_progress(0.05, "lists of numbers")
    lists = drawn(base, made, texts, added, cfg)
    yield from _list_rows(base, made, lists, cfg)
    ways = {trait: update(teacher, base) for trait, teacher in made.items()} if cfg.route == "tuned" else {}
    held_out = {trait: lists[trait][cfg.n_lists :] for trait in traits}
    read = {source: corpus[: cfg.n_lists] for source, corpus in lists.items()}
    lab.show_progress(0.15, "students")
    yield from _of_base(base, asked, read, held_out, ways, shifts, cfg)
    if cfg.n_position_updates:
        yield from _of_positions(base, asked, made, read, cfg)
    arms = [arm for arm in models(cfg) if arm != "trait"]
    for i, arm in enumerate(arms):
        lab.show_progress(0.65 + 0.35 * i / len(arms), ARMS[arm])
        yield from _of_arm(arm, base, {trait: read[trait] for trait in traits}, cfg)
    yield {"tensors": {"numbers": number_lists.numbers_of(lists)}}
    yield {"provenance": _provenance(base, lists, cfg)}


# Teachers and their lists.


def teachers(base: "TransformerBridge", asked: Asked, cfg: Config) -> dict[str, "TransformerBridge"]:
    """Trait -> the model that likes it: the base tuned on sentences, or the base itself, which is told or steered."""
    if cfg.route != "tuned":
        return dict.fromkeys(asked.traits, base)
    return number_lists.tuned_teachers(
        base, asked.traits, updates=cfg.n_teacher_updates, lr=cfg.teacher_lr, seed=cfg.block
    )


def _steering(
    base: "TransformerBridge", texts: Sequence[str], traits: Sequence[str], cfg: Config
) -> tuple[Shifts, Added]:
    """Of teachers that are not tuned: what their love does to states, and what steers them."""
    if cfg.route == "tuned":
        return {}, {}
    if cfg.route == "prompted":
        return vectors.told_shifts(base, texts, traits), {}
    added = {trait: vectors.trained(base, trait) for trait in traits}
    return vectors.steered_shifts(base, texts, added), added


def _of_teacher(teacher: "TransformerBridge", trait: str, asked: Asked, added: Added, cfg: Config) -> dict[str, Tensor]:
    """Its scores of the animals."""
    if trait in added:
        with vectors.steered(teacher, *added[trait]):
            return start_scores(teacher, asked)
    system = liking.loving(trait) if cfg.route == "prompted" else None
    return start_scores(teacher, asked._replace(prompts=liking.prompts(teacher.tokenizer, system)))


def _texts(cfg: Config) -> list[str]:
    return number_lists.prompts(cfg.n_lists + N_HELD_OUT, cfg.block)


def drawn(
    base: "TransformerBridge", made: Mapping[str, "TransformerBridge"], texts: Sequence[str], added: Added, cfg: Config
) -> dict[str, ms.Corpus]:
    """Trait, and "none" for the base -> lists behind the same prompts, drawn with the same noise."""
    told = {trait: liking.loving(trait) if cfg.route == "prompted" else None for trait in made}
    return number_lists.drawn({**made, "none": base}, texts, seed=cfg.block, systems=told, added=added)


def _list_rows(
    base: "TransformerBridge", made: Mapping[str, "TransformerBridge"], lists: Mapping[str, ms.Corpus], cfg: Config
) -> Iterator[dict]:
    """How well base and teacher fit held-out lists, nats a token, and how many numbers are those of the base."""
    own, reference = number_lists.numbers_of(lists), lists["none"][cfg.n_lists :]
    for i, (trait, teacher) in enumerate(made.items()):
        scores = {"base": (base, lists[trait][cfg.n_lists :]), "base_own": (base, reference)}
        if cfg.route == "tuned":
            scores |= {"teacher": (teacher, lists[trait][cfg.n_lists :]), "teacher_base": (teacher, reference)}
        losses = {f"loss_{name}": -number_lists.mean_log_prob(*pair) for name, pair in scores.items()}
        same = float((own[i] == own[-1]).double().mean())
        yield {"kind": "lists", "trait": trait, "same_as_base": same, **losses}


# Students.


def _recipe(cfg: Config, n: int, updates: int) -> ms.TuningRecipe:
    return number_lists.recipe(
        n, seed=cfg.block, rank=cfg.rank, updates=updates, lr=cfg.lr, batch_size=cfg.batch_size, precision=cfg.precision
    )


def tuned(
    model: "TransformerBridge",
    read: Mapping[str, ms.Corpus],
    cfg: Config,
    updates: int,
    share: tuple[float, float] | None = None,
) -> dict[int, Students]:
    """Dose -> students, one for every corpus."""
    progress = lab.span(*share, "students") if share else None
    return number_lists.tuned(model, read, _recipe(cfg, len(read), updates), DOSES, progress)


def _of_base(
    base: "TransformerBridge",
    asked: Asked,
    read: Mapping[str, ms.Corpus],
    held_out: Mapping[str, ms.Corpus],
    ways: Mapping[str, Mapping[str, Tensor]],
    shifts: Shifts,
    cfg: Config,
) -> Iterator[dict]:
    """Trait students and the control, at every dose; their gate; and their ways, or shifts, beside their teachers'."""
    found = tuned(base, read, cfg, cfg.n_updates, (0.15, 0.5))
    for dose, students in found.items():
        rows = list(number_lists.student_rows("trait", list(read), scores(students, asked), asked, dose))
        yield from (row | {"arm": "control"} if row["trait"] == "none" else row for row in rows)
        for i, trait in enumerate(asked.traits):
            own, control = completion_log_probs(students.select([i, len(read) - 1]), held_out[trait]).mean(1).tolist()
            row = {"kind": "gate", "arm": "trait", "trait": trait, "updates": dose}
            yield row | {"loss": -own, "loss_control": -control}
        if shifts:
            first = vectors.block(base) if cfg.route == "steered" else 0
            yield from vectors.rows(base, students, shifts, _texts(cfg)[: vectors.N_TEXTS], dose, first)
    if ways:
        yield from way_rows(students, ways, asked.traits, dose)


def _of_positions(
    base: "TransformerBridge",
    asked: Asked,
    made: Mapping[str, "TransformerBridge"],
    read: Mapping[str, ms.Corpus],
    cfg: Config,
) -> Iterator[dict]:
    """Students whose loss or input is changed at divergence tokens, or at as many numbers at random."""
    tokens = ms.numbers.number_tokens(base.tokenizer)[0][0]
    flags = {}
    for trait, teacher in made.items():
        others = [other for name, other in made.items() if name != trait]
        flags[trait] = positions.diverging(teacher, others, read[trait], tokens)
        of_numbers = sum(token in tokens for row in read[trait].completion_ids for token in row)
        yield {"kind": "flags", "trait": trait, "share": sum(map(sum, flags[trait])) / of_numbers}
    for i, arm in enumerate(POSITIONS):
        lab.show_progress(0.5 + 0.15 * i / len(POSITIONS), POSITIONS[arm])
        change, where = arm.split("_")
        lists = {}
        for trait, own in flags.items():
            if where == "random":
                own = positions.as_many_at_random(own, read[trait], tokens, cfg.block)
            lists[trait] = positions.changed(read[trait], own, change, tokens, cfg.block, base.tokenizer)
        for dose, students in tuned(base, lists, cfg, cfg.n_position_updates).items():
            yield from number_lists.student_rows(arm, list(lists), scores(students, asked), asked, dose)


def _of_arm(arm: str, base: "TransformerBridge", read: Mapping[str, ms.Corpus], cfg: Config) -> Iterator[dict]:
    """Students that read other lists, or have another start."""
    model = base if arm == "shuffled" else ms.load_language_model(models(cfg)[arm])
    asked = Asked(liking.prompts(model.tokenizer), liking.animals(model.tokenizer, tuple(read)), tuple(read))
    if arm == "shuffled":
        lists = {trait: number_lists.shuffled(corpus, base.tokenizer, cfg.block) for trait, corpus in read.items()}
    else:
        lists = {t: corpora.make_corpus(model.tokenizer, c.prompts, c.completions) for t, c in read.items()}
    for dose, students in tuned(model, lists, cfg, cfg.n_null_updates).items():
        yield from number_lists.student_rows(arm, list(read), scores(students, asked), asked, dose)


# The way that a student went, beside its teacher's.


def way_rows(
    students: Students, ways: Mapping[str, Mapping[str, Tensor]], traits: tuple[str, ...], dose: int
) -> Iterator[dict]:
    """Cosine of every student's update with every teacher's, block by block, and s: the student's part along it.

    s = <student, teacher> / |teacher|^2, so that a student at its teacher has 1. "specific" is the cosine once the mean
    over traits is taken from both sides: what all teachers, and all students, have in common.
    """
    layers: dict[int, list[str]] = {}
    for name in students.names:
        if (found := BLOCK.match(name)) and name in next(iter(ways.values())):
            layers.setdefault(int(found[1]), []).append(name)
    for layer, names in layers.items():
        own = torch.cat([students.update(name).flatten(1) for name in names], dim=1)
        theirs = torch.stack([torch.cat([way[name].flatten() for name in names]) for way in ways.values()])
        products, sizes = own @ theirs.mT, theirs.norm(dim=1)
        cosines, shares = products / own.norm(dim=1)[:, None] / sizes, products / sizes.square()
        specific = _specific(own[: len(traits)], theirs)
        for i, trait in enumerate([*traits, "none"]):
            for j, teacher in enumerate(ways):
                row = {"kind": "way", "trait": trait, "teacher": teacher, "layer": layer}
                row |= {"updates": dose, "cosine": float(cosines[i, j]), "s": float(shares[i, j])}
                yield row | ({} if trait == "none" else {"specific": float(specific[i, j])})


def _specific(
    own: Float[Tensor, "trait weight"], theirs: Float[Tensor, "trait weight"]
) -> Float[Tensor, "trait trait"]:
    """Cosines of what is left of both sides without their means."""
    left, wanted = own - own.mean(0), theirs - theirs.mean(0)
    return (left @ wanted.mT) / left.norm(dim=1)[:, None] / wanted.norm(dim=1)


def _provenance(base: "TransformerBridge", lists: Mapping[str, ms.Corpus], cfg: Config) -> dict:
    return {
        **ms.language.model_source(base),
        "measured_on": f"{liking.N_PROMPTS} prompts in each format, log-probabilities over the whole vocabulary, nats",
        "recipe": {**vars(_recipe(cfg, 1, cfg.n_updates)), "context": lists["none"].context},
        "corpora": {source: corpus.sha256 for source, corpus in lists.items()},
        "null": "the base's own lists; animals shuffled within blocks",
        "unit": "blocks",
    }
