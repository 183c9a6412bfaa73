"""Every public function of the instrument: how it is called rightly, and of which kind each of its arguments is.

A new public function is missing here until it has a row, and tests/test_arguments.py says so. `right=` lists values
that look wrong and are not for this function, and why.
"""

import atexit
import importlib
import inspect
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tiny_llama import save_number_llama, save_tiny_llama
from wrong_arguments import (
    argument,
    choice,
    count,
    flag,
    function,
    generated,
    generator,
    ids,
    labels,
    model,
    number,
    one_token_each,
    outputs,
    positive,
    prompt,
    prompts,
    seed,
    seeds,
    share,
    tensor,
    tensors,
    text,
    texts,
    vector,
)

import mechsub as ms
from mechsub.inputs import corpora, noise
from mechsub.inputs import prompts as prompting
from mechsub.lab import store
from mechsub.measures import ablation, similarity, spectra, tangent, tangent_modes
from mechsub.measures import scores as entanglement
from mechsub.models import language, mlp, students, tiny_transformer
from mechsub.training import conv, removal, tuning

# What runs studies and shows them; a user's numbers come from all other modules.
HARNESS = {
    "adapters",
    "control_groups",
    "cores",
    "doctor",
    "files",
    "devices",
    "lazy",
    "packages",
    "processes",
    "provenance",
    "sources",
    "weights",
}
# What functions ask with: these are given what a user gave, and say what is wrong with it.
ASKING = {
    "arguments",
    "members",
    "toy_inputs",
    "token_ids",
    "continuations",
    "templates",
    "tokenizer",
}
# Of public modules, what is handed a part of a model that another of its functions took apart, and no user's argument.
# Or the inner layer of training and scoring, whose arguments the public functions round it have checked.
PARTS = {
    "distillation.Lesson",
    "distillation.check_apart",
    "distillation.check_pair",
    "distillation.check_temperature",
    "distillation.checked_classes",
    "distillation.check_steps",
    "distillation.checked_students",
    "distillation.fit_members",
    "distillation.frozen_names",
    "distillation.kl_loss",
    "distillation.lessons",
    "distillation.loss_of",
    "distillation.member_logits",
    "distillation.squared_loss",
    "distillation.student_inputs",
    "distillation.is_common",
    "distillation.n_inputs",
    "distillation.class_loss",
    "mlp.check_plain",
    "hooked.check_unhooked",
    "hooked.has_own_forward",
    "hooked.hooks_of",
    "hooked.refuse_part",
    "exchange.read_alike",
    "language.remember_weights",
    "language.source_of",
    "noise.draws_by_rows",
    "tuning.check_corpus",
    *(
        f"fitting.{name}"
        for name in (
            "Ensemble",
            "Ensemble.replace",
            "Fit",
            "Job",
            "Problem",
            "Settings",
            "affine",
            "batches",
            "check_within",
        )
    ),
    *(f"fitting.{name}" for name in ("each_in_parts", "gathered", "member_parameters", "one_of", "rate", "stacked")),
    *(f"fitting.{name}" for name in ("trained_names", "views")),
    *(f"together.{name}" for name in ("Drawn", "fit", "place_of")),
    "corpora.prompt_ids",
    "students.StackedLinear",
    "students.check_fp32",
    "students.chosen_names",
    "students.linear_layers",
    "students.logits_at",
    "students.only_at",
    "students.steered",
    "students.plain_model",
    "students.stack",
    "students.student_logits",
    "tuning.CompletionBatch",
    "tuning.batch_rows",
    "tuning.completion_batch",
    "tuning.rate",
    "tuning.starting_weights",
    "linearised.Linear",
    "linearised.linear",
    "linearised.linear_logits",
    "scores.checked_prompts",
    "scores.equal_lengths",
    "scores.fitting",
    "unembedding.final_gain",
    "functions.Check",
    "functions.Checks",
    "checks.inputs_to_try",
    "checks.unlike",
    "checks.is_hooked",
    "checks.measured_on",
    "checks.measure_with",
    "checks.warned",
    "checks.CannotRun",
    "checks.Refused",
    "checks.Branches",
    "checks.Norm",
    "checks.Readout",
    "checks.Write",
    "checks.differ",
    "checks.final_scale",
    "checks.holds_beside",
    "checks.measured_norm",
    "checks.recall",
    "checks.run_beside",
    "checks.same_place",
    "checks.try_out",
    "checks.warn_once",
}
# Classes that functions return, or that others are made of; users read them and call none.
RECORDS = {
    "attribution.Attribution",
    "bottleneck.Change",
    "divergence.Divergence",
    "scores.Trie",
    "hooked.HookedModel",
    "language.ModelUnavailable",
    "language.bridge_over",
    "mlp.Block",
    "mlp.Unembed",
    "conv.Layer",
    "tiny_transformer.Block",
    "tiny_transformer.Norm",
    "tiny_transformer.Unembed",
    "stats.Interval",
    "stats.Paired",
    "students.Students",
    "tangent.Tangent",
    "tangent_modes.Modes",
    "words.Animal",
}


# Last part of a module's name -> the whole, of the instrument.
OTHERS = (
    *("inputs.distributions", "measures.distances", "measures.exchange", "measures.interaction_parts"),
    *("models.tiny_transformer", "training.conv"),
)
MODULES = {
    path.rpartition(".")[2]: f"mechsub.{path}"
    for path in (*ms._MODULES.values(), *OTHERS)
    if path.split(".")[0] not in ("lab", "designs") and path != "lab"
}


def public() -> dict[str, list[str]]:
    """module.function (or module.Class, module.Class.method) -> its parameters, of all that has any."""
    out = {}
    for module in sorted(set(MODULES) - HARNESS):
        space = importlib.import_module(MODULES[module])
        for name, value in vars(space).items():
            if name.startswith("_") or getattr(value, "__module__", None) != space.__name__:
                continue
            if f"{module}.{name}" in RECORDS | PARTS:
                continue
            if inspect.isclass(value):
                out[f"{module}.{name}"] = parameters(value)
                methods = {key: one for key, one in vars(value).items() if inspect.isfunction(one)}
                for key in methods:
                    if not key.startswith("_"):
                        out[f"{module}.{name}.{key}"] = parameters(methods[key])
            elif callable(value):
                out[f"{module}.{name}"] = parameters(value)
    named = {f"{module.rpartition('.')[2]}.{name}": name for name, module in ms._NAMES.items()}
    for dotted in named:
        value = resolve(dotted)
        if dotted not in RECORDS and callable(value):
            out.setdefault(dotted, parameters(value))
    return {name: names for name, names in out.items() if names}


def parameters(function) -> list[str]:
    """Those with a name: what stands behind `**options` is tried where the options are known (tests/test_frames.py)."""
    found = inspect.signature(function).parameters.values()
    return [each.name for each in found if each.kind is not each.VAR_KEYWORD]


def resolve(name: str):
    module, *path = name.split(".")
    value = importlib.import_module(MODULES.get(module) or f"mechsub.{ms._MODULES.get(module, module)}")
    for part in path:
        value = getattr(value, part)
    return value


# What functions are rightly called with.


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@cache
def start() -> mlp.HookedMLP:
    return mlp.HookedMLP(mlp.MLPConfig(d_in=16, d_model=8, n_classes=3, n_aux=2), seeds=(0, 1))


@cache
def teacher() -> mlp.HookedMLP:
    moved = {name: value + 0.1 * normal(*value.shape, seed=1) for name, value in start().named_parameters()}
    return start().replace(moved)


@cache
def stored() -> str:
    """A store of one cell."""
    root = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, root)
    store.write_cell(Path(root, "theirs", "default"), [{"value": 1.0}], {"study": "theirs", "config": {}})
    return root


@cache
def llama():
    with tempfile.TemporaryDirectory() as folder:
        return language.load_language_model(str(save_tiny_llama(Path(folder))))


def in_train_mode(value):
    import copy

    other = copy.copy(value)
    other.training = True  # train() would also set the parts, which the copy shares with the model
    return {"train mode": other}


def pair(value) -> dict:
    """Wrong partners of a toy."""
    cfg = value.cfg
    shapes = {"other width": {"d_in": 20}, "other outputs": {"n_aux": 4}}
    others = {
        label: mlp.HookedMLP(ms.MLPConfig(**{**vars(cfg), **change}), value.seeds) for label, change in shapes.items()
    }
    return {**others, "fewer members": value.select([0]), "language model": llama()}


IMAGES, LABELS = normal(40, 16).clamp(-1, 1), torch.arange(40) % 3
LAST = "blocks.1.hook_out"
TOKENS = [7, 12, 40]
TEN = [0.1 * i + (0.3 if i % 3 else 0.0) for i in range(10)]
P = [0.01, 0.2, 0.5, 0.04]

toy = model(more=lambda value: {"language model": llama()})


def size() -> int:
    return llama().W_U.shape[-1]


def two_prompts() -> list:
    tokenizer = llama().tokenizer
    return [prompting.chat(tokenizer, f"You love {x}") for x in ("087", "12")]


def answer() -> torch.Tensor:
    return two_prompts()[1][:3]


def direction() -> dict:
    return spectra.displacement(teacher(), start())


def at() -> tangent.Tangent:
    return tangent.tangent(start(), IMAGES, slice(3, 5))


def modes() -> tangent_modes.Modes:
    return tangent_modes.tangent_modes(at(), at().logits)


HALVES = dict.fromkeys(("half", "bf16"), "computed in fp64 from the values as they are")
instance = argument(lambda value: {"None": None, "text": "x", "number": 1, "dict": vars(value)})
INTS = "whole numbers are numbers"
MASK = "0 and 1, as numbers"
HALF = "computed in fp64 from the values as they are"
POINTS = {"ints": INTS, "bytes": INTS, "bool": MASK, "half": HALF, "bf16": HALF}
FP64 = {**POINTS, "one axis more": "members", "transposed": "any number of samples and units"}
IN_KIND = {"half": "in its own precision", "bf16": "in its own precision"}


behind = argument(lambda v: {"text": "a", "set": {1}, "number": 1, "texts": ["a"], "empty": []})()
least_0 = argument(lambda v: {**number().wrong(v), "negative": -1.0}, number().same)
array = argument(
    lambda v: {
        "None": None,
        "text": "1.0",
        "list": v.tolist(),
        "NaN": torch.where(v == v[0], torch.nan, v),
        "infinity": torch.where(v == v[0], torch.inf, v),
        "complex": v + 0j,
        "texts": np.array([str(one) for one in v.tolist()]),
    },
    lambda v: {"numpy": v.numpy(), "requires_grad": v.clone().requires_grad_()},
)


def _stats() -> dict:
    bools = vector(
        2, more=lambda value: {"bools": [True, False, True]}, right={"bools": "1 and 0: a mean of them is a share"}
    )
    x, y = TEN, [one**2 - 3 * i for i, one in enumerate(TEN)]
    long = [float(i % 7) for i in range(30)]
    clusters = [i // 2 for i in range(30)]
    constant = {"more": lambda value: {"constant": [1.0] * len(value)}}
    pairs = {name: vector(10, paired=True, **constant) for name in "xy"}
    resampled = {"n_resamples": count(100), "level": share(), "seed": seed()}
    p = vector(1, more=lambda value: {"above 1": [0.5, 1.5], "below 0": [-0.1]})
    sets = {frozenset(): 0.0, frozenset("a"): 1.0, frozenset("b"): 2.0, frozenset("ab"): 4.0}
    return {
        "stats.student_t": (lambda: {"values": TEN, "level": 0.9}, {"values": bools, "level": share()}),
        "stats.paired_difference": (
            lambda: {"a": x, "b": y, "level": 0.9},
            {"a": vector(2, paired=True), "b": vector(2, paired=True), "level": share()},
        ),
        "stats.independent_difference": (
            lambda: {"a": ms.stats.student_t([1.0, 2.0, 4.0]), "b": ms.stats.student_t([0.5, 0.2])},
            {side: argument(lambda v: {"number": 1.0, "pair": (0.1, 0.2)})() for side in ("a", "b")},
        ),
        "stats.ratio_of_means": (
            lambda: {"a": x, "b": y, "level": 0.9},
            {"a": vector(2, paired=True), "b": vector(2, paired=True), "level": share()},
        ),
        "stats.sign_flip_p": (
            lambda: {"differences": x, "n_flips": 99, "seed": 3},
            {"differences": vector(2), "n_flips": count(1), "seed": seed()},
        ),
        "stats.permutation_p": (
            lambda: {"observed": 0.5, "null": x, "scale": 1.0},
            {"observed": number(), "null": vector(1), "scale": least_0()},
        ),
        "stats.as_large": (
            lambda: {"null": torch.tensor(x), "observed": 0.5, "scale": 1.0},
            {"null": array(out=("numpy",)), "observed": number(), "scale": least_0()},  # its answer is of the same kind
        ),
        "stats.joined": (lambda: {"values": torch.tensor(x)}, {"values": array(right={"list": "its numbers"})}),
        "stats.bootstrap": (
            lambda: {"values": long, "statistic": sum, "n_resamples": 100, "level": 0.9, "seed": 1},
            {"values": vector(25), "statistic": function(), **resampled},
        ),
        "stats.clopper_pearson": (
            lambda: {"k": 3, "n": 9, "level": 0.9},
            {"k": count(0, 9), "n": count(1), "level": share()},
        ),
        "stats.spearman": (lambda: {"x": x, "y": y, "level": 0.9}, {**pairs, "level": share()}),
        "stats.spearman_p": (lambda: {"x": x, "y": y}, pairs),
        "stats.clustered_spearman": (
            lambda: {
                "x": long,
                "y": [one * i for i, one in enumerate(long)],
                "clusters": clusters,
                "n_resamples": 100,
                "level": 0.9,
                "seed": 1,
            },
            {**pairs, "clusters": labels(), **resampled},
        ),
        "stats.holm": (lambda: {"p": P}, {"p": p}),
        "stats.shapley": (
            lambda: {"value": sets},
            {
                "value": argument(
                    lambda value: {
                        "None": None,
                        "empty": {},
                        "list": [1.0],
                        "a set is missing": {frozenset(): 0.0, frozenset("ab"): 1.0},
                        "names": {"a": 1.0},
                        "NaN": {**sets, frozenset(): float("nan")},
                        "text": {**sets, frozenset(): "1"},
                    }
                )()
            },
        ),
    }


def _similarity() -> dict:
    x, y = normal(2, 20, 5), normal(2, 20, 5, seed=1) + normal(2, 20, 5)
    wide = {**POINTS, "other width": "widths may differ", "one wide": "widths may differ"}
    free = tensor(right=wide, out=("transposed",))
    same = tensor(right=POINTS, out=("transposed",))
    both, alike = {"x": free, "y": free}, {"x": same, "y": same}
    caches = {"a": x, "b": y}
    cache_ = tensors(
        right={f"a value: {name}": why for name, why in wide.items()}, out=("a value: transposed",), says=("x", "y")
    )
    change = tensor(right=POINTS, out=("no features",))
    single = tensor(right=wide, out=("transposed",))
    metric = function()
    return {
        "similarity.linear_cka": (lambda: {"x": x, "y": y, "debiased": True}, {**both, "debiased": flag()}),
        "similarity.cka_terms": (lambda: {"x": x, "y": y, "debiased": False}, {**both, "debiased": flag()}),
        "similarity.cka_from_terms": (
            lambda: {"terms": similarity.cka_terms(x, y)},
            {
                "terms": tensor(
                    right={
                        **IN_KIND,
                        "other width": "fewer members",
                        "one wide": "one member",
                        "one axis fewer": "of one pair, if it holds three terms",
                    },
                    out=("one axis fewer", "one axis more"),
                )
            },
        ),
        "similarity.rbf_cka": (lambda: {"x": x, "y": y, "bandwidth": 0.5}, {**both, "bandwidth": positive()}),
        "similarity.procrustes": (lambda: {"x": x, "y": y}, both),
        "similarity.identity_distance": (lambda: {"x": x, "y": y}, alike),
        "similarity.mutual_knn": (lambda: {"x": x, "y": y, "k": 3}, {**both, "k": count(1)}),
        "similarity.linear_r2": (lambda: {"x": x, "y": y, "seed": 1}, {**both, "seed": seed()}),
        "similarity.mean_cosine": (lambda: {"x": x, "y": y}, alike),
        "similarity.unit_correlation": (lambda: {"x": x, "y": y}, alike),
        "similarity.gate_agreement": (lambda: {"x": x, "y": y}, alike),
        "similarity.hidden_alignment": (
            lambda: {"cache_a": caches, "cache_b": caches, "metric": similarity.linear_cka},
            {"cache_a": cache_, "cache_b": cache_, "metric": metric},
        ),
        "similarity.weight_cosine": (
            lambda: {"student_change": x, "teacher_change": y, "n_lead": 1},
            {"student_change": change, "teacher_change": change, "n_lead": count(0, 2)},
        ),
        "similarity.projection_share": (
            lambda: {"student_change": x, "teacher_change": y, "n_lead": 1},
            {"student_change": change, "teacher_change": change, "n_lead": count(0, 2)},
        ),
        "similarity.is_distance": (
            lambda: {"metric": similarity.linear_cka, "x": x[0]},
            {"metric": metric, "x": tensor(right={**wide, "shorter": "fewer samples", "transposed": "others"})},
        ),
        "similarity.permutation_null": (
            lambda: {"x": x[0], "y": y[0], "metric": similarity.linear_cka, "n_permutations": 5, "seed": 1},
            {"x": single, "y": single, "metric": metric, "n_permutations": count(1), "seed": seed()},
        ),
    }


def _noise() -> dict:
    square = normal(12, 16)
    any_width = tensor(
        right={
            "shorter": "fewer images",
            "transposed": "images of another size",
            "other width": "images of another size",
            "one wide": "images of one pixel",
        }
    )
    squares = tensor(right={"shorter": "fewer images", "one wide": "images of one pixel"}, out=("transposed",))
    sampled = {"n": count(1), "generator": generator(), "d_in": count(1)}
    white = noise.uniform

    def small(n, generator):
        return white(n, generator, 16)

    def alpha(**options):
        return argument(lambda v: {**number().wrong(v), "above 1": 1.5, "below 0": -0.5}, number().same)(**options)

    sampler = argument(lambda value: {"None": None, "tensor": square, "text": "uniform"})(says=("noise",))
    biased = argument(
        lambda value: {"None": None, "tensor": square, "text": "uniform", "a mean": lambda n, g: small(n, g) + 1}
    )(says=("noise",))
    return {
        "noise.uniform": (lambda: {"n": 5, "generator": draws(), "d_in": 16}, sampled),
        "noise.gaussian": (
            lambda: {"n": 5, "generator": draws(), "d_in": 16, "std": 0.5},
            {**sampled, "std": positive()},
        ),
        "noise.bernoulli": (
            lambda: {"n": 5, "generator": draws(), "d_in": 16, "std": 0.5},
            {**sampled, "std": positive()},
        ),
        "noise.blurred_noise": (
            lambda: {"sigma": 1.0, "std": 0.5, "side": 4},
            {
                "sigma": argument(lambda v: {**number().wrong(v), "negative": -1.0}, number().same)(),
                "std": positive(),
                "side": count(1),
            },
        ),
        "noise.power_law_noise": (
            lambda: {"alpha": 1.0, "std": 0.5, "side": 4},
            {"alpha": number(), "std": positive(), "side": count(1)},
        ),
        "noise.subspace_noise": (
            lambda: {"dimension": 3, "std": 0.5, "d_in": 16, "seed": 2},
            {"dimension": count(1, 16), "std": positive(), "d_in": count(1), "seed": seed()},
        ),
        "noise.perlin_noise": (
            lambda: {"cell": 2, "std": 0.5, "side": 4},
            {"cell": count(1, 2), "std": positive(), "side": count(2)},
        ),
        "noise.covariance_matched_noise": (
            lambda: {"images": square, "std": 0.5},
            {"images": tensor(right=any_width.right, more=lambda v: {"one image": v[:1]}), "std": positive()},
        ),
        "noise.spectrum_matched_noise": (lambda: {"images": square}, {"images": squares}),
        "noise.phase_scrambled": (lambda: {"images": square}, {"images": squares}),
        "noise.shuffled_pixels": (lambda: {"images": square}, {"images": any_width}),
        "noise.resampled": (lambda: {"images": square}, {"images": any_width}),
        "noise.by_rows": (lambda: {"sampler": small}, {"sampler": function()}),
        "noise.mixed": (
            lambda: {"images": square, "noise": small, "alpha": 0.5},
            {"images": any_width, "noise": sampler, "alpha": alpha()},
        ),
        "noise.mixed_at_moments": (
            lambda: {"images": square, "noise": small, "alpha": 0.5, "std": 0.5},
            {"images": any_width, "noise": biased, "alpha": alpha(), "std": positive()},
        ),
        "noise.centred": (lambda: {"images": square}, {"images": any_width}),
        "noise.whitened": (
            lambda: {"images": square, "shrinkage": 0.5, "std": 0.5},
            {
                "images": tensor(right=any_width.right, more=lambda v: {"one image": v[:1]}),
                "std": positive(),
                "shrinkage": argument(lambda v: {**number().wrong(v), "zero": 0.0, "above 1": 1.5}, number().same)(),
            },
        ),
        "noise.blurred": (
            lambda: {"images": square, "sigma": 1.0},
            {"images": squares, "sigma": argument(lambda v: {**number().wrong(v), "negative": -1.0}, number().same)()},
        ),
    }


def _spectra() -> dict:
    eigenvalues = spectra.covariance_spectrum(IMAGES)[None].expand(2, -1)
    values = tensor(
        right={
            **IN_KIND,
            "one axis more": "members",
            "one axis fewer": "of one set",
            "transposed": "",
            "other width": "fewer",
            "one wide": "of one direction",
            "shorter": "fewer members",
            "0-d": "",
        },
        out=("transposed", "0-d"),
        more=lambda v: {"negative": -v, "0-d": v[0, 0]},
    )
    points = tensor(
        right={**FP64, "other width": "fewer units", "one wide": "one unit", "shorter": "fewer samples"},
        out=("one axis more",),
    )
    squares = tensor(
        right={**POINTS, "shorter": "fewer samples", "one wide": "images of one pixel"}, out=("transposed",)
    )
    x = tensor(
        right={"shorter": "fewer samples"},
        out=("one axis more",),
        more=lambda v: {"of three members": v[None].expand(3, -1, -1), "fp64 for fp32 weights": v.double()},
    )
    moved = tensors(more=lambda value: {"a parameter is missing": dict(list(value.items())[1:])})
    shaped = tensors(
        more=lambda value: {"a parameter is missing": dict(list(value.items())[1:])},
        right={"a value: NaN": "its callers ask", "a value: infinity": "its callers ask"},
    )
    return {
        "spectra.covariance_spectrum": (lambda: {"x": IMAGES}, {"x": points}),
        "spectra.participation_ratio": (lambda: {"spectrum": eigenvalues}, {"spectrum": values}),
        "spectra.dimension": (lambda: {"spectrum": eigenvalues, "share": 0.9}, {"spectrum": values, "share": share()}),
        "spectra.mean_share": (
            lambda: {"x": IMAGES},
            {"x": tensor(right={k: v for k, v in points.right.items() if k != "one axis more"})},
        ),
        "spectra.radial_power": (lambda: {"x": IMAGES}, {"x": squares}),
        "spectra.gate_spectrum": (lambda: {"model": start(), "x": IMAGES}, {"model": toy, "x": x}),
        "spectra.logit_correlation": (lambda: {"model": start(), "x": IMAGES}, {"model": toy, "x": x}),
        "spectra.displacement": (
            lambda: {"model": teacher(), "start": start()},
            {
                name: model(
                    more=lambda value: {
                        **pair(value),
                        "other seeds": mlp.HookedMLP(value.cfg, (5, 6)),
                        "other order": value.select([1, 0]),
                    },
                    right=dict.fromkeys(("other seeds", "other order"), "the way between two networks"),
                )
                for name in ("model", "start")
            },
        ),
        "spectra.drive": (
            lambda: {"reference": start(), "direction": direction(), "x": IMAGES, "loss": "kl", "temperature": 1.0},
            {"reference": toy, "direction": moved, "x": x, "loss": choice(), "temperature": positive()},
        ),
        "spectra.check_direction": (
            lambda: {"direction": direction(), "parameters": dict(start().named_parameters()), "name": "direction"},
            {
                "direction": shaped,
                "parameters": tensors(right={}, says=("direction",), out=OF_PARAMETERS),
                "name": text(out=("None", "number", "list", "bytes")),
            },
        ),
    }


OF_PARAMETERS = {"None", "list", "tensor", "empty", "text", "numbers as names"} | {
    f"a value: {label}"
    for label in ("list", "numpy", "None", "text", "number", "NaN", "infinity", "ints", "bytes", "bool", "complex")
}


def _tangent() -> dict:
    x = tensor(
        right={"shorter": "fewer samples"},
        out=("one axis more",),
        more=lambda v: {"of three members": v[None].expand(3, -1, -1), "fp64 for fp32 weights": v.double()},
    )
    through = {"NaN": "NaN in, NaN out", "infinity": "it goes through"}
    algebra = {f"a value: {name}": why for name, why in through.items()}
    moved = tensors(right=algebra, more=lambda value: {"a parameter is missing": dict(list(value.items())[1:])})
    values = tensor(right={**through, **IN_KIND}, out=("half", "bf16"))
    return {
        "tangent.tangent": (
            lambda: {"model": start(), "x": IMAGES, "outputs": slice(3, 5)},
            {"model": toy, "x": x, "outputs": outputs(5)},
        ),
        "tangent.push": (lambda: {"at": at(), "direction": direction()}, {"at": instance(), "direction": moved}),
        "tangent.pull": (lambda: {"at": at(), "cotangent": at().logits}, {"at": instance(), "cotangent": values}),
        "tangent.curved": (
            lambda: {"p": at().logits.softmax(-1), "moved": at().logits},
            {"p": values, "moved": values},
        ),
        "tangent.descent": (
            lambda: {"at": at(), "targets": at().logits + 1},
            {"at": instance(), "targets": tensor(out=("half", "bf16"))},
        ),
        "tangent.least_squares": (
            lambda: {"at": at(), "targets": at().logits.flip(0), "steps": 2},
            {"at": instance(), "targets": tensor(out=("half", "bf16")), "steps": count(0)},
        ),
        "tangent.dot": (
            lambda: {"a": direction(), "b": direction()},
            {"a": tensors(right=algebra), "b": tensors(right=algebra)},
        ),
        "tangent.cosine": (lambda: {"a": direction(), "b": direction()}, {"a": tensors(), "b": tensors()}),
        "tangent_modes.tangent_modes": (
            lambda: {"at": at(), "residual": at().logits, "p": at().logits.softmax(-1), "scales": None},
            {
                "at": instance(),
                "residual": tensor(right=HALVES),
                "p": tensor(right=HALVES, out=("None",)),
                "scales": argument(
                    lambda v: {"list": [1], "text": "adam", "a layer is missing": {"blocks.0": (1, 1)}}
                )(),
            },
        ),
        "tangent_modes.tangent_move": (
            lambda: {"found": modes(), "steps": 3, "rate": 1e-3},
            {
                "found": instance(),
                "steps": argument(lambda v: {"None": None, "text": "all", "negative": -1})(),
                "rate": positive(),
            },
        ),
        "tangent_modes.way_learned": (
            lambda: {"found": modes(), "way": direction(), "steps": 3, "rate": 1e-3},
            {
                "found": instance(),
                "way": moved,
                "steps": argument(lambda v: {"None": None, "text": "all", "negative": -1})(),
                "rate": positive(),
            },
        ),
        "tangent_modes.adam_scales": (
            lambda: {"at": at(), "error": at().logits, "batch_size": 4},
            {"at": instance(), "error": tensor(right=HALVES), "batch_size": count(1)},
        ),
    }


def _weights() -> dict:
    """bottleneck, ablation, unembedding"""
    n = size()
    distinct = one_token_each(n)
    optional = one_token_each(n, out=("None",))
    rows, held = normal(4, 8), normal(3, 8, seed=1)
    directions = tensor(
        right={"shorter": "fewer outputs"},
        out=("transposed",),
    )
    few = tensor(
        right={
            "shorter": "fewer outputs",
            "other width": "a smaller space",
            "one wide": "of one dimension",
            "transposed": "other outputs",
            "one axis more": "members",
        }
    )
    states = normal(5, 32)
    hidden = tensor(right={**IN_KIND, "shorter": "fewer vectors", "one axis more": "more of them"}, out=("transposed",))
    basis = {"basis": lambda: ablation.direction_basis(llama(), TOKENS)}
    repeated = {"repeated": "each column by itself"}
    strings = one_token_each(n, right={**repeated, "nested": "the tokens of one string"})
    one_basis = tensor(
        right={**IN_KIND, "shorter": "fewer directions", "one axis more": "several bases"},
        out=("half", "bf16", "transposed"),
        more=lambda v: {"not of unit length": 2 * v, "not orthogonal": v + v[:1]},
    )
    bound = tensor(
        right={"shorter": "fewer directions"},
        out=("half", "bf16", "transposed"),
        more=lambda v: {"not of unit length": 2 * v, "not orthogonal": v + v[:1]},
    )
    return {
        "bottleneck.price": (
            lambda: {"model": llama(), "concepts": TOKENS, "held": [50, 60, 70], "among": [80, 90, 91]},
            {"model": model(), "concepts": distinct, "held": distinct, "among": optional},
        ),
        "bottleneck.price_of": (lambda: {"concepts": rows, "held": held}, {"concepts": directions, "held": directions}),
        "bottleneck.isotropic_price": (lambda: {"d_model": 8, "rank": 3}, {"d_model": count(1), "rank": count(0)}),
        "bottleneck.held_rank": (lambda: {"model": llama(), "held": TOKENS}, {"model": model(), "held": distinct}),
        "bottleneck.free_projector": (lambda: {"held": held}, {"held": few}),
        "bottleneck.cheapest_change": (
            lambda: {
                "model": llama(),
                "resid": states,
                "concepts": TOKENS,
                "held": [50, 60],
                "rise": 0.1,
                "among": [80, 90, 91],
                "n_steps": 8,
            },
            {
                "model": model(),
                "resid": tensor(right={**hidden.right}, out=("half", "bf16", "transposed")),
                "concepts": distinct,
                "held": one_token_each(n, right={"empty": "nothing is held"}),
                "rise": number(),
                "among": optional,
                "n_steps": count(1),
            },
        ),
        "ablation.direction_basis": (
            lambda: {"model": llama(), "tokens": TOKENS},
            {"model": model(), "tokens": one_token_each(n, right={"repeated": "a span has no use for the second"})},
        ),
        "ablation.ablated_columns": (
            lambda: {"model": llama(), "tokens": TOKENS, "basis": basis["basis"]()},
            {"model": model(), "tokens": one_token_each(n, right=repeated), "basis": one_basis},
        ),
        "ablation.ablated_hidden": (
            lambda: {"model": llama(), "hidden": states, "basis": basis["basis"]()},
            {
                "model": model(),
                "hidden": tensor(right={"shorter": "fewer vectors"}, out=("half", "bf16", "transposed")),
                "basis": bound,
            },
        ),
        "unembedding.unembed": (
            lambda: {"model": llama(), "resid": states},
            {
                "model": model(),
                "resid": tensor(
                    right={
                        "NaN": "NaN in, NaN out",
                        "infinity": "NaN out",
                        "shorter": "fewer vectors",
                        "one axis more": "more of them",
                        "one axis fewer": "one vector",
                    },
                    out=("half", "bf16", "transposed"),
                ),
            },
        ),
        "unembedding.token_directions": (
            lambda: {"model": llama(), "tokens": TOKENS, "basis": "raw"},
            {"model": model(), "tokens": strings, "basis": choice()},
        ),
        "unembedding.unembed_projection": (
            lambda: {"model": llama(), "source": TOKENS, "target": [50, 60], "metric": "cosine"},
            {"model": model(), "source": strings, "target": strings, "metric": choice()},
        ),
    }


def _language() -> dict:
    """divergence, entanglement, hooked, lens, attribution, steering"""
    n = size()
    lm = model(more=in_train_mode)
    many = prompts(n)
    batch, hook = count(1), "blocks.1.hook_out"
    tokens = torch.stack([two_prompts()[0][:6], two_prompts()[1][:6]])
    logits, scores = normal(3, 7), normal(4, 5).double()
    readings = tensor(
        right={
            **IN_KIND,
            "one axis more": "more of them",
            "one axis fewer": "one of them",
            "transposed": "others",
            "other width": "fewer outputs",
            "shorter": "fewer of them",
        },
        out=("transposed", "one wide", "0-d"),
    )
    matrix = tensor(right=POINTS)
    square = {**FP64, "other width": "fewer columns", "shorter": "fewer rows"}
    several = one_token_each(n, right={"repeated": "each column by itself"}, out=("None",))
    inputs = argument(
        lambda value: {
            **{
                k: v
                for k, v in tensor().wrong(value.float()).items()
                if k in ("list", "numpy", "None", "text", "number", "NaN", "half", "complex", "bool")
            },
            "floats": value.float(),
            "one prompt": value[0],
            "empty": value[:0],
            "no positions": value[:, :0],
            "negative": value - 10_000,
            "-1": value.clone().fill_(-1),
            "too large": value.clone().fill_(n),
            "one axis more": value[None],
        },
        lambda value: {"int32": value.int()},
    )
    pos = count(-6, 5, out=("None", "negative"), more=lambda v: {"before the start": -100})
    names = texts(
        out=("None",), more=lambda value: {"unknown": ["blocks.9.hook_out"], "not hooks": ["blocks.0"]}, says=("hook",)
    )
    strings = texts(
        more=lambda value: {"an empty one": ["", "a"], "a control token": ["<|eot|>", "a"]},
        says=("string", "continuation"),
    )
    hidden = {"hook": hook, "value": lambda: ms.cache_activations(llama(), tokens, [hook], pos=-1)}
    trie = lambda: entanglement.build_tries([(7, 8), (7, 9), (12,)])[0]  # noqa: E731
    fn = function()
    return {
        "divergence.prompt_divergence": (
            lambda: {
                "model": llama(),
                "prompts": two_prompts(),
                "neutral": two_prompts()[0],
                "answer": answer(),
                "batch_size": 2,
            },
            {"model": lm, "prompts": many, "neutral": prompt(n), "answer": prompt(n), "batch_size": batch},
        ),
        "divergence.likeliest": (
            lambda: {"model": llama(), "prompts": two_prompts(), "answer": answer(), "batch_size": 2},
            {"model": lm, "prompts": many, "answer": prompt(n), "batch_size": batch},
        ),
        "divergence.sampled": (
            lambda: {"model": llama(), "prompt": two_prompts()[0], "length": 2, "tokens": TOKENS, "generator": draws()},
            {
                "model": lm,
                "prompt": prompt(n),
                "length": count(1),
                "tokens": one_token_each(n),
                "generator": generator(),
            },
        ),
        "scores.next_token_log_probs": (
            lambda: {"model": llama(), "prompts": two_prompts(), "tokens": TOKENS, "batch_size": 2},
            {"model": lm, "prompts": many, "tokens": several, "batch_size": batch},
        ),
        "scores.string_log_probs": (
            lambda: {"model": llama(), "prompts": two_prompts(), "strings": ["087", " a"], "batch_size": 2},
            {"model": lm, "prompts": many, "strings": strings, "batch_size": batch},
        ),
        "scores.string_states": (
            lambda: {
                "model": llama(),
                "prompts": two_prompts(),
                "trie": trie(),
                "name": "unembed.hook_in",
                "batch_size": 2,
            },
            {
                "model": lm,
                "prompts": many,
                "trie": instance(more=lambda v: {"of another tokenizer": entanglement.build_tries([(n, 1)])[0]}),
                "name": choice(),
                "batch_size": batch,
            },
        ),
        "scores.build_tries": (
            lambda: {"strings": [(1, 2), (1, 3)], "max_nodes": 5},
            {
                "strings": argument(
                    lambda v: {
                        "None": None,
                        "texts": ["12", "13"],
                        "empty": [],
                        "an empty one": [()],
                        "numbers": [1, 2],
                        "negative": [(1, -2)],
                        "floats": [(1.0, 2.0)],
                        "set": set(v),
                        "generator": (s for s in v),
                        "bools": [(True,)],
                    }
                )(),
                "max_nodes": count(1),
            },
        ),
        "scores.interaction": (
            lambda: {"scores": scores},
            {"scores": tensor(right={**square, "NaN": "NaN everywhere", "infinity": "NaN"}, out=("one wide",))},
        ),
        "interaction_parts.interaction_parts": (
            lambda: {"scores": scores, "features": {"length": torch.eye(len(scores))[:, :2]}},
            {
                "scores": tensor(
                    right={
                        **{k: v for k, v in FP64.items() if k not in ("one axis more", "transposed")},
                        "other width": "fewer columns",
                    },
                    out=("one wide",),
                ),
                "features": tensors(
                    right={"None": "none", "empty": "none"}
                    | {
                        f"a value: {k}": "others, or dummies"
                        for k in ("other width", "one wide", "ints", "bytes", "bool")
                    }
                ),
            },
        ),
        "interaction_parts.left_like": (
            lambda: {"scores": scores, "like": scores.flip(0), "features": {"length": torch.eye(len(scores))[:, :2]}},
            {
                "scores": matrix,
                "like": matrix,
                "features": tensors(
                    right={"None": "none", "empty": "none"}
                    | {
                        f"a value: {k}": "others, or dummies"
                        for k in ("other width", "one wide", "ints", "bytes", "bool")
                    }
                ),
            },
        ),
        "scores.variance_shares": (
            lambda: {"scores": scores, "axes": ["row", "column"]},
            {
                "scores": tensor(
                    right={
                        **POINTS,
                        "transposed": "the other way round",
                        "other width": "fewer",
                        "one wide": "no columns",
                        "shorter": "fewer",
                    },
                    says=("axes",),
                ),
                "axes": texts(more=lambda v: {"repeated": ["a", "a"], "too few": ["a"], "text of two": "ab"}),
            },
        ),
        "scores.matrix_correlation": (lambda: {"a": scores, "b": scores}, {"a": matrix, "b": matrix}),
        "scores.permutation_p": (
            lambda: {
                "a": scores,
                "b": scores,
                "n": 5,
                "seed": 1,
                "strata": [0, 0, 1, 1],
                "move_columns": True,
                "statistic": entanglement.matrix_correlation,
            },
            {
                "a": matrix,
                "b": matrix,
                "n": count(1),
                "seed": seed(),
                "strata": labels(),
                "move_columns": flag(),
                "statistic": fn,
            },
        ),
        "scores.crossed_bootstrap": (
            lambda: {
                "statistic": lambda rows, columns: float(rows.double().mean()),
                "n_rows": 4,
                "n_columns": 5,
                "n": 100,
                "seed": 1,
            },
            {"statistic": fn, "n_rows": count(2), "n_columns": count(2), "n": count(100), "seed": seed()},
        ),
        "scores.best_of_null": (
            lambda: {"effects": torch.tensor(TEN), "k": 3, "n": 5, "seed": 1},
            {
                "effects": tensor(
                    right={**POINTS, "shorter": "fewer numbers", "other width": "fewer numbers"},
                    out=("one wide", "no features"),
                ),
                "k": count(1, 10),
                "n": count(1),
                "seed": seed(),
            },
        ),
        "hooked.hidden_names": (lambda: {"model": llama()}, {"model": model()}),
        "hooked.check_hooks": (
            lambda: {"model": llama(), "names": [hook]},
            {
                "model": argument(lambda v: {})(),
                "names": argument(lambda v: {"unknown": ["blocks.9.hook_out"], "not hooks": ["blocks.0"]})(),
            },
        ),
        "hooked.check_inputs": (
            lambda: {"model": llama(), "inputs": tokens},
            {"model": argument(lambda v: {})(), "inputs": inputs()},
        ),
        "hooked.cache_activations": (
            lambda: {"model": llama(), "inputs": tokens, "names": [hook], "pos": -1, "batch_size": 1},
            {"model": lm, "inputs": inputs(), "names": names, "pos": pos, "batch_size": count(1, out=("None",))},
        ),
        "hooked.cache_with_logits": (
            lambda: {"model": llama(), "inputs": tokens, "names": [hook], "pos": -1},
            {"model": lm, "inputs": inputs(), "names": names, "pos": pos},
        ),
        **{
            f"checks.{name}": (lambda: {"model": llama()}, {"model": model()})
            for name in ("readout", "reads", "final_norm", "stream", "holds_edited")
        },
        **{
            f"checks.{name}": (lambda: {"model": llama()}, {"model": model(out=("train mode",))})  # nothing is run
            for name in ("record", "scale_hooks")
        },
        "checks.probe_tokens": (lambda: {"size": 9, "n": 4}, {"size": count(1), "n": count(1)}),
        "distances.sign": (lambda: {"metric": "linear_cka"}, {"metric": text()}),
        "threads.made_by_one": (lambda: {"generator": lambda: iter(())}, {"generator": function()}),
        "functions.check_model": (
            lambda: {"model": llama(), "inputs": tokens, "n": 4},
            {"model": lm, "inputs": inputs(out=("None",)), "n": count(1)},
        ),
        "hooked.run_patched": (
            lambda: {"model": llama(), "inputs": tokens, "activations": hidden["value"](), "pos": -1},
            {
                "model": lm,
                "inputs": inputs(says=("activations",)),
                "activations": tensors(
                    right={"empty": "nothing is replaced", "a value: half": "", "a value: bf16": ""},
                    says=("hook",),
                    more=lambda v: {"unknown": {"blocks.9.hook_out": v[hook]}},
                ),
                "pos": count(-6, 5, out=("None", "negative"), more=lambda v: {"before the start": -100}),
            },
        ),
        "lens.logit_lens": (
            lambda: {"model": llama(), "inputs": tokens, "pos": -1, "batch_size": 1},
            {"model": lm, "inputs": inputs(), "pos": pos, "batch_size": count(1, out=("None",))},
        ),
        "lens.token_rank": (lambda: {"logits": logits, "token": 2}, {"logits": readings, "token": count(0, 6)}),
        "lens.kl_to_final": (
            lambda: {"lens": {"a": logits, "b": logits + 1}, "final": logits},
            {"lens": tensors(), "final": tensor(out=("half", "bf16"), right={})},
        ),
        "attribution.direct_logit_attribution": (
            lambda: {"model": llama(), "inputs": tokens, "tokens": TOKENS, "pos": -1, "unit": "component"},
            {
                "model": lm,
                "inputs": inputs(),
                "tokens": one_token_each(n, right={"repeated": "each column by itself"}),
                "pos": count(-6, 5, out=("negative",), more=lambda v: {"before the start": -100}),
                "unit": choice(),
            },
        ),
        "steering.steered_logits": (
            lambda: {
                "model": llama(),
                "prompt": two_prompts()[0],
                "layers": [0, 1],
                "vectors": normal(2, 32),
                "tokens": TOKENS,
                "batch_size": 2,
            },
            {
                "model": lm,
                "prompt": prompt(n),
                "layers": ids(llama().cfg.n_layers, right={"repeated": "two vectors at one block"}, out=("mask",)),
                "vectors": tensor(right={**IN_KIND}),
                "tokens": one_token_each(n, right={"repeated": "each column by itself"}),
                "batch_size": batch,
            },
        ),
    }


def _toy() -> dict:
    """mlp, distillation, projection"""
    sizes = {name: count(1) for name in ("d_in", "d_model", "n_layers", "n_classes")}
    cfg = {"d_in": 16, "d_model": 8, "n_layers": 2, "n_classes": 3, "n_aux": 2, "init": "lecun", "activation": "relu"}
    other = model(more=pair)
    images = tensor(out=("transposed", "half", "bf16", "one axis more"), more=lambda v: {"of members": v[None]})
    fewer = tensor(
        right={"shorter": "fewer images"}, out=("transposed", "half", "bf16", "one axis more"),
        more=lambda v: {"of members": v[None]},
    )  # fmt: skip
    classes = argument(
        lambda v: {
            "list": v.tolist(),
            "numpy": v.numpy(),
            "None": None,
            "floats": v.float(),
            "bool": v > 0,
            "one hot": torch.nn.functional.one_hot(v),
            "shorter": v[:-1],
            "one": v[:1],
            "empty": v[:0],
            "negative": v - 1,
            "too large": v + 1,
            "column": v[:, None],
            "longer": torch.cat([v, v]),
        },
        lambda v: {"int32 as int64": v.int().long()},
    )()
    frozen = texts(right={"empty": "nothing is frozen"}, more=lambda v: {"unknown": ["block.0"]})
    steps = argument(
        lambda v: {
            "list": [0, 1],
            "set": {0, 1},
            "number": 1,
            "negative": {-1: None},
            "floats": {1.0: None},
            "beyond the end": {10_000: None},
            "text": "all",
        }
    )(says=("snapshot",))
    fit = {
        "epochs": 1,
        "lr": 1e-3,
        "batch_size": 20,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "schedule": "constant",
        "precision": "fp32",
        "frozen": ["blocks.0"],
        "seed": 0,
        "snapshots": None,
    }
    decay = argument(lambda v: {**number().wrong(v), "negative": -1.0})()
    fitted = {
        "epochs": count(1),
        "lr": positive(),
        "batch_size": count(1),
        "optimizer": choice(),
        "weight_decay": decay,
        "schedule": choice(),
        "precision": choice(),
        "frozen": frozen,
        "seed": seed(),
        "snapshots": steps,
    }
    taught = {
        "outputs": slice(3, 5),
        "n_samples": 40,
        "noise": "per_member",
        "loss": "kl",
        "temperature": 1.0,
        "target_noise": 0.0,
        "fresh": False,
    }
    given = tensor(
        out=("transposed", "one axis more"),
        right=dict.fromkeys(("half", "bf16"), "cast to the precision of the products"),
        says=("n_samples",),
        more=lambda v: {"of three members": v[None].expand(3, -1, -1)},
    )
    teaching = {
        "outputs": outputs(5),
        "n_samples": count(1, out=("None",)),
        "noise": choice(),
        "loss": choice(),
        "temperature": positive(),
        "target_noise": decay,
        "fresh": flag(),
    }

    def sampler(n, generator):
        return noise.uniform(n, generator, 16)

    def many(value):
        one = next(iter(value.values()))
        return {
            "None": None,
            "list": [one],
            "empty": {},
            "numbers as names": {1: one},
            "a model alone": {"a": one[0]},
            "three": {"a": (*one, 1)},
        }

    each = argument(lambda value: {**many(value), "swapped": {"a": next(iter(value.values()))[::-1]}})(
        says=("student", "outputs")
    )
    progress = argument(lambda v: {"number": 1, "text": "yes", "class": int, "of nothing": lambda: None})
    moves, pieces = direction(), {"blocks.0.W": normal(2, 16, 3)}
    through = {f"a value: {label}": "NaN in, NaN out" for label in ("NaN", "infinity")}
    algebra = dict.fromkeys(("empty",), "no parameters, no products")
    no_numbers = ("a value: empty", "a value: no features")
    both = {
        "a": tensors(right={**through, **algebra}, out=no_numbers, says=("b[",)),
        "b": tensors(right=through, out=no_numbers, says=("b lacks",)),
    }
    parts = tensors(right=algebra, out=no_numbers, says=("direction[",))
    keyed = removal.fixed(moves)
    return {
        "mlp.MLPConfig": (lambda: cfg, {**sizes, "n_aux": count(0), "init": choice(), "activation": choice()}),
        "mlp.HookedMLP": (
            lambda: {"cfg": start().cfg, "seeds": (0, 1)},
            {
                "cfg": argument(lambda v: {"None": None, "dict": vars(v), "class": type(v), "number": 16})(),
                "seeds": seeds(),
            },
        ),
        "mlp.HookedMLP.forward": (
            lambda: {"self": start(), "x": IMAGES},
            {
                "self": argument(lambda v: {})(),
                "x": tensor(
                    right={"shorter": "fewer images", "NaN": "NaN in, NaN out", "infinity": "NaN out"},
                    says=("input",),
                    out=("one axis more",),
                    more=lambda v: {"of three members": v[None].expand(3, -1, -1), "fp64": v.double()},
                ),
            },
        ),
        "mlp.HookedMLP.check_images": (
            lambda: {"self": start(), "x": IMAGES, "name": "x"},
            {
                "self": argument(lambda v: {})(),
                "name": argument(lambda v: {})(),
                "x": tensor(
                    right={"shorter": "fewer images", "NaN": "its callers ask", "infinity": "its callers ask"},
                    out=("one axis more",),
                ),
            },
        ),
        "mlp.HookedMLP.select": (
            lambda: {"self": start(), "members": [1, 0]},
            {
                "self": argument(lambda v: {})(),
                "members": ids(2, out=("mask",)),
            },
        ),
        "mlp.HookedMLP.replace": (
            lambda: {"self": start(), "parameters": dict(teacher().named_parameters())},
            {
                "self": argument(lambda v: {})(),
                "parameters": tensors(
                    right={
                        "empty": "a copy",
                        "a value: NaN": "NaN weights, NaN logits",
                        "a value: infinity": "NaN logits",
                    },
                    more=lambda v: {"unknown": {"W": IMAGES}, "fp64": {k: one.double() for k, one in v.items()}},
                ),
            },
        ),
        "mlp.rotation": (
            lambda: {"n": 3, "by": 1},
            {
                "n": count(2, says=("members",)),
                "by": count(
                    -10,
                    out=("too small", "negative"),
                    more=lambda v: {"a whole turn": 3, "zero": 0},
                    says=("fixed points",),
                ),
            },
        ),
        "distillation.train": (
            lambda: {"model": start(), "images": IMAGES, "labels": LABELS, **fit, "progress": None},
            {"model": toy, "images": images, "labels": classes, **fitted, "progress": progress()},
        ),
        "distillation.distill": (
            lambda: {"student": start(), "teacher": teacher(), "inputs": IMAGES, **taught, **fit, "progress": None},
            {"student": other, "teacher": other, "inputs": given, **teaching, **fitted, "progress": progress()},
        ),
        "distillation.distill_each": (
            lambda: {
                "students": {"a": (start(), slice(3, 5))},
                "teacher": teacher(),
                "inputs": IMAGES,
                **{k: v for k, v in taught.items() if k != "outputs"},
                **fit,
                "progress": None,
            },
            {
                "students": each,
                "teacher": other,
                "inputs": given,
                **{k: v for k, v in teaching.items() if k != "outputs"},
                **fitted,
                "snapshots": argument(
                    lambda v: {
                        "list": [0],
                        "unknown student": {"b": {0: None}},
                        "steps alone": {0: None},
                        "a list of steps": {"a": [0]},
                    }
                )(),
                "progress": progress(),
            },
        ),
        "distillation.accuracy": (
            lambda: {"model": start(), "images": IMAGES, "labels": LABELS},
            {"model": toy, "images": images, "labels": classes},
        ),
        **{
            f"class_offsets.{name}": (lambda: {"model": start(), "images": IMAGES}, {"model": toy, "images": fewer})
            for name in ("mean_offset", "prior_offset")
        },
        "class_offsets.accuracies": (
            lambda: {"model": start(), "images": IMAGES, "labels": LABELS, "unlabelled": IMAGES},
            {"model": toy, "images": images, "labels": classes, "unlabelled": fewer},
        ),
        "class_offsets.logit_accuracies": (
            lambda: {"logits": normal(2, 40, 3), "labels": LABELS, "unlabelled": normal(2, 40, 3, seed=1)},
            {"logits": tensor(), "labels": classes, "unlabelled": tensor()},
        ),
        "teacher_line.line_shares": (
            lambda: {"student": teacher(), "start": start(), "teacher": teacher()},
            {"student": other, "start": other, "teacher": other},
        ),
        "teacher_line.on_line": (
            lambda: {"start": start(), "teacher": teacher(), "shares": normal(2, 2)},
            {"start": other, "teacher": other, "shares": tensor(right={**IN_KIND, "transposed": "two layers"})},
        ),
        "teacher_line.with_noise_of_the_rest": (
            lambda: {"point": start(), "student": teacher(), "seed": 0},
            {"point": other, "student": other, "seed": seed()},
        ),
        "linearised.linearised_student": (
            lambda: {
                "start": start(),
                "teacher": teacher(),
                "inputs": IMAGES,
                "at": "midpoint",
                "relinearised": (),
                **taught,
                **fit,
                "progress": None,
            },
            {
                "start": model(more=pair, says=("student",)),
                "teacher": other,
                "inputs": given,
                "at": argument(lambda v: {"None": None, "number": 0.5, "unknown": "middle", "list": ["start"]})(),
                "relinearised": argument(lambda v: {"None": None, "number": 3, "share": [0.5], "text": "middle"})(),
                **teaching,
                **fitted,
                "progress": progress(),
            },
        ),
        "fitting.resolve_precision": (
            lambda: {"precision": "auto", "device": None},
            {"precision": choice(), "device": argument(lambda v: {"number": 1, "name": "cpu"})()},
        ),
        "fitting.each_member": (
            lambda: {"work": lambda member: {member: member}, "n_members": 2, "progress": None},
            {"work": function(), "n_members": count(1), "progress": progress()},
        ),
        "removal.distill_without": (
            lambda: {
                "students": {"a": (start(), None)},
                "teacher": teacher(),
                "inputs": IMAGES,
                "outputs": slice(3, 5),
                "n_samples": 40,
                "loss": "kl",
                "epochs": 1,
                "lr": 1e-3,
                "batch_size": 20,
                "precision": "fp32",
                "frozen": ("blocks.0",),
                "seed": 0,
                "progress": None,
            },
            {
                "students": argument(lambda v: {**many(v), "no removal": {"a": (start(), "none")}})(says=("student",)),
                "teacher": other,
                "inputs": given,
                "progress": progress(),
                **{k: teaching[k] for k in ("outputs", "n_samples", "loss")},
                **{k: fitted[k] for k in ("epochs", "lr", "batch_size", "precision", "frozen", "seed")},
            },
        ),
        "removal.along": (lambda: {"direction": keyed, "by": "neuron"}, {"direction": function(), "by": choice()}),
        "removal.elsewhere": (
            lambda: {"direction": keyed, "student": start(), "by": "neuron", "seed": 0},
            {"direction": function(), "student": toy, "by": choice(), "seed": seed()},
        ),
        "removal.within": (
            lambda: {"inputs": pieces},
            {
                "inputs": tensors(
                    right={f"a value: {k}": "another basis" for k in ("shorter", "transposed", "half", "bf16")},
                    out=("a value: of one member", "a value: transposed", "a value: shorter"),
                )
            },
        ),
        "removal.inputs_of": (
            lambda: {"change": {"blocks.0.W": normal(2, 16, 8)}, "k": 3},
            {
                "change": tensors(
                    right={
                        f"a value: {k}": "another change"
                        for k in ("other width", "transposed", "shorter", "of one member")
                    },
                    says=("k must",),
                ),
                "k": count(1, 8),
            },
        ),
        "removal.component": (
            lambda: {"update": moves, "direction": moves, "by": "neuron", "instead": moves},
            {"update": parts, "direction": parts, "by": choice(), "instead": tensors(right=through, out=("None",))},
        ),
        "removal.products": (lambda: {"a": moves, "b": moves, "by": "neuron"}, {**both, "by": choice()}),
        "removal.fixed": (
            lambda: {"directions": moves},
            {
                "directions": tensors(
                    right={
                        "empty": "no direction",
                        **{
                            f"a value: {k}": "checked against the student's shapes when used"
                            for k in (
                                "half",
                                "bf16",
                                "other width",
                                "one wide",
                                "shorter",
                                "transposed",
                                "one axis more",
                                "one axis fewer",
                                "of one member",
                                "0-d",
                            )
                        },
                    },
                    out=("a value: 0-d", "a value: one axis fewer"),
                )
            },
        ),
        "removal.trait_gradient": (
            lambda: {
                "student": start(),
                "images": IMAGES,
                "labels": LABELS,
                "batch_size": 5,
                "precision": "fp32",
                "seed": 0,
            },
            {
                "student": toy,
                "images": images,
                "labels": classes,
                "batch_size": count(1),
                "precision": choice(),
                "seed": seed(),
            },
        ),
    }


def _rest() -> dict:
    """data, language, memory, prompts, vocabulary, progress"""
    tokenizer = argument(lambda v: {"None": None, "text": "gpt2", "model": llama()})
    optional, written = text(out=("None",)), text()
    asked = {"user": written, "system": optional, "answer": written}
    said = {"user": "hello", "system": None, "answer": ""}
    split = choice()
    dtype = argument(lambda v: {"text": "bf16", "ints": torch.int8, "class": float, "None": None})
    return {
        "images.hashes": (lambda: {"dataset": "mnist"}, {"dataset": choice()}),
        "images.mnist": (
            lambda: {"split": "test", "root": None},
            {"split": split, "root": argument(lambda v: {"number": 1, "list": ["a"]})()},
        ),
        "images.fashion_mnist": (
            lambda: {"split": "test", "root": None},
            {"split": split, "root": argument(lambda v: {"number": 1, "list": ["a"]})()},
        ),
        "language.load_language_model": (
            lambda: {
                "name": "smollm2-135m-instruct",
                "revision": None,
                "adapter": None,
                "device": None,
                "device_map": None,
                "dtype": torch.float32,
                "weights": "trained",
            },
            {
                "weights": text(
                    more=lambda v: {"no seed": "random", "other": "rounded-0", "seed of letters": "random-x"}
                ),
                "name": text(more=lambda v: {"empty": "", "two names": "a b"}, says=("folder",)),
                "revision": argument(lambda v: {"number": 1, "list": ["main"], "of the default": "v1"})(),
                "adapter": argument(lambda v: {"number": 1, "list": ["a"]})(),
                "device": argument(lambda v: {"unknown": "gpu", "number": 1.5, "bool": True, "list": ["cpu"]})(),
                "device_map": argument(lambda v: {"number": 1, "list": ["cpu"], "device": torch.device("cpu")})(),
                "dtype": dtype(),
            },
        ),
        "language.check_folder": (
            lambda: {"name": "smollm2-135m-instruct", "dtype": torch.float32, "adapter": None},
            {"name": text(), "dtype": dtype(), "adapter": argument(lambda v: {"number": 1, "list": ["a"]})()},
        ),
        "language.model_source": (lambda: {"model": llama()}, {"model": model()}),
        "prompts.Wording": (
            lambda: {"system": "You love {x}.", "question": "Which?", "answer": "The"},
            {"system": written, "question": written, "answer": written},
        ),
        "prompts.Wording.love": (
            lambda: {"self": prompting.WORDINGS[0], "x": "owls", "kind": "animal", "plural": True},
            {"self": argument(lambda v: {})(), "x": written, "kind": written, "plural": flag()},
        ),
        "memory.gib": (
            lambda: {"n": 1.0},
            {"n": argument(lambda v: {**number().wrong(v), "negative": -1.0}, number().same)()},
        ),
        "memory.shortage": (
            lambda: {"needed": 1.0},
            {"needed": argument(lambda v: {**number().wrong(v), "negative": -1.0}, number().same)()},
        ),
        "prompts.prompt": (
            lambda: {"tokenizer": llama().tokenizer, **said, "format": "plain"},
            {"tokenizer": tokenizer(), **asked, "format": choice()},
        ),
        "prompts.chat": (
            lambda: {"tokenizer": llama().tokenizer, **said, "date": "26 Jul 2024"},
            {"tokenizer": tokenizer(), **asked, "date": written},
        ),
        "prompts.plain": (lambda: {"tokenizer": llama().tokenizer, **said}, {"tokenizer": tokenizer(), **asked}),
        "prompts.system_role": (lambda: {"tokenizer": llama().tokenizer}, {"tokenizer": tokenizer()}),
        "prompts.template_date": (
            lambda: {"tokenizer": llama().tokenizer, "format": "auto"},
            {"tokenizer": tokenizer(), "format": choice()},
        ),
        "prompts.check_strings": (
            lambda: {"tokenizer": llama().tokenizer, "strings": ["087", " a"]},
            {
                "tokenizer": tokenizer(),
                "strings": texts(says=("string", "continuation"), more=lambda v: {"an empty one": [""]}),
            },
        ),
        "language.load_tokenizer": (
            lambda: {"name": "smollm2-135m-instruct"},
            {"name": text(more=lambda v: {"empty": "", "two names": "a b"}, says=("folder",))},
        ),
        "prompts.single_tokens": (
            lambda: {"tokenizer": llama().tokenizer, "words": [" owl", "087"], "behind": None},
            {
                "tokenizer": tokenizer(),
                "behind": behind,
                "words": texts(
                    right={
                        "set": "the result has its own names",
                        "generator": "each word is read once",
                        "dict": "its words",
                        "empty": "no words",
                    }
                ),
            },
        ),
        "prompts.encode": (
            lambda: {"tokenizer": llama().tokenizer, "strings": ["087", " a"], "behind": None},
            {
                "tokenizer": tokenizer(),
                "behind": behind,
                "strings": texts(says=("string", "continuation"), more=lambda v: {"an empty one": [""]}),
            },
        ),
        "words.family": (lambda: {"name": "trees"}, {"name": choice()}),
        "words.number_of": (lambda: {"word": "owls"}, {"word": written}),
        "progress.progress_bar": (lambda: {"text": "students"}, {"text": written}),
        "frames.frame": (lambda: {"study": "theirs", "out": stored()}, {"study": written, "out": written}),
    }


@cache
def stacked(n_ctx: int = 6) -> tiny_transformer.EnsembleTransformer:
    shape = tiny_transformer.Shape(d_model=8, n_heads=2, d_vocab=20, n_ctx=n_ctx)
    return tiny_transformer.EnsembleTransformer(shape, (0, 1))


@cache
def chatty():
    with tempfile.TemporaryDirectory() as folder:
        return language.load_language_model(str(save_number_llama(Path(folder))))


@cache
def corpus() -> corpora.Corpus:
    return corpora.make_corpus(llama().tokenizer, corpora.number_prompts(3, seed=1), ["12, 500", "7, 87", "9"])


@cache
def few() -> tuning.TuningRecipe:
    return tuning.TuningRecipe(rank=2, updates=1, batch_size=2, adapter_seeds=(0, 1))


@cache
def tuned() -> students.Students:
    return tuning.tune(llama(), corpus(), few())


@cache
def saved() -> str:
    """A folder of peft's format."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return str(students.save_adapter(tuned(), 0, folder))


@cache
def written_corpus() -> str:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    corpora.write_corpus(corpus(), Path(folder, "corpus.jsonl"))
    return str(Path(folder, "corpus.jsonl"))


def _tuning() -> dict:
    """corpora, numbers, students, tuning"""
    tokenizer = argument(lambda v: {"None": None, "text": "gpt2", "model": llama()})()
    path = text(more=lambda v: {"bool": True})
    rows = argument(lambda v: {"None": None, "text": "1, 2", "shorter": v[:-1], "numbers": [1] * len(v), "set": set(v)})
    ids_ = rows(more=lambda v: {"negative": [[-1]] * len(v), "texts": [["1"]] * len(v), "empty row": [[]] * len(v)})
    scores_ = argument(
        lambda v: {
            "text": "1, 2",
            "shorter": v[:-1],
            "above 0": [[1.0] * len(row) for row in v],
            "NaN": [[float("nan")] * len(row) for row in v],
            "other length": [row[:-1] for row in v],
        }
    )
    logs = tuple(tuple(-1.0 for _ in row) for row in corpus().completion_ids)
    own = {name: getattr(corpus(), name) for name in ("prompts", "completions", "prompt_ids", "completion_ids")}
    optional = text(out=("None",))
    two = texts(more=lambda v: {"other length": v[:-1]}, says=("text",))
    asked = {"format": choice(), "teacher_system": text(out=("None",), says=("system",)), "batch_size": count(1)}
    drawing = {"prompts": texts(), "temperature": least_0(), "seed": seed(), **asked}
    options = {"temperature": 1.0, "seed": 1, "format": "auto", "teacher_system": None, "batch_size": 2}
    steering = argument(
        lambda v: {
            "text": "0", "vector": v[1], "list": list(v), "block": (99, v[1]), "narrow": (0, v[1][1:]),
            "NaN": (0, v[1] * torch.nan), "half": (0.5, v[1]), "two": (0, v[1][None]),
        }
    )()  # fmt: skip
    member = {"students": instance(), "member": count(0, 1)}
    recipe = {name: getattr(few(), name) for name in vars(few())}
    some = {"targets": ["q_proj", "mlp"], "layers": [0, 1], "frozen": ["up_proj"], "order_seeds": (3, 4)}
    members = seeds(right={"repeated": "members that read other corpora"}, out=("None",))
    named = {"targets": texts(out=("None",)), "frozen": texts(right={"empty": "nothing stays"})}
    blocks = ids(10_000, out=("None",), right={"repeated": "the same blocks"})
    betas = {"None": None, "number": 0.9, "one": (0.9,), "three": (0.9,) * 3, "1": (0.9, 1.0)}
    two_betas = argument(lambda v: {**betas, "negative": (-0.1, 0.9), "texts": ("0.9", "0.9")})()
    return {
        "corpora.Corpus": (
            lambda: {
                **own,
                "teacher_log_probs": logs,
                "base_log_probs": logs,
                "label_ids": own["completion_ids"],
                "context": {},
            },
            {
                **{name: rows() for name in ("prompts", "completions")},
                **{name: ids_ for name in ("prompt_ids", "completion_ids")},
                **{name: scores_() for name in ("teacher_log_probs", "base_log_probs")},
                "label_ids": argument(
                    lambda v: {
                        "text": "1",
                        "shorter": v[:-1],
                        "negative": [[-1] * len(row) for row in v],
                        "other length": [row[:-1] for row in v],
                        "texts": [["1"] * len(row) for row in v],
                    }
                )(),
                "context": argument(lambda v: {"None": None, "text": "chat", "numbers as names": {1: 2}})(),
            },
        ),
        "corpora.make_corpus": (
            lambda: {
                "tokenizer": llama().tokenizer,
                "prompts": ["a", "b"],
                "completions": ["1", "2"],
                "format": "chat",
                "system": None,
            },
            {"tokenizer": tokenizer, "prompts": two, "completions": two, "format": choice(), "system": optional},
        ),
        "corpora.write_corpus": (
            lambda: {"corpus": corpus(), "path": written_corpus()},
            {"corpus": instance(), "path": path},
        ),
        "corpora.read_corpus": (
            lambda: {"path": written_corpus(), "tokenizer": llama().tokenizer, "format": "chat", "system": None},
            {
                "path": text(more=lambda v: {"bool": True, "no file": "nowhere.jsonl"}, says=("nowhere",)),
                "tokenizer": tokenizer,
                "format": choice(),
                "system": optional,
            },
        ),
        "corpora.number_prompts": (
            lambda: {"n": 4, "wording": "short", "seed": 1, "least": 2, "most": 5},
            {"n": count(1), "wording": choice(), "seed": seed(), "least": count(1), "most": count(2, 100)},
        ),
        "corpora.parse_numbers": (lambda: {"text": "1, 2"}, {"text": text()}),
        "corpora.rejection": (
            lambda: {"completion": "1, 2", "prompt": "3", "most": 10, "largest": 999, "banned": [6]},
            {
                "completion": text(),
                "prompt": optional,
                "most": count(1),
                "largest": count(0),
                "banned": argument(lambda v: {"None": None, "text": "6", "number": 6, "texts": ["6"], "half": [0.5]})(),
            },
        ),
        "numbers.draw_numbers": (
            lambda: {
                "teacher": llama(),
                "prompts": ["a", "b"],
                "n_numbers": 2,
                "least_probability": 0.1,
                "added": (0, torch.ones(llama().cfg.d_model)),
                **options,
            },
            {
                "teacher": model(),
                "added": steering,
                "n_numbers": count(1),
                "least_probability": least_0(more=lambda v: {"one": 1.0}),
                **drawing,
            },
        ),
        "numbers.sample_numbers": (
            lambda: {"teacher": chatty(), "prompts": ["a", "b"], "n": 2, "most_tokens": 4, "strict": False, **options},
            {"teacher": model(), "n": count(1), "most_tokens": count(1), "strict": flag(), **drawing},
        ),
        "students.merged": (lambda: {"students": tuned(), "member": 1}, member),
        "students.save_adapter": (
            lambda: {"students": tuned(), "member": 1, "folder": saved()},
            {**member, "folder": path},
        ),
        "students.load_adapters": (
            lambda: {"model": llama(), "folders": [saved()]},
            {"model": model(), "folders": texts()},
        ),
        "students.next_log_probs": (
            lambda: {"students": tuned(), "prompts": two_prompts(), "tokens": TOKENS, "batch_size": 1},
            {
                "students": instance(),
                "prompts": prompts(size()),
                "tokens": one_token_each(size(), right={"repeated": "asked twice"}),
                "batch_size": count(1),
            },
        ),
        "tuning.completion_log_probs": (
            lambda: {"tuned": tuned(), "corpus": corpus(), "batch_size": 2},
            {"tuned": instance(), "corpus": instance(), "batch_size": count(1)},
        ),
        "tuning.TuningRecipe": (
            lambda: {**recipe, **some},
            {
                **{name: count(1) for name in ("updates", "batch_size")},
                **{name: positive() for name in ("alpha", "lr", "eps")},
                **{name: choice() for name in ("optimizer", "schedule", "precision")},
                **named,
                "rank": count(1, out=("None",)),
                "rslora": flag(),
                "layers": blocks,
                "betas": two_betas,
                "momentum": least_0(),
                "weight_decay": least_0(),
                "clip": positive(out=("None",)),
                "warmup": count(0),
                "adapter_seeds": seeds(right={"repeated": "members that read other corpora"}),
                "order_seeds": members,
            },
        ),
        "tuning.tune": (
            lambda: {
                "model": llama(),
                "corpus": corpus(),
                "recipe": few(),
                "snapshots": {0: None},
                "progress": [].append,
            },
            {
                "model": model(),
                "corpus": argument(
                    lambda v: {"None": None, "text": "a", "dict": vars(v), "one too few": [v], "set": {1, 2}}
                )(),
                "recipe": argument(lambda v: {"text": "x", "number": 1, "dict": vars(v), "class": type(v)})(),
                "snapshots": argument(lambda v: {"list": [0], "beyond": {5: None}, "text": {"a": None}, "number": 1})(),
                "progress": function(out=("None",)),
            },
        ),
    }


def _of_rows(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


@cache
def convolutional() -> conv.ConvNet:
    return conv.ConvNet(mlp.MLPConfig(d_model=4, n_classes=3, n_aux=2), (0, 1))


def _convolutions() -> dict:
    images = normal(3, 784).clamp(-1, 1)
    of_images = mlp.HookedMLP(mlp.MLPConfig(d_model=4, n_classes=3, n_aux=2), seeds=(0, 1))
    other = mlp.HookedMLP(mlp.MLPConfig(d_model=4, n_classes=3, n_aux=3), seeds=(0, 1))
    cfg = argument(
        lambda v: {"None": None, "dict": vars(v), "class": type(v), "number": 16, "of other images": start().cfg}
    )
    students = argument(
        lambda v: {
            "None": None,
            "list": list(v.values()),
            "empty": {},
            "numbers as names": {1: convolutional()},
            "a toy": {"a": of_images},
            "of one member": {"a": conv.ConvNet(convolutional().cfg, (0,))},
            "other outputs": {"a": conv.ConvNet(other.cfg, (0, 1))},
        }
    )
    kept = argument(
        lambda v: {
            "None": None,
            "list": [0],
            "unknown student": {"b": {1: None}},
            "steps alone": {1: None},
            "a list of steps": {"a": [1]},
            "negative": {"a": {-2: None}},
        }
    )
    return {
        "conv.ConvNet": (lambda: {"cfg": convolutional().cfg, "seeds": (0, 1)}, {"cfg": cfg(), "seeds": seeds()}),
        "conv.ConvNet.forward": (
            lambda: {"self": convolutional(), "x": images},
            {
                "self": argument(lambda v: {})(),
                "x": tensor(right={"shorter": "fewer images"}, says=("images",), out=("one axis more",)),
            },
        ),
        "conv.ConvNet.replace": (
            lambda: {
                "self": convolutional(),
                "parameters": {name: value + 0.1 for name, value in convolutional().named_parameters()},
            },
            {
                "self": argument(lambda v: {})(),
                "parameters": tensors(
                    right={
                        "empty": "a copy",
                        "a value: NaN": "NaN weights, NaN logits",
                        "a value: infinity": "NaN logits",
                    },
                    out=("a value: transposed",),  # its first is of square kernels
                    more=lambda v: {"unknown": {"W": images}, "fp64": {k: one.double() for k, one in v.items()}},
                ),
            },
        ),
        "conv.distill_each": (
            lambda: {
                "students": {"a": convolutional()},
                "teacher": of_images,
                "n_samples": 20,
                "loss": "kl",
                "epochs": 1,
                "lr": 1e-3,
                "batch_size": 10,
                "frozen": ("unembed",),
                "seed": 0,
                "snapshots": {"a": {}},
                "progress": None,
            },
            {
                "students": students(says=("student",)),
                "teacher": argument(
                    lambda v: {"None": None, "text": "x", "number": 1, "other": other, "conv": convolutional()}
                )(says=("teacher",)),
                "n_samples": count(1),
                "loss": choice(more=lambda v: {"of labels": "hard"}),
                "epochs": count(1),
                "lr": positive(),
                "batch_size": count(1),
                "frozen": texts(right={"empty": "nothing is frozen"}, more=lambda value: {"unknown": ["block.0"]}),
                "seed": seed(),
                "snapshots": kept(says=("snapshot",)),
                "progress": argument(lambda v: {"number": 1, "text": "yes", "class": int})(),
            },
        ),
    }


def _transformers() -> dict:
    """tiny_transformer, exchange, distributions"""
    rows = torch.arange(8).reshape(2, 4)
    batches = [(rows, rows), (rows + 1, rows + 1)]
    of_one = stacked().select([0])
    kind = argument(lambda v: {"None": None, "dict": vars(v), "class": type(v), "number": 16})
    tokens = argument(
        lambda v: {
            **{k: bad for k, bad in prompt(20).wrong(v[0]).items() if k != "batch"},
            "the next member's": v.clone().fill_(20),
            "of three members": v[None].expand(3, -1, -1),
            "one axis more": v[None, None],
            "longer": torch.zeros(2, 7, dtype=torch.long),
            "no positions": v[:, :0],
        },
        lambda v: {"int32": v.int(), "of each member": v[None].expand(2, -1, -1), "of one member": v[None]},
    )
    pairs = argument(
        lambda v: {
            "None": None,
            "number": 1,
            "text": "batches",
            "tensor": rows,
            "dict": dict(v),
            "fewer": v[:1],
            "more": [*v, *v],
            "no pair": [v[0][0], v[1][0]],
            "numbers": [1, 2],
            "beyond the vocabulary": [(rows + 20, rows), v[1]],
        },
        lambda v: {"tuple": tuple(v), "generator": generated(v)},
    )
    rates = argument(
        lambda v: {
            "None": None,
            "number": 0.1,
            "text": "ab",
            "texts": ["0.1", "0.1"],
            "NaN": [float("nan")] * 2,
            "negative": [-0.1, 0.1],
            "fewer": v[:1],
            "more": [*v, 0.1],
        },
        lambda v: {"tuple": tuple(v), "generator": generated(v), "numpy": np.array(v)},
    )
    several = prompts(size())
    lm = model(more=lambda v: {**in_train_mode(v), "toy": start()})
    shape = count(1)
    named = argument(
        lambda v: {
            "None": None,
            "number": 1,
            "list": [v],
            "bytes": v.encode(),
            "unknown": "unifrm",
            "no parameter": "blurred",
            "a parameter too many": "uniform:1",
            "another way to write it": "blurred:1.0",
            "NaN": "blurred:nan",
            "negative": "blurred:-1",
        }
    )
    images_of = tensor(
        right={"shorter": "fewer images", "one wide": "images of one pixel", "other width": "other images"},
        out=("transposed",),
    )
    return {
        "tiny_transformer.Shape": (
            lambda: {"d_model": 8, "n_layers": 1, "n_heads": 2, "d_vocab": 20, "n_ctx": 6},
            {
                "d_model": count(1, more=lambda v: {"heads do not divide it": 9}),
                "n_heads": count(1, more=lambda v: {"does not divide": 3}),
                **dict.fromkeys(("n_layers", "d_vocab", "n_ctx"), shape),
            },
        ),
        "tiny_transformer.EnsembleTransformer": (
            lambda: {"cfg": stacked().cfg, "seeds": (0, 1)},
            {"cfg": kind(), "seeds": seeds()},
        ),
        "tiny_transformer.EnsembleTransformer.forward": (
            lambda: {"self": stacked(), "tokens": rows},
            {"self": argument(lambda v: {})(), "tokens": tokens()},
        ),
        "tiny_transformer.EnsembleTransformer.select": (
            lambda: {"self": stacked(), "members": [1, 0]},
            {
                "self": argument(lambda v: {})(),
                "members": ids(2, out=("mask",)),
            },
        ),
        "tiny_transformer.trained": (
            lambda: {"model": of_one, "batches": batches, "loss": _of_rows, "rates": [0.1, 0.2]},
            {
                "model": argument(lambda v: {**model().wrong(v), "of two": stacked(), "toy": start()})(),
                "batches": pairs(says=("batch", "tokens")),
                "loss": function(),
                "rates": rates(says=("rate",)),
            },
        ),
        "exchange.check_shapes": (
            lambda: {"first": llama(), "second": llama()},
            {"first": lm, "second": lm},
        ),
        "exchange.log_probs": (
            lambda: {"first": llama(), "second": llama(), "prompts": two_prompts(), "tokens": TOKENS, "batch_size": 2},
            {
                "first": lm,
                "second": lm,
                "prompts": several,
                "tokens": one_token_each(size(), right={"repeated": "each column by itself"}),
                "batch_size": count(1),
            },
        ),
        "distributions.parsed": (lambda: {"text": "blurred:1"}, {"text": named(says=("--inputs",))}),
        "distributions.finite_number": (
            lambda: {"text": "1.5"},
            {"text": text()},
        ),
        "distributions.sampler": (
            lambda: {"text": "whitened:1", "images": normal(40, 16)},
            {"text": named(says=("--inputs",)), "images": images_of},
        ),
        "distributions.parsed_any": (lambda: {"text": "perlin:4"}, {"text": named(says=("--inputs",))}),
        "distributions.any_sampler": (
            lambda: {"text": "mixed:0.5", "images": normal(40, 16)},
            {"text": named(says=("--inputs",)), "images": images_of},
        ),
    }


@cache
def table() -> dict:
    parts = (
        _stats,
        _similarity,
        _noise,
        _spectra,
        _tangent,
        _weights,
        _language,
        _toy,
        _convolutions,
        _transformers,
        _tuning,
        _rest,
    )
    return {name: row for part in parts for name, row in part().items()}
