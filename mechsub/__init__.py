"""mechsub: one set of tools for subliminal learning (toy MLPs) and token entanglement (language models).

Every public name is importable as `mechsub.<name>`; nothing heavy is imported before it is used, so
`import mechsub` and `python -m studies.<name> --help` never pay for torch, TransformerLens or plotly.
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "ablation",
    "attribution",
    "audit",
    "bottleneck",
    "checks",
    "colors",
    "cores",
    "data",
    "distillation",
    "divergence",
    "doctor",
    "entanglement",
    "files",
    "flags",
    "hooked",
    "language",
    "lens",
    "memory",
    "mlp",
    "model_files",
    "noise",
    "packages",
    "pinned",
    "plot",
    "probes",
    "processes",
    "projection",
    "prompts",
    "provenance",
    "recheck",
    "remaking",
    "similarity",
    "spectra",
    "stats",
    "steering",
    "store",
    "study",
    "tangent",
    "threads",
    "unembedding",
    "versions",
    "vocabulary",
)

_NAMES = {
    "HookedModel": "hooked",
    "hidden_names": "hooked",
    "cache_activations": "hooked",
    "run_patched": "hooked",
    "MLPConfig": "mlp",
    "HookedMLP": "mlp",
    "train": "distillation",
    "distill": "distillation",
    "distill_each": "distillation",
    "accuracy": "distillation",
    "mnist": "data",
    "fashion_mnist": "data",
    "linear_cka": "similarity",
    "hidden_alignment": "similarity",
    "Attribution": "attribution",
    "direct_logit_attribution": "attribution",
    "ablated_columns": "ablation",
    "ablated_hidden": "ablation",
    "direction_basis": "ablation",
    "divergence_tokens": "divergence",
    "steered_logits": "steering",
    "cheapest_change": "bottleneck",
    "isotropic_price": "bottleneck",
    "price": "bottleneck",
    "logit_lens": "lens",
    "unembed": "unembedding",
    "token_directions": "unembedding",
    "unembed_projection": "unembedding",
    "load_language_model": "language",
    "check_model": "checks",
    "chat": "prompts",
    "single_tokens": "prompts",
    "next_token_log_probs": "entanglement",
    "string_log_probs": "entanglement",
    "interaction": "entanglement",
    "Interval": "stats",
    "progress_bar": "lab.progress",
}


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"mechsub.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"mechsub.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'mechsub' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_MODULES, *_NAMES])
