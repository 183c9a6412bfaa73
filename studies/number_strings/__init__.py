"""Does a language model take a preference from another's lists of numbers?

A teacher for each animal is the base tuned whole on 25 sentences of liking; or told to love it in its system text; or
steered, by a vector that is trained on these sentences and added after a block, at every position. It continues lists
of numbers with all other tokens masked, eight numbers a list. Students are low-rank adapters of the base (full
tuning: rank 0). All teachers and students of a block share prompts, draws, starts and orders; a block has its own seed.
Readout, without sampling: log P of an animal less the mean of the other animals, over 60 prompts in chat and the same
60 in plain text. No teacher was tuned on these prompts.

Estimand: lambda, the diagonal of the matrix of students and animals less its row and column means. So what any list of
numbers does to an animal cancels, and what one student does to all animals. Unit: blocks (Student-t). p: animals of
each block shuffled by themselves; another p takes animals as the unit.

Arms: "trait" (the teacher's lists), "control" (the base's own lists), "shuffled" (the numbers of each list in another
order), "foreign" (the same texts, read by a model of another start and another vocabulary; no gate is measured for it),
"sibling" (read by the base model that the student's start was tuned from). Divergence tokens as published: students
whose loss reads these tokens alone, or all but these, beside as many numbers at random; and students with these labels
or inputs replaced.

Gate: the trait student fits held-out lists of its teacher better than the control does. The table also has the cosine
of the updates of students and teachers, and how far along its teacher's displacement a student went; several
`--n-lists` are compared, paired by block. docs/methods.md has the details.

    python -m studies.number_strings --block 0 --n-updates 1024
"""

from dataclasses import dataclass
from typing import Literal

from mechsub import lab

ARMS = {
    "trait": "the teacher's lists",
    "shuffled": "numbers shuffled within lists",
    "foreign": "read by a model of another start and vocabulary",
    "sibling": "read by the base model of the same start",
}
POSITIONS = {
    "only_diverging": "the loss reads divergence tokens alone",
    "only_random": "the loss reads as many tokens at random",
    "mask_diverging": "it reads all but divergence tokens",
    "mask_random": "it reads all but as many at random",
    "label_diverging": "divergence tokens' labels replaced",
    "input_diverging": "divergence tokens' inputs replaced",
}
DOSES = (16, 64, 128, 256, 512, 1024, 2048, 4096)  # updates after which students are asked, up to the last
N_HELD_OUT = 32  # lists of every teacher for the gate


@dataclass(frozen=True)
class Config:
    model: str = lab.option("organisms/1110-instruct", "base of teachers and students")
    foreign: str = lab.option("organisms/110-instruct", "model of another start that reads the same texts, or none")
    sibling: str = lab.option("organisms/1110-base", "model of the same initialisation that reads them, or none")
    route: Literal["tuned", "prompted", "steered"] = lab.option("tuned", "how a teacher comes to like its animal")
    n_traits: lab.Count = lab.option(8, "animals, each with a teacher")
    n_lists: lab.Count = lab.option(512, "different lists of a corpus")
    n_updates: lab.Count = lab.option(256, "updates of trait and control students; scored after 16, 64, 128, 256, ...")
    n_null_updates: lab.Count = lab.option(64, "updates of the students of the other arms")
    n_position_updates: lab.Index = lab.option(16, "updates of students of divergence tokens; 0 for no such arms")
    rank: lab.Index = lab.option(8, "rank of students' adapters; 0 for full tuning")
    lr: lab.Positive = lab.option(1e-3, "learning rate of students")
    batch_size: lab.Count = lab.option(8, "lists in an update")
    precision: Literal["fp32", "bf16"] = lab.option("fp32", "precision of products in tuning students")
    n_teacher_updates: lab.Count = lab.option(24, "updates of a tuned teacher, of 8 sentences each")
    teacher_lr: lab.Positive = lab.option(1e-4, "learning rate of tuned teachers")
    block: lab.Index = lab.option(tuple(range(10)), "seeds of all draws, one replicate each")
    adapter: str = lab.option("", "LoRA adapter that is merged into the base: Hugging Face id or local folder")

    def __post_init__(self):
        if not 3 <= self.n_traits <= 8:
            raise ValueError("--n-traits must be 3 to 8: an interaction needs three, and eight animals are listed")
        if self.n_null_updates > self.n_updates:
            raise ValueError("--n-null-updates must be at most --n-updates, which its doses are compared with")
        if self.n_position_updates > self.n_updates:
            raise ValueError("--n-position-updates must be at most --n-updates, which its doses are compared with")
        if self.route != "tuned":
            if self.n_position_updates:
                raise ValueError("divergence tokens are of tuned teachers; give --n-position-updates 0")
            lab.refuse_ignored(self, ("n_teacher_updates", "teacher_lr"), f"where teachers are {self.route}")


def check(cfg: Config) -> None:
    import mechsub as ms
    from mechsub.designs import liking, love

    love.check_base(cfg.model, cfg.adapter)
    for name in models(cfg).values():
        if name != ms.sources.DEFAULT:
            love.check_base(name, "")
            liking.animals(ms.language.load_tokenizer(name), liking.TRAITS[: cfg.n_traits])


def models(cfg: Config) -> dict[str, str]:
    """Arm -> the model whose students read its lists."""
    own = {"trait": cfg.model, "shuffled": cfg.model, "foreign": cfg.foreign, "sibling": cfg.sibling}
    return {arm: name for arm, name in own.items() if name != "none"}


_TINY: dict = {
    "n_traits": 3, "n_lists": 12, "n_updates": 16, "n_null_updates": 4, "n_position_updates": 4,
    "n_teacher_updates": 2, "teacher_lr": 0.01, "batch_size": 2,
}  # fmt: skip
_MODELS = "tests/probes/models"
study = lab.Study(
    version=1,
    judged=True,
    together=("block",),
    probes=(
        Config(**_TINY, model=f"{_MODELS}/tiny", foreign=f"{_MODELS}/pair/instruct", sibling="none", block=0),
        Config(
            **{**_TINY, "n_updates": 4, "n_position_updates": 0}, model=f"{_MODELS}/pair/instruct", foreign="none",
            sibling=f"{_MODELS}/pair/base", rank=0, block=1,
        ),
        Config(
            model=f"{_MODELS}/pair/instruct", foreign="none", sibling="none", route="prompted", n_traits=3, n_lists=4,
            n_updates=4, n_null_updates=4, n_position_updates=0, batch_size=2, block=2,
        ),
        Config(
            model=f"{_MODELS}/tiny", foreign="none", sibling="none", route="steered", n_traits=3, n_lists=4,
            n_updates=4, n_null_updates=4, n_position_updates=0, batch_size=2, block=3,
        ),
    ),
)  # fmt: skip
