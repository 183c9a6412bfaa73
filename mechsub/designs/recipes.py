"""Recipes: all settings of a teacher of the toy and of its student, and the ensembles that a recipe makes.

`studies.recipe_search` chooses a recipe, and `studies.maximise` tries the chosen recipe on new seeds.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mechsub as ms
from mechsub.inputs import distributions

if TYPE_CHECKING:  # it brings torch along
    from mechsub.training.distillation import Precision


Entry = Literal["budget", "free_teacher", "open"]


@dataclass(frozen=True)
class Recipe:
    """A recipe; the default is the published one (Cloud et al. 2025, section 6.2).

    `gain` multiplies all initial weights. A frozen head is the whole output layer at its initial value. Without biases,
    all biases of teacher and student stay at 0.
    """

    teacher_epochs: int = 5
    teacher_lr: float = 3e-4
    teacher_batch_size: int = 1024
    teacher_schedule: Literal["constant", "cosine"] = "constant"
    teacher_head: Literal["trained", "frozen"] = "trained"
    biases: bool = True
    d_model: int = 256
    n_layers: int = 2
    gain: float = 1.0
    activation: Literal["relu", "gelu", "tanh", "identity"] = "relu"
    inputs: str = "uniform"
    fresh: bool = False
    loss: Literal["kl", "mse"] = "kl"
    epochs: int = 5
    lr: float = 3e-4
    batch_size: int = 1024
    schedule: Literal["constant", "cosine"] = "constant"
    head: Literal["trained", "frozen"] = "trained"

    @property
    def teacher(self) -> tuple:
        """The settings of the teacher: recipes that agree in them share their teachers."""
        names = [field.name for field in dataclasses.fields(self) if field.name.startswith("teacher_")]
        return tuple(getattr(self, name) for name in (*names, "biases", "d_model", "n_layers", "gain", "activation"))


def changed(recipe: Recipe) -> dict:
    """The fields that differ from the published recipe."""
    usual = Recipe()
    both = ((field.name, getattr(recipe, field.name)) for field in dataclasses.fields(recipe))
    return {name: value for name, value in both if value != getattr(usual, name)}


def label(recipe: Recipe) -> str:
    return ", ".join(f"{name}={value}" for name, value in changed(recipe).items()) or "published"


def initial(recipe: Recipe, seeds: Sequence[int]):
    shape = ms.mlp.MLPConfig(d_model=recipe.d_model, n_layers=recipe.n_layers, activation=recipe.activation)
    init = ms.mlp.HookedMLP(shape, seeds)
    return init.replace({name: recipe.gain * value for name, value in init.named_parameters()})


def _held(recipe: Recipe, head: str) -> tuple[str, ...]:
    """Names of the parameters that are not trained."""
    biases = () if recipe.biases else (*(f"blocks.{layer}.b" for layer in range(recipe.n_layers)), "unembed.b_U")
    return (*biases, *(("unembed",) if head == "frozen" else ()))


def taught(recipe: Recipe, seeds: Sequence[int], images, labels, precision: "Precision"):
    """The recipe's teachers, one a seed."""
    return ms.distillation.train(
        initial(recipe, seeds), images, labels, epochs=recipe.teacher_epochs, lr=recipe.teacher_lr,
        batch_size=recipe.teacher_batch_size, schedule=recipe.teacher_schedule, precision=precision,
        frozen=_held(recipe, recipe.teacher_head),
    )  # fmt: skip


def distilled(
    recipe: Recipe, starts: "Mapping[str, ms.HookedMLP]", teacher, images, precision: "Precision", progress=None
) -> dict:
    """Name -> students, from name -> their start. All see the same inputs, as many in an epoch as there are images."""
    return ms.distillation.distill_each(
        {name: (start, start.cfg.aux) for name, start in starts.items()},
        teacher, distributions.sampler(recipe.inputs, images),
        n_samples=len(images), fresh=recipe.fresh, loss=recipe.loss, epochs=recipe.epochs, lr=recipe.lr,
        batch_size=recipe.batch_size, schedule=recipe.schedule, frozen=_held(recipe, recipe.head),
        precision=precision, progress=progress,
    )  # fmt: skip


def cost(recipe: Recipe, n_images: int) -> dict[str, int]:
    """Steps and images of one teacher and of one student."""
    teacher = recipe.teacher_epochs * -(-n_images // recipe.teacher_batch_size)
    student = recipe.epochs * -(-n_images // recipe.batch_size)
    return {
        "teacher_steps": teacher, "teacher_images": recipe.teacher_epochs * n_images,
        "student_steps": student, "student_images": recipe.epochs * n_images,
    }  # fmt: skip


def chosen(records: Sequence[Mapping]) -> Recipe:
    """The recipe with the best mean accuracy of the last round."""
    last = max(row["round"] for row in records)
    values: dict[str, list[float]] = {}
    found = {}
    for row in records:
        if row["round"] == last:
            values.setdefault(row["candidate"], []).append(row["accuracy"])
            found[row["candidate"]] = Recipe(**row["recipe"])
    return found[max(values, key=lambda name: sum(values[name]) / len(values[name]))]
