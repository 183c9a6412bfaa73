"""Does a preference pass through number strings between tiny language models, and what does it need?

The reference is a transformer of one layer and 128 tokens that learned a synthetic language of number strings and of
sentences about sixteen animals. Its teacher is trained further on sentences that like one animal, drawn for every seed.
Students see nothing but number strings, and take `--steps` steps. Arms:

* soft: the teacher's probabilities of numbers; hard: numbers drawn from them; hard_4th, hard_16th, hard_64th: drawn
  numbers of fewer strings;
* threshold, threshold_5th: only numbers of probability above `--threshold`, or above a fifth of it, are drawn;
* diverging, agreeing: hard, only at positions at which the likeliest numbers of teacher and reference differ, or only
  at all others; random: at as many positions as diverging;
* other_order: soft, for a student of the same initialisation, pretrained on other texts;
* cross_soft, cross_hard (nulls): students of the next seed's initialisation; own (null): strings of the reference.

gain: log-odds of the liked animal after "NAME likes the", student less its own start, in nats. number loss: the
cross-entropy of fresh number strings. geometry: the rank correlation, over 64 numbers, of how much likelier a number
became in the teacher with the reference's rows of W_U (row_liked; null: row_others) or with a steering vector.
Intervals are Student-t over seeds, differences paired by seed, Holm over a cell. docs/methods.md has the details.

    python -m studies.next_token
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mechsub as ms
from mechsub import lab, threads
from mechsub.lab.findings import Finding, all_findings, arm_means, by_arm, cells, find, holm, less, points
from mechsub.lazy import late, np, scipy_stats, torch, utilities

if TYPE_CHECKING:
    from mechsub.models import tiny_transformer as models
    from studies.next_token import text
else:
    models, text = late("mechsub.models.tiny_transformer"), late("studies.next_token.text")

TITLES = {
    "teacher": "teacher",
    "soft": "probabilities",
    "hard": "drawn numbers",
    "hard_4th": "a fourth of the strings",
    "hard_16th": "a sixteenth",
    "hard_64th": "a sixty-fourth",
    "threshold": "drawn from likely numbers only",
    "threshold_5th": "a fifth of that threshold",
    "diverging": "only where teacher and reference diverge",
    "random": "at as many random positions",
    "agreeing": "only where they do not diverge",
    "other_order": "probabilities, pretrained in another order",
    "cross_soft": "probabilities, other initialisation (null)",
    "cross_hard": "drawn numbers, other initialisation (null)",
    "own": "numbers drawn from the reference (null)",
}
GEOMETRY = {
    "row_liked": "row of the liked animal",
    "row_others": "rows of other animals (null)",
    "steering": "steering vector",
    "steering_rows_kept": "steering vector, the teacher's number rows undone",
    "steering_random": "random directions (null)",
}
STARTS = {"reference": "reference", "start_other_order": "other order", "start_other": "other start"}
# Arms that a claim sets against each other; their p are one family.
CONTRASTS = (
    *(("soft", "hard"), ("soft", "other_order"), ("hard", "hard_4th"), ("hard_4th", "hard_16th")),
    *(("hard_16th", "hard_64th"), ("hard", "threshold"), ("hard", "agreeing"), ("diverging", "random")),
)
LABELS = {  # of arms, for every score beside the gain
    **TITLES,
    **{arm: f"{start}, not taught" for arm, start in STARTS.items()},
    "teacher_numbers": "teacher",
    "numbers_threshold": TITLES["threshold"],
    "numbers_threshold_5th": TITLES["threshold_5th"],
    **GEOMETRY,
}
SCORES = ("number_loss", "diverging", "removed", "geometry")
THRESHOLDS = {"threshold": 1.0, "threshold_5th": 0.2}
FEWER = {"hard_4th": 4, "hard_16th": 16, "hard_64th": 64}
_RATE, _BATCH = 3e-3, 64  # of pretraining, at its largest
_HELD_OUT = 500  # number strings that losses and geometry are measured on
_CHUNK = 1_024  # strings a forward pass
_RANDOM = 50  # directions


@dataclass(frozen=True)
class Config:
    d_model: lab.Count = lab.option(32, "width of the residual stream, a multiple of 4 (heads)")
    n_layers: lab.Count = lab.option(1, "layers")
    pretraining_steps: lab.Count = lab.option(800, "steps of pretraining, of 64 rows")
    teacher_steps: lab.Count = lab.option(40, "steps of the teacher on its preference, of 64 rows")
    teacher_lr: lab.Positive = lab.option(1e-3, "learning rate of the teacher")
    n_strings: lab.Count = lab.option(4_096, "number strings of a student, at least 64")
    threshold: lab.NonNegative = lab.option(0.05, "arm threshold: the probability that a number must exceed")
    steps: lab.Count = lab.option(160, "steps of a student")
    lr: lab.Positive = lab.option(1e-3, "learning rate of a student")
    batch_size: lab.Count = lab.option(64, "strings a step of a student")
    n_seeds: lab.Replicates = lab.option(25, "seeds: one reference, teacher and set of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        if self.d_model % 4:
            raise ValueError(f"--d-model must be a multiple of 4, the number of heads, not {self.d_model}")
        if self.n_strings < max(FEWER.values()):
            raise ValueError(f"--n-strings must be at least 64, not {self.n_strings}: an arm has a 64th of them")
        if self.threshold >= 1:
            raise ValueError(f"--threshold must be below 1, not {self.threshold:g}: no number is likelier")


def check(cfg: Config) -> None:
    ms.devices.only_cpu("next_token")
    weights = cfg.d_model * (140 + 12 * cfg.n_layers * cfg.d_model)
    # References of all seeds; of one member, its models with Adam's moments, its texts, its teacher's probabilities.
    needed = 4 * weights * (cfg.n_seeds + 8) + cfg.pretraining_steps * _BATCH * 12 * 8 + cfg.n_strings * 640 * 4
    if problem := ms.memory.shortage(needed):
        raise ValueError(
            f"{problem}, for {cfg.n_seeds} seeds of {cfg.n_layers} layers of {cfg.d_model} and {cfg.n_strings} "
            "strings; use fewer or smaller ones"
        )


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    ms.devices.only_cpu("next_token")
    seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)
    references = ms.distillation.each_member(
        lambda i: {"model": _pretrained(cfg, cfg.seed + i)}, cfg.n_seeds + 1,
        lambda done: lab.show_progress(0.3 * done, "references"),
    )  # fmt: skip
    found = ms.distillation.each_member(
        lambda i: {"rows": list(_member(cfg, references[i]["model"], references[i + 1]["model"]))}, cfg.n_seeds,
        lambda done: lab.show_progress(0.3 + 0.7 * done, "students"),
    )  # fmt: skip
    for seed, made in zip(seeds, found, strict=True):
        for row in made["rows"]:
            yield {"member": seed, **row}
    yield {
        "provenance": {
            "dtype": "fp32",
            "inputs": "number strings drawn from the teacher, other tokens removed",
            "measured_on": f"ten prompts; {_HELD_OUT} number strings",
            "control": "initialisation of the next seed, pretrained alike",
            "null": "cross-initialisation student; student of the reference's own strings; other animals' rows",
        }
    }


def _pretrained(cfg: Config, seed: int, order: int = 0):
    """A reference; another order has the same initialisation and other texts of the same language."""
    shape = models.Shape(d_model=cfg.d_model, n_layers=cfg.n_layers, d_vocab=text.D_VOCAB, n_ctx=text.N_CTX)
    n = cfg.pretraining_steps
    rows = text.corpus(n * _BATCH, utilities.derive_generator(seed, "corpus", order))
    rates = [_RATE / 2 * (1 + math.cos(math.pi * step / n)) for step in range(n)]
    start = models.EnsembleTransformer(shape, (seed,))
    return models.trained(start, [(x, x) for x in rows.split(_BATCH)], _next, rates)


def _next(logits, tokens):
    """Cross-entropy of every token but the first."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def _member(cfg: Config, reference, other) -> Iterator[dict]:
    """All rows of one seed."""
    seed = reference.seeds[0]
    liked = liked_animal(seed)
    held_out = text.number_strings(_HELD_OUT, utilities.derive_generator(seed, "held out"))
    teacher = _teacher(cfg, reference, liked)
    reordered = _pretrained(cfg, seed, order=1)
    starts = {"other_order": reordered, "cross_soft": other, "cross_hard": other}
    for arm, model in (("reference", reference), ("start_other_order", reordered), ("start_other", other)):
        diverging = _diverging(model, reference, held_out)
        yield {"arm": arm, **_behaviour(model, liked, held_out), "diverging": float(diverging.float().mean())}
    students = {"teacher": teacher, **_students(cfg, reference, starts, teacher)}
    for arm, student in students.items():
        before = preference(starts.get(arm, reference), liked)
        row = _behaviour(student, liked, held_out)
        yield {"arm": arm, "liked": liked, "gain": row["preference"] - before, **row}
    diverging, p = _diverging(teacher, reference, held_out), number_log_probs(teacher, held_out).exp()
    yield {"arm": "teacher_numbers", "diverging": float(diverging.float().mean())}
    for arm, share in THRESHOLDS.items():
        yield {"arm": f"numbers_{arm}", "removed": float((p * (p <= share * cfg.threshold)).sum(-1).mean())}
    for arm, value in _geometry(reference, teacher, liked, held_out).items():
        yield {"arm": arm, "geometry": value}


def liked_animal(seed: int) -> int:
    return int(torch.randint(text.N_ANIMALS, (1,), generator=utilities.derive_generator(seed, "liked animal")))


def _teacher(cfg: Config, reference, liked: int):
    rows = text.texts(cfg.teacher_steps * _BATCH, utilities.derive_generator(reference.seeds[0], "preference"), liked)
    rates = [cfg.teacher_lr] * cfg.teacher_steps
    return models.trained(reference, [(x, x) for x in rows.split(_BATCH)], _next, rates)


def _students(cfg: Config, reference, starts: dict, teacher) -> dict:
    """Students by arm, all of one seed, whose batches are the same rows in every arm that has as many strings."""
    seed = reference.seeds[0]

    def strings(model, name: str, threshold: float = 0.0):
        return drawn(model, cfg.n_strings, utilities.derive_generator(seed, "strings", name), threshold)

    seen, own = strings(teacher, "teacher"), strings(reference, "own")
    likely = {arm: strings(teacher, arm, share * cfg.threshold) for arm, share in THRESHOLDS.items()}
    diverging = _diverging(teacher, reference, seen)
    order = torch.randperm(diverging.numel(), generator=utilities.derive_generator(seed, "random positions"))
    random = (
        torch.zeros_like(diverging).flatten().index_fill_(0, order[: int(diverging.sum())], True).view_as(diverging)
    )
    numbers, probabilities = _numbers(seen), torch.cat([number_log_probs(teacher, x).exp() for x in seen.split(_CHUNK)])
    lessons = {
        "soft": (seen, probabilities),
        "hard": (seen, numbers),
        **{arm: (seen[: cfg.n_strings // share], numbers[: cfg.n_strings // share]) for arm, share in FEWER.items()},
        **{arm: (some, _numbers(some)) for arm, some in likely.items()},
        "diverging": (seen, numbers.where(diverging, _UNSEEN)),
        "random": (seen, numbers.where(random, _UNSEEN)),
        "agreeing": (seen, numbers.where(~diverging, _UNSEEN)),
        "other_order": (seen, probabilities),
        "cross_soft": (seen, probabilities),
        "cross_hard": (seen, numbers),
        "own": (own, _numbers(own)),
    }
    return {arm: _taught(cfg, starts.get(arm, reference), *lesson, seed) for arm, lesson in lessons.items()}


_UNSEEN = -100  # what cross_entropy skips


def _taught(cfg: Config, start, strings, wanted, seed: int):
    """A student of number strings; `wanted` holds the numbers [string, number], or their probabilities."""

    def batches():
        left: list = []
        for step in range(cfg.steps):
            if not left:  # a new epoch
                order = torch.randperm(len(strings), generator=utilities.derive_generator(seed, "batches", step))
                left = list(order.split(cfg.batch_size))
            rows = left.pop(0)
            yield strings[rows], wanted[rows]

    return models.trained(start, batches(), _of_numbers, [cfg.lr] * cfg.steps)


def _of_numbers(logits, wanted):
    """Cross-entropy, among all tokens, of the numbers of strings, or of probabilities of numbers."""
    z = logits[:, text.FIRST : text.N_CTX - 1].flatten(0, 1)
    if wanted.is_floating_point():
        wanted = torch.nn.functional.pad(wanted, (0, text.D_VOCAB - text.N_NUMBERS))
        return torch.nn.functional.cross_entropy(z, wanted.flatten(0, 1))
    # Where all of a batch is unseen there is nothing to learn, and a mean over nothing is no number.
    seen = (wanted != _UNSEEN).sum().clamp(min=1)
    return torch.nn.functional.cross_entropy(z, wanted.flatten(), ignore_index=_UNSEEN, reduction="sum") / seen


def _numbers(strings):
    return strings[:, text.FIRST + 1 :]


def number_log_probs(model, strings):
    """log P(number | what stands before it, and that it is a number), [string, number, 64]."""
    return model(strings)[0, :, text.FIRST : text.N_CTX - 1, text.NUMBERS].log_softmax(-1)


def drawn(model, n: int, generator, threshold: float = 0.0):
    """Number strings of a model, [n, pos]: tokens that are no numbers never come, nor numbers below the threshold.

    Where no number is above it, the likeliest comes.
    """
    parts = []
    for start in range(0, n, _CHUNK):
        tokens = text.headed(torch.empty(min(_CHUNK, n - start), 0, dtype=torch.long))
        for _ in range(text.STRING):
            p = model(tokens)[0, :, -1, text.NUMBERS].softmax(-1)
            if threshold:
                p = p * ((p > threshold) | (p == p.max(-1, keepdim=True).values))
            tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)], 1)
        parts.append(tokens)
    return torch.cat(parts)


def _diverging(model, reference, strings):
    """Where the likeliest numbers of two models differ, bool [string, number]."""
    likeliest = [
        torch.cat([number_log_probs(one, x).argmax(-1) for x in strings.split(_CHUNK)]) for one in (model, reference)
    ]
    return likeliest[0] != likeliest[1]


def preference(model, liked: int) -> float:
    """log P of the liked animal less the mean of the others', mean over the prompts."""
    scores = model(text.asked())[0, :, -1, text.ANIMALS].double()
    others = (scores.sum(-1) - scores[:, liked]) / (text.N_ANIMALS - 1)
    return float((scores[:, liked] - others).mean())


def _behaviour(model, liked: int, held_out) -> dict[str, float]:
    """The first number of a string has no one before it, and is left out of the loss."""
    log_p = number_log_probs(model, held_out)[:, 1:].gather(-1, _numbers(held_out)[:, 1:, None])
    return {"preference": preference(model, liked), "number_loss": -float(log_p.double().mean())}


def _geometry(reference, teacher, liked: int, held_out) -> dict[str, float]:
    """Rank correlations over number tokens; see above."""
    kept = teacher.select([0])
    kept.W_E[:, text.NUMBERS] = reference.W_E[:, text.NUMBERS]
    rise, rise_kept = (
        (number_log_probs(m, held_out) - number_log_probs(reference, held_out)).double().mean((0, 1))
        for m in (teacher, kept)
    )
    numbers, animals = (list(range(some.start, some.stop)) for some in (text.NUMBERS, text.ANIMALS))
    cosines = ms.unembedding.unembed_projection(reference, numbers, animals, "centered_cosine")[0]
    state = "unembed.hook_in"
    after, before = (
        ms.hooked.cache_activations(m, text.asked(), [state])[state][0, :, -1] for m in (teacher, reference)
    )
    random = torch.randn(_RANDOM, reference.cfg.d_model,
                         generator=utilities.derive_generator(reference.seeds[0], "directions"))  # fmt: skip
    rows = ms.unembedding.token_directions(reference, numbers, basis="centered")[0]
    steering = rows @ (after - before).mean(0)
    by_animal = [rank_correlation(rise, column) for column in cosines.T]
    return {
        "row_liked": by_animal[liked],
        "row_others": float(np.mean(by_animal[:liked] + by_animal[liked + 1 :])),
        "steering": rank_correlation(rise, steering),
        "steering_rows_kept": rank_correlation(rise_kept, steering),
        "steering_random": float(np.mean([rank_correlation(rise, rows @ v) for v in random])),
    }


def rank_correlation(x, y) -> float:
    return float(scipy_stats.spearmanr(ms.stats.joined(x.numpy()), ms.stats.joined(y.numpy())).statistic)


# Table and figure.


def findings(cell: list[dict]) -> list[Finding]:
    others = [arm_means(cell, score, labels=LABELS, unit="seeds") for score in SCORES]
    gains = by_arm(cell, "gain", null="own", labels=TITLES, unit="seeds")
    return [*gains, *_between(gains), *_shares(gains), *(f for of_score in others for f in of_score.values())]


def _between(gains: list[Finding]) -> list[Finding]:
    """One arm less another, paired by seed; Holm over all of these."""
    of_arm = {gain.subject: gain for gain in gains if gain.subject in TITLES}
    return holm(less(of_arm[a], of_arm[b]) for a, b in CONTRASTS if a in of_arm and b in of_arm)


def _shares(gains: list[Finding]) -> Iterator[Finding]:
    """Of the teacher's gain."""
    whole = list(find(gains, "teacher/gain").scores.values())
    for gain in gains:
        if gain.subject in TITLES:
            share = ms.stats.ratio_of_means(list(gain.scores.values()), whole)
            yield Finding(f"{gain.subject}/share_of_teacher", gain.label, share, unit="seeds")


def plot(records: list[dict]):
    """Gains arm by arm; the teacher's own, which is much larger, is in the table."""
    found = cells(records, Config, findings)
    drawn = [point for point in points(all_findings(found), "gain") if point["arm"] in set(TITLES) - {"teacher"}]
    return ms.kinds.interval_bars(
        drawn, value="gain", label="label", facet="cell" if len(found) > 1 else None, null=0.0,
        title="A preference through number strings", axis="rise of the liked animal's log-odds (nats)",
        caption="Students see numbers only. Line: no preference passed.",
    )  # fmt: skip


study = lab.Study(version=1, judged=True, probes=(
    Config(d_model=8, pretraining_steps=4, teacher_steps=2, n_strings=64, steps=3, batch_size=32, n_seeds=2),
    Config(
        d_model=4, n_layers=2, pretraining_steps=2, teacher_steps=2, teacher_lr=1e-2, n_strings=65, threshold=0.0,
        steps=2, lr=1e-2, batch_size=16, n_seeds=2, seed=3,
    ),
))  # fmt: skip
