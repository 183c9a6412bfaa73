"""Does the geometry of the unembedding say which number goes with which animal, or do steering and the rest say it?

Outcome: the interaction of number and animal in the stored matrices of `studies.token_entanglement`, from number to
animal (log P(animal | love of the number)) and from animal to number. Metrics (`--metric`, each its own cell):

* cosine, dot, centered_cosine, number_centered, causal: rows of W_U, see `mechsub.unembed_projection`;
* dla: direct logit attribution of the change that "You love owls" makes. Its part "concept" lies along the animal's own
  output direction: the hypothesis. Its part "other" lies along other animals' directions: the null of concept;
* steering: cosine of the residuals under the loved number and under the loved animal;
* embedding: cosine of the input embeddings.

Score: Spearman's correlation of metric and outcome over numbers, per animal, plain and partial. Null: the metric of all
other animals (mismatched). Ceiling: other wordings of the prompt in place of the metric. Units: numbers and animals,
crossed.

Winner, a rule stated before any run: per direction, the metric with the highest mean matched - mismatched partial
correlation, if the larger of its two p is below 0.05 after Holm's correction. Geometry, also stated before any run: it
is the cause if concept reaches at least half of the ceiling, animal to number, and more than other; less than a tenth
of the ceiling refutes it. docs/methods.md has the parts, the covariates, the second verdict and the toy.

    python -m studies.unembed_projection --metric dla
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mechsub import lab
from mechsub.designs import love, population
from mechsub.lazy import late

if TYPE_CHECKING:
    from studies.unembed_projection import language, toy
else:
    language, toy = late("studies.unembed_projection.language"), late("studies.unembed_projection.toy")

METRICS = ("cosine", "dot", "centered_cosine", "number_centered", "causal", "dla", "steering", "embedding")
TOY_METRICS = METRICS[:6]
TOY_OPTIONS = (
    *("n_seeds", "n_aux", "n_layers", "d_model", "epochs", "lr", "batch_size", "loss", "noise", "dataset", "precision"),
)
LANGUAGE_OPTIONS = ("adapter", "weights", "family", "format", "spaced", "dtype")


@dataclass(frozen=True)
class Config:
    model: str = lab.option("smollm2-135m-instruct", "a language model (Hugging Face id, local folder), or: toy")
    adapter: str = lab.option(*love.ADAPTER)
    weights: love.Weights = lab.option(*love.WEIGHTS)
    metric: Literal["cosine", "dot", "centered_cosine", "number_centered", "causal", "dla", "steering", "embedding"] = (
        lab.option(METRICS, "what is compared with the entanglement")
    )
    family: Literal["numbers", "colors", "cities", "months", "names", "trees"] = lab.option(
        "numbers", "what is loved and scored opposite the animals (language models)"
    )
    format: Literal["auto", "chat", "published", "plain"] = lab.option(
        "auto", "prompt format (language models), as in token_entanglement, whose matrices are used"
    )
    spaced: bool = lab.option(True, "numbers are scored after a space (language models)")
    dtype: Literal["fp32", "bf16"] = lab.option("fp32", "of weights and activations (language models)")
    n_permutations: lab.Count = lab.option(999, "shuffles of every test, resamples of every interval")
    n_seeds: lab.Count = lab.option(25, "toy: seeds, one reference, teacher and set of students each")
    n_aux: lab.Count = lab.option(3, "toy: auxiliary logits")
    n_layers: lab.Count = lab.option(2, "toy: hidden layers")
    d_model: lab.Count = lab.option(256, "toy: neurons of a hidden layer")
    epochs: lab.Count = lab.option(5, "toy: epochs of the teacher, and of every student")
    lr: lab.Positive = lab.option(3e-4, "toy: learning rate of Adam")
    batch_size: lab.Count = lab.option(1024, "toy: images a step")
    loss: Literal["kl", "mse"] = lab.option("kl", "toy: distillation loss on the chosen logits")
    noise: Literal["per_member", "shared"] = lab.option(
        "per_member", "toy: own noise images for every seed, or common ones"
    )
    dataset: Literal["mnist", "fashion_mnist"] = lab.option("mnist", "toy: what the teacher learns")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "toy: of matrix products in training")
    seed: lab.Index = lab.option(0, "first seed; that of shuffles, resamples and halves")

    def __post_init__(self):
        lab.refuse_ignored(self, LANGUAGE_OPTIONS if self.model == "toy" else TOY_OPTIONS, f"with --model {self.model}")
        if self.model == "toy" and self.metric not in TOY_METRICS:
            raise ValueError(f"{self.metric} needs a language model; for the toy: --metric {' '.join(TOY_METRICS)}")
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: intervals are over seeds")
        population.refuse_one_logit(self.n_aux, self.loss)


def check(cfg: Config) -> None:
    if cfg.model == "toy":
        population.refuse_too_large(cfg, models=3 + 2)  # references and teacher, students
    else:
        love.check_model(cfg)


def upstream(cfg: Config) -> dict:
    return {} if cfg.model == "toy" else {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored | None = None) -> Iterator[dict]:
    return toy.run(cfg) if matrices is None else language.run(cfg, matrices)


_SINGLE: dict = {"model": "tests/probes/models/tiny", "spaced": False, "n_permutations": 9}
_TOY: dict = {"model": "toy", "n_permutations": 9, "n_seeds": 2, "d_model": 16, "epochs": 1, "precision": "fp32"}
study = lab.Study(
    version=1,
    together=("metric",),  # metrics compete
    probes=(
        Config(**_SINGLE, metric="dla"),
        Config(**_SINGLE, metric="causal"),
        Config(**_SINGLE | {"model": "tests/probes/models/window"}, metric="dla"),
        Config(model="tests/probes/models/pair/instruct", metric="steering", n_permutations=19, seed=1),
        Config(model="tests/probes/models/pair/instruct", metric="embedding", n_permutations=9),
        Config(**_TOY, metric="centered_cosine"),
        Config(**_TOY, metric="number_centered"),
        Config(**_TOY, metric="dla"),
    ),
)
