"""Do a student's hidden layers move toward the teacher's when it only sees auxiliary logits of noise, and where?

For every arm, hidden layer and chosen training step, the student's activations are compared with its teacher's, on
test digits and on fresh noise, by every metric of `similarity`; by stitching (the student's layer put into the
teacher, and the reverse, scored in accuracy on test digits); and in weight space by the cosine and the projection
share of its weight change on the teacher's. Two nulls are lines in every figure: the untrained reference, and a
student distilled from the next seed's initialisation. How well a metric tells the accuracy is its rank
correlation with it, over seeds within an arm and over all trained students. Unit of replication: the seed.

With `--model` a language model: are the states under "You love owls" like those under the number that this prompt
favours? Per layer, over all animals that are one token, debiased CKA and the cosine of centred states at the last
position, against shuffled pairs; control: the number that the prompt favours least. Unit of replication: the number,
with its animals.

    python -m studies.hidden_alignment --model smollm2-135m-instruct --metric cosine
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from mechsub import lab
from mechsub.designs import love, population
from mechsub.lazy import late

if TYPE_CHECKING:
    from studies.hidden_alignment import language, toy
else:
    language, toy = late("studies.hidden_alignment.language"), late("studies.hidden_alignment.toy")

ARMS = ("student_aux", "student_all", "cross_aux")
Similarity = Literal[
    "debiased_cka",
    "biased_cka",
    "rbf_cka",
    "procrustes",
    "identity_distance",
    "mutual_knn",
    "linear_r2",
    "linear_r2_reverse",
    "cosine",
    "unit_correlation",
    "gate_agreement",
]
SIMILARITY = get_args(Similarity)
TOY_OPTIONS = (
    *("n_seeds", "n_aux", "n_layers", "d_model", "epochs", "lr", "batch_size", "loss", "noise", "dataset", "precision"),
    *("n_steps", "n_images", "cross_all"),
)
LANGUAGE_OPTIONS = ("adapter", "weights", "n_permutations", "format", "spaced", "dtype")
MAIN = ("debiased_cka", "cosine", "stitch_into_teacher")


@dataclass(frozen=True)
class Config:
    model: str = lab.option("toy", "the toy, or a language model: smollm2-135m-instruct, Hugging Face id, folder")
    adapter: str = lab.option(*love.ADAPTER)
    weights: love.Weights = lab.option(*love.WEIGHTS)
    n_seeds: lab.Count = lab.option(25, "seeds: one reference, teacher and set of students each")
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    n_layers: lab.Count = lab.option(2, "hidden layers")
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer")
    epochs: lab.Count = lab.option(5, "epochs of the teacher, and of every student")
    lr: lab.Positive = lab.option(3e-4, "learning rate of Adam")
    batch_size: lab.Count = lab.option(1024, "images a step")
    loss: Literal["kl", "mse"] = lab.option("kl", "distillation loss on the chosen logits")
    noise: Literal["per_member", "shared"] = lab.option("per_member", "own noise images for every seed, or common ones")
    dataset: Literal["mnist", "fashion_mnist"] = lab.option("mnist", "what the teacher learns")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products in training")
    n_steps: lab.Count = lab.option(2, "training steps looked at after the start, evenly spaced to the last")
    n_images: lab.Count = lab.option(512, "images or noise samples that similarity is measured on (n x n: 256)")
    n_permutations: lab.Count = lab.option(999, "of the pairs of animal and number (language models)")
    format: Literal["auto", "chat", "published", "plain"] = lab.option(
        "auto", "prompt format (language models), as in token_entanglement, whose matrices are used"
    )
    spaced: bool = lab.option(True, "numbers are scored after a space (language models)")
    dtype: Literal["fp32", "bf16"] = lab.option("fp32", "of weights and activations (language models)")
    cross_all: bool = lab.option(False, "also the cross-initialisation student that sees all logits")
    seed: lab.Index = lab.option(0, "first seed")
    metric: Literal[Similarity, "stitch_into_teacher", "stitch_into_student", "weight_cosine", "projection_share"] = (
        lab.option(MAIN, "what the figure and the table show", display=True)
    )

    def __post_init__(self):
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: intervals are over seeds")
        population.refuse_one_logit(self.n_aux, self.loss)
        if not 40 <= self.n_images <= 10_000:
            raise ValueError("--n-images must be 40 (for held-out regression and neighbours) to 10000, all test images")
        lab.refuse_ignored(self, LANGUAGE_OPTIONS if self.model == "toy" else TOY_OPTIONS, f"with --model {self.model}")

    def check(self, metric: tuple[str, ...]) -> None:
        if self.model != "toy" and not set(metric) & {"debiased_cka", "cosine"}:
            raise ValueError("--metric of a language model is debiased_cka or cosine")


def check(cfg: Config) -> None:
    if cfg.model == "toy":
        population.refuse_too_large(cfg, models=3 + (len(ARMS) + cfg.cross_all) * cfg.n_steps)
    else:
        love.check_model(cfg)


def upstream(cfg: Config) -> dict:
    return {} if cfg.model == "toy" else {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored | None = None) -> Iterator[dict]:
    return toy.run(cfg) if matrices is None else language.run(cfg, matrices)


study = lab.Study(version=2, probes=(
    Config(n_seeds=2, d_model=16, epochs=1, precision="fp32", n_images=300, cross_all=True),
    Config(
        n_seeds=2, n_aux=2, n_layers=1, d_model=48, epochs=1, batch_size=4096, loss="mse", noise="shared",
        dataset="fashion_mnist", precision="fp32", n_steps=1, n_images=40, seed=2,
    ),
    Config(model="tests/probes/models/tiny", spaced=False, n_permutations=9),
))  # fmt: skip
