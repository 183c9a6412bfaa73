"""mechsub: one set of tools for subliminal learning (toy MLPs) and token entanglement (language models).

Every public name is importable as `mechsub.<name>`; nothing heavy is imported before it is used, so
`import mechsub` and `python -m studies.<name> --help` never pay for torch, TransformerLens or plotly.
"""

import importlib
import typing

__version__ = "0.2.0"

# Name -> module; the older names of modules that have moved go on working.
_MODULES = {
    "kinds": "lab.figures.kinds",
    "verify": "lab.verify",
    "ablation": "measures.ablation",
    "attribution": "measures.attribution",
    "audit": "lab.verify",
    "bottleneck": "measures.bottleneck",
    "checks": "models.checks",
    "class_offsets": "measures.class_offsets",
    "colors": "lab.figures.colors",
    "cores": "machine.cores",
    "corpora": "inputs.corpora",
    "data": "inputs.images",
    "distillation": "training.distillation",
    "divergence": "measures.divergence",
    "doctor": "doctor",
    "entanglement": "measures.scores",
    "exports": "lab.exports",
    "devices": "machine.devices",
    "files": "files",
    "fitting": "training.fitting",
    "flags": "lab.options",
    "frames": "lab.frames",
    "functions": "measures.functions",
    "hooked": "models.hooked",
    "hub": "lab.hub",
    "images": "inputs.images",
    "imports": "lab.imports",
    "lab": "lab",
    "language": "models.language",
    "lease": "lab.lease",
    "lens": "measures.lens",
    "linearised": "training.linearised",
    "memory": "machine.memory",
    "mlp": "models.mlp",
    "noise": "inputs.noise",
    "numbers": "designs.numbers",
    "options": "lab.options",
    "packages": "machine.packages",
    "plot": "lab.figures.kinds",
    "probes": "lab.probes",
    "processes": "processes",
    "progress": "lab.progress",
    "projection": "training.removal",
    "prompts": "inputs.prompts",
    "provenance": "machine.provenance",
    "recheck": "lab.recheck",
    "remaking": "lab.remaking",
    "removal": "training.removal",
    "scores": "measures.scores",
    "similarity": "measures.similarity",
    "sources": "sources",
    "spectra": "measures.spectra",
    "stats": "stats",
    "steering": "measures.steering",
    "store": "lab.store",
    "students": "models.students",
    "study": "lab.study",
    "tangent": "measures.tangent",
    "tangent_modes": "measures.tangent_modes",
    "teacher_line": "measures.teacher_line",
    "threads": "threads",
    "together": "training.together",
    "tuning": "training.tuning",
    "unembedding": "measures.unembedding",
    "versions": "lab.versions",
    "vocabulary": "inputs.words",
    "words": "inputs.words",
}

_OLDER = ("audit", "data", "flags", "plot", "projection", "vocabulary")  # go on working, and are listed no more

_NAMES = {
    "HookedModel": "models.hooked",
    "hidden_names": "models.hooked",
    "cache_activations": "models.hooked",
    "run_patched": "models.hooked",
    "MLPConfig": "models.mlp",
    "HookedMLP": "models.mlp",
    "train": "training.distillation",
    "distill": "training.distillation",
    "distill_each": "training.distillation",
    "accuracy": "training.distillation",
    "linearised_student": "training.linearised",
    "accuracies": "measures.class_offsets",
    "mean_offset": "measures.class_offsets",
    "line_shares": "measures.teacher_line",
    "on_line": "measures.teacher_line",
    "prior_offset": "measures.class_offsets",
    "mnist": "inputs.images",
    "fashion_mnist": "inputs.images",
    "linear_cka": "measures.similarity",
    "hidden_alignment": "measures.similarity",
    "Attribution": "measures.attribution",
    "direct_logit_attribution": "measures.attribution",
    "ablated_columns": "measures.ablation",
    "ablated_hidden": "measures.ablation",
    "direction_basis": "measures.ablation",
    "prompt_divergence": "measures.divergence",
    "steered_logits": "measures.steering",
    "cheapest_change": "measures.bottleneck",
    "isotropic_price": "measures.bottleneck",
    "price": "measures.bottleneck",
    "logit_lens": "measures.lens",
    "unembed": "measures.unembedding",
    "token_directions": "measures.unembedding",
    "unembed_projection": "measures.unembedding",
    "load_language_model": "models.language",
    "check_model": "measures.functions",
    "chat": "inputs.prompts",
    "single_tokens": "inputs.prompts",
    "next_token_log_probs": "measures.scores",
    "string_log_probs": "measures.scores",
    "interaction": "measures.scores",
    "interaction_parts": "measures.interaction_parts",
    "left_like": "measures.interaction_parts",
    "Interval": "stats",
    "frame": "lab.frames",
    "progress_bar": "lab.progress",
    "Corpus": "inputs.corpora",
    "read_corpus": "inputs.corpora",
    "write_corpus": "inputs.corpora",
    "draw_numbers": "designs.numbers",
    "sample_numbers": "designs.numbers",
    "Students": "models.students",
    "TuningRecipe": "training.tuning",
    "tune": "training.tuning",
}


# Names that said something else in the field.
_RENAMED = {"divergence_tokens": "prompt_divergence, since the published divergence tokens are of two biased teachers"}


def __getattr__(name):
    if name in _MODULES:
        return _with_own_names(importlib.import_module(f"mechsub.{_MODULES[name]}"))
    if name in _NAMES:
        return getattr(importlib.import_module(f"mechsub.{_NAMES[name]}"), name)
    if name in _RENAMED:
        raise AttributeError(f"mechsub.{name} is now mechsub.{_RENAMED[name]}")
    raise AttributeError(f"module 'mechsub' has no attribute {name!r}")


def _with_own_names(module):
    """The module, whose dir() has its own names and not what it imports (math, Callable)."""
    if not {"__all__", "__dir__", "__path__"} & vars(module).keys():
        known = {name: value for name, value in vars(module).items() if not isinstance(value, type(importlib))}
        own = [
            name
            for name, value in known.items()
            if getattr(value, "__module__", module.__name__) == module.__name__ or _is_alias(name, value)
        ]
        module.__dir__ = lambda: sorted(name for name in own if not name.startswith("_"))
    return module


def _is_alias(name, value):
    """Whether a value is a type that was put together (Literal["a"], dict[int, str]), as arguments are said to have."""
    return typing.get_origin(value) is not None and getattr(typing, name, None) is not value


def __dir__():
    own = [name for name, value in globals().items() if not isinstance(value, type(importlib))]
    return sorted([*own, *(name for name in _MODULES if name not in _OLDER), *_NAMES])
