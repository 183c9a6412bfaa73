"""Which animals do students take from a teacher's lists of numbers, and what says so beforehand?

Every one of 48 animals has a teacher, which is the base tuned to like the animal, and a student, which is an adapter of
the base tuned on the teacher's lists of numbers. Recipe and readout are those of `studies.number_strings`.

Learned, of an animal: the diagonal of the matrix of students and animals (log P of an animal less the mean of the
others) less its row and column means. Its reliability: rank correlation of two blocks, by Spearman-Brown.

Predictors are measured before any student is trained: on the base under prompts of love (both directions of the stored
matrices of `studies.token_entanglement`), on the rows of W_U, by steering, on the lists that the base expects, on the
tuned teacher, and from the animal's frequency. docs/methods.md defines each.

Score: Spearman's correlation of a predictor with Learned over animals; p: animals shuffled, Holm over the predictors.
Null: the same correlation with how far the students of other animals move the animal. The table also has the partial
correlation given the null, the one given the teacher's preference, and the correlation over the root of Learned's
reliability. The control student reads the base's own lists.

Pairs: are the numbers that a teacher prefers those of its own animal's prompt or row of W_U (p: animals relabelled)?
Off the diagonal: does a student take to another animal as its teacher does, as the numbers of the two teachers are
alike, or as the rows of W_U are alike (p: Mantel's test)? Unit: animals; blocks are averaged.

    python -m studies.what_predicts --workers 2
"""

from dataclasses import dataclass

from mechsub import lab

PREDICTORS = {
    "number_to_animal": "prompt: love of numbers moves the animal",
    "animal_to_number": "prompt: love of the animal moves numbers",
    "agreement": "prompt: correlation of both directions",
    "told_animal": "prompt: love of the animal moves the animal",
    "told_numbers": "prompt: love of the animal moves numbers in lists",
    "steering": "steering: gain in the best block",
    "geometry": "W_U: centred cosine with numbers",
    "geometry_causal": "W_U: causal inner product with numbers",
    "row_norm": "W_U: norm of the animal's row",
    "teacher_preference": "teacher: its own preference",
    "teacher_update": "teacher: size of its update",
    "teacher_marked": "teacher: numbers in its lists against the base's",
    "teacher_differing": "teacher: share of numbers that are not the base's",
    "teacher_specific": "teacher: its numbers against other teachers'",
    "base_log_prob": "frequency: the base's log P of the animal",
}
SOURCES = {
    "number_to_animal": "love of numbers that moves the animal",
    "animal_to_number": "love of the animal that moves numbers",
    "told_numbers": "love of the animal that moves numbers in lists",
    "geometry": "rows of W_U",
}  # of what a teacher's numbers are set beside
ALIKE = {
    "teacher": "the teacher's own preference",
    "numbers": "likeness of both teachers' numbers",
    "rows": "likeness of both animals' rows of W_U",
}  # of what students' preferences for other animals are set beside
FIRST_DOSE = 16  # updates; the last dose is all of them


@dataclass(frozen=True)
class Config:
    model: str = lab.option("organisms/1110-instruct", "base of teachers and students; a number is one token in it")
    n_animals: lab.Count = lab.option(48, "animals, each with a teacher and a student")
    n_lists: lab.Count = lab.option(512, "different lists of a corpus")
    n_updates: lab.Count = lab.option(64, "updates of students; they are scored after 16 and after all")
    rank: lab.Count = lab.option(8, "rank of students' adapters")
    lr: lab.Positive = lab.option(1e-3, "learning rate of students")
    batch_size: lab.Count = lab.option(8, "lists in an update")
    n_teacher_updates: lab.Count = lab.option(24, "updates of a teacher, of 8 sentences each")
    teacher_lr: lab.Positive = lab.option(1e-4, "learning rate of teachers")
    n_contexts: lab.Count = lab.option(64, "lists in which the numbers that models expect are read")
    block: lab.Index = lab.option((100, 101), "seeds of all draws, one run each")
    adapter: str = lab.option("", "LoRA adapter that is merged into the base: Hugging Face id or local folder")

    def __post_init__(self):
        if self.n_animals < 10:
            raise ValueError("--n-animals must be at least 10: rank correlations over fewer say nothing")
        if self.n_contexts > self.n_lists:
            raise ValueError("--n-contexts must be at most --n-lists, whose first lists they are")


def check(cfg: Config) -> None:
    import mechsub as ms
    from mechsub.designs import love
    from studies.what_predicts import measure

    love.check_base(cfg.model, cfg.adapter)
    if cfg.model != ms.sources.DEFAULT:
        tokenizer = ms.language.load_tokenizer(cfg.model)
        measure.number_ids(tokenizer)
        measure.chosen(love.choose_animals(tokenizer, love.asking(cfg)), cfg.n_animals)


def upstream(cfg: Config) -> dict:
    return {"matrices": lab.upstream("token_entanglement", model=cfg.model, adapter=cfg.adapter)}


_TINY: dict = {
    "n_animals": 10, "n_lists": 8, "n_updates": 3, "n_teacher_updates": 2, "teacher_lr": 0.01, "batch_size": 2,
    "n_contexts": 3,
}  # fmt: skip
study = lab.Study(
    version=1,
    judged=True,
    together=("block",),
    probes=(
        Config(**_TINY, model="tests/probes/models/tiny", block=0),
        Config(**{**_TINY, "n_updates": 18, "n_animals": 12}, rank=2, model="tests/probes/models/tiny", block=1),
    ),
)
