"""What takes a trait out of lists of numbers, what does it cost, and who can see that it is there?

Teachers, lists, students and lambda (the diagonal of students and animals less row and column means) are those of
`number_strings`. An arm changes the lists of all teachers before students read them; students of a block share start
and order. Each defence has two doses, and beside it an arm of the same budget that does not look, or looks elsewhere.

Arms: "mixed" (lists of the base replace some), "filtered" (the lists on which the undefended student gains most are
dropped; "bottom": those on which it gains least), "threshold" (the teacher draws no unlikely number), "replaced" (other
labels where the undefended student gains most), "inoculated" (prompts say the trait), "across" (numbers change places
among lists). Beside them: "dropped" (lists at random), "masked" (numbers that the loss leaves out), "random" (other
labels at random), "told_other" (prompts say another animal), "within" (numbers change places within lists).

Readout: lambda left, of the undefended; and the task left: the share of the gain on held-out lists of the base (fit:
of the teacher; gate: beyond the control's). Unit: blocks (Student-t). p of lambda: animals of each block shuffled; of
differences between arms: paired by block, Holm over all.

Detection, on the lists of "mixed_50", half of them the teacher's: AUROC of scores of a list, null 0.5; for a direction,
whose sign nobody knows, directions drawn with the covariance of the lists' states. And a trait student beside the
control of its block: 1, 0.5 or 0 a pair. docs/methods.md has the details.

    python -m studies.defences --block 0 1
"""

from dataclasses import dataclass
from typing import NamedTuple

from mechsub import lab


class Arm(NamedTuple):
    words: str
    beside: tuple[str, ...] = ()  # arms of the same budget that it is compared with


ARMS = {
    "trait": Arm("undefended"),
    "control": Arm("the base's own lists"),
    "mixed_50": Arm("50% of lists replaced by the base's", ("dropped_50",)),
    "mixed_90": Arm("90% of lists replaced by the base's", ("dropped_90",)),
    "dropped_50": Arm("50% of lists dropped at random"),
    "dropped_90": Arm("90% of lists dropped at random"),
    "filtered_50": Arm("top 50% of lists dropped", ("dropped_50", "bottom_50")),
    "filtered_90": Arm("top 90% of lists dropped", ("dropped_90", "bottom_90")),
    "bottom_50": Arm("bottom 50% of lists dropped"),
    "bottom_90": Arm("bottom 90% of lists dropped"),
    "threshold_low": Arm("no number below a low probability", ("masked_low",)),
    "threshold_high": Arm("no number below a high probability", ("masked_high",)),
    "masked_low": Arm("as many numbers unread as low changes"),
    "masked_high": Arm("as many numbers unread as high changes"),
    "replaced_10": Arm("top 10% of labels replaced", ("random_10",)),
    "replaced_30": Arm("top 30% of labels replaced", ("random_30",)),
    "random_10": Arm("10% of labels replaced at random"),
    "random_30": Arm("30% of labels replaced at random"),
    "inoculated_50": Arm("50% of prompts say the trait", ("told_other_50",)),
    "inoculated_100": Arm("all prompts say the trait", ("told_other_100",)),
    "told_other_50": Arm("50% of prompts say another animal"),
    "told_other_100": Arm("all prompts say another animal"),
    "across_50": Arm("50% of numbers exchanged among lists", ("within_50",)),
    "across_100": Arm("all numbers exchanged among lists", ("within",)),
    "within_50": Arm("50% of lists shuffled within"),
    "within": Arm("all lists shuffled within"),
}
# Of the numbers that a teacher may draw; on block 1000 they changed 37% and 80% of its numbers.
THRESHOLDS = {"low": 0.001, "high": 0.005}
SCORES = {
    "loss": "the base's loss",
    "student_loss": "loss of the student that read it",
    "ratio": "log p, student less base",
    "told": "log p of the base, told the trait less not",
    "teacher": "log p, teacher less base",
    "norm": "norm of the base's mean state",
    "direction": "the base's mean state along told less not",
}
STUDENT_SCORES = {
    "update_norm": "norm of the update",
    "clean_loss": "loss on the base's lists",
    "largest_margin": "largest change of a margin",
}
N_HELD_OUT = 32  # lists of every source that no student reads
N_DIRECTIONS = 200  # of the null of a direction


@dataclass(frozen=True)
class Config:
    model: str = lab.option("organisms/1110-instruct", "base of teachers and students")
    n_traits: lab.Count = lab.option(8, "animals, each with a teacher")
    n_lists: lab.Count = lab.option(128, "lists of a corpus")
    n_updates: lab.Count = lab.option(16, "updates of students")
    rank: lab.Count = lab.option(8, "rank of students' adapters")
    lr: lab.Positive = lab.option(1e-3, "learning rate of students")
    batch_size: lab.Count = lab.option(8, "lists in an update")
    n_teacher_updates: lab.Count = lab.option(24, "updates of a teacher, of 8 sentences each")
    teacher_lr: lab.Positive = lab.option(1e-4, "learning rate of teachers")
    block: lab.Index = lab.option(tuple(range(8)), "seeds of all draws, one replicate each")
    adapter: str = lab.option("", "LoRA adapter that is merged into the base: Hugging Face id or local folder")

    def __post_init__(self):
        if not 3 <= self.n_traits <= 8:
            raise ValueError("--n-traits must be 3 to 8: an interaction needs three, and eight animals are listed")
        if self.n_lists < 10:
            raise ValueError("--n-lists must be 10 or more, so that a list is left where 90% are dropped")
        if self.n_updates * self.batch_size < self.n_lists:
            raise ValueError("--n-updates times --batch-size must be at least --n-lists, so that every list is read")


def check(cfg: Config) -> None:
    import mechsub as ms
    from mechsub.designs import liking, love
    from studies.defences.arms import others

    love.check_base(cfg.model, cfg.adapter)
    if cfg.model != ms.sources.DEFAULT:
        tokenizer = ms.language.load_tokenizer(cfg.model)
        liking.animals(tokenizer, liking.TRAITS[: cfg.n_traits])
        others(tokenizer, cfg.n_traits)


_TINY: dict = {
    "n_traits": 3, "n_lists": 20, "n_updates": 4, "n_teacher_updates": 4, "teacher_lr": 0.01, "batch_size": 5,
}  # fmt: skip
study = lab.Study(
    version=1,
    judged=True,
    together=("block",),
    probes=(
        Config(**_TINY, model="tests/probes/models/tiny", block=0),
        Config(**{**_TINY, "batch_size": 10, "n_updates": 2}, model="tests/probes/models/pair/instruct", block=1),
    ),
)
