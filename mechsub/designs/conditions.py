"""Conditions of the toy's distillation, written as differences from the published one: `blurred:1+d_model=64`.

The first word is the input distribution (`uniform` is the published one). The rest are options of the student, and of
its teacher where both share an option. The students of a condition are those of `studies.factors` with its options.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal, get_args, get_type_hints

import mechsub as ms
from mechsub.designs import population
from mechsub.inputs import distributions

STORED = (  # those of which studies.factors and studies.input_distributions have cells
    *distributions.STUDIED,
    *(
        f"uniform+{option}"
        for option in (
            *("d_model=64", "d_model=512", "n_layers=1", "n_layers=3", "n_aux=2", "n_aux=10", "n_aux=30", "n_aux=100"),
            *(
                "init=torch",
                "init=he",
                "activation=identity",
                "loss=mse",
                "loss=hard",
                "optimizer=sgd",
                "optimizer=sign_sgd",
            ),
            *("epochs=1", "epochs=10", "lr=0.0001", "lr=0.001", "lr=0.003", "batch_size=256", "batch_size=4096"),
            *("n_samples=6000", "n_samples=20000"),
        )
    ),
)
NOT_OF_DISTILL = ("inputs", "d_model", "n_layers", "n_aux", "init", "activation")


@dataclass(frozen=True)
class Condition:
    """A condition; the default is the published one (Cloud et al. 2025, section 6.2)."""

    inputs: str = "uniform"
    d_model: int = 256
    n_layers: int = 2
    n_aux: int = 3
    init: Literal["lecun", "torch", "he"] = "lecun"
    activation: Literal["relu", "gelu", "tanh", "identity"] = "relu"
    loss: Literal["kl", "mse", "hard"] = "kl"
    optimizer: Literal["adam", "sgd", "sign_sgd"] = "adam"
    epochs: int = 5
    lr: float = 3e-4
    batch_size: int = 1024
    n_samples: int = 60_000

    def changed(self) -> dict:
        """The options that differ from the published ones."""
        return {f.name: v for f in dataclasses.fields(self) if (v := getattr(self, f.name)) != f.default}

    def n_steps(self) -> int:
        """The steps of a student."""
        return self.epochs * math.ceil(self.n_samples / self.batch_size)

    def settings(self) -> dict:
        """The arguments of `distill`, without inputs, logits, precision and seed."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in NOT_OF_DISTILL}

    def teachers(self, teacher_epochs: int, n_seeds: int, seed: int, precision: str) -> dict:
        """The options of the stored teachers of its students."""
        more = {"teacher_epochs": teacher_epochs, "n_seeds": n_seeds, "seed": seed, "precision": precision}
        return population.teacher_options(SimpleNamespace(**vars(self), **more))

    def shape(self):
        names = ("d_model", "n_layers", "n_aux", "init", "activation")
        return ms.mlp.MLPConfig(**{name: getattr(self, name) for name in names})


def written(condition: Condition) -> str:
    """The one way to write a condition."""
    changed = condition.changed()
    return "+".join(
        [
            condition.inputs,
            *(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in changed.items() if k != "inputs"),
        ]
    )


def parsed(text: str) -> Condition:
    """The condition that a text names. ValueError where it names none, and for a second way to write a condition."""
    inputs, *rest = text.split("+")
    distributions.parsed_any(inputs)
    options: dict = {"inputs": inputs}
    for part in rest:
        name, _, value = part.partition("=")
        options[name] = _value(name, value)
    condition = Condition(**options)
    if written(condition) != text:
        raise ValueError(f"--condition: write {written(condition)}, not {text[:120]}, so that a cell has one name")
    population.refuse_one_logit(condition.n_aux, condition.loss)
    return condition


def _value(name: str, text: str) -> str | int | float:
    kinds = get_type_hints(Condition)
    if name not in kinds or name == "inputs":
        raise ValueError(f"--condition: {name[:80]!r} is not one of {', '.join(k for k in kinds if k != 'inputs')}")
    if choices := get_args(kinds[name]):
        if text not in choices:
            raise ValueError(f"--condition: {name} is one of {', '.join(choices)}, not {text[:80]!r}")
        return text
    number = distributions.finite_number(text)
    if number is None or number <= 0 or (kinds[name] is int and number != int(number)):
        raise ValueError(f"--condition: {name} needs a number above 0, not {text[:80]!r}")
    return kinds[name](number)


@dataclass(frozen=True)
class Given:
    """The parts from which the students of a condition are made."""

    condition: Condition
    start: "ms.HookedMLP"
    other: "ms.HookedMLP"  # of the next seed: the null
    teacher: "ms.HookedMLP"
    sampler: Callable
    settings: dict

    def distilled(self, progress=None) -> "dict[str, ms.HookedMLP]":
        """The students, and their null."""
        starts = {"student": self.start, "cross": self.other}
        return ms.distillation.distill_each(
            {name: (start, start.cfg.aux) for name, start in starts.items()}, self.teacher, self.sampler,
            **self.settings, progress=progress,
        )  # fmt: skip

    def linearised(self, at, **more) -> "ms.HookedMLP":
        """The predicted students, linearised at the given point or points."""
        given = {"outputs": self.start.cfg.aux, "at": at, **self.settings, **more}
        return ms.linearised_student(self.start, self.teacher, self.sampler, **given)


def given(text: str, teachers: dict, n_seeds: int, seed: int, precision: str) -> Given:
    """The networks and inputs of a condition, from the stored weights of its teachers."""
    condition = parsed(text)
    start = ms.mlp.HookedMLP(condition.shape(), range(seed, seed + n_seeds))
    other = ms.mlp.HookedMLP(condition.shape(), range(seed + 1, seed + n_seeds + 1))
    sampler = distributions.any_sampler(condition.inputs, ms.images.mnist("train")[0])
    settings = condition.settings() | {"precision": precision, "seed": seed}
    return Given(condition, start, other, population.with_aux(start, teachers), sampler, settings)


def scored(models: "dict[str, ms.HookedMLP]", where: Given) -> list[dict]:
    """A row for every member of every arm: accuracies, its place on the teacher's line, mean logits of the digits."""
    test, unlabelled = ms.images.mnist("test"), ms.images.mnist("train")[0][: population.UNLABELLED]
    rows = []
    for arm, model in models.items():
        scores = ms.accuracies(model, *test, unlabelled)
        moved = _from_start(where, model) if arm.startswith("cross") else model
        shares = ms.line_shares(moved, where.start, where.teacher).tolist()
        means = ms.mean_offset(model, unlabelled).tolist()
        for i, member in enumerate(where.start.seeds):
            own = {name: float(values[i]) for name, values in scores.items()}
            rows.append({"arm": arm, "member": member, **own, "shares": shares[i], "mean_logits": means[i]})
    return rows


def _from_start(where: Given, model):
    """The change of a student of another start, added to the teacher's start: its share on the line is the null."""
    way = ms.spectra.displacement(model, where.other)
    return where.start.replace({name: value + way[name] for name, value in where.start.named_parameters()})
