"""LoRA adapters that others publish: they are checked, and peft merges them into the weights of their base model.

Only safetensors are read. The merged model must give the logits that peft gives unmerged; else the adapter is refused.
"""

import dataclasses
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mechsub import sources
from mechsub.models import checks

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformer_lens.model_bridge import TransformerBridge

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_CLOSE = 1e-4  # of logits, merged and unmerged, of the largest: fp32's rounding is a tenth of it
_ORIGINAL = {sources.DEFAULT: "SmolLM2-135M-Instruct"}  # as adapters name it
# These change the base before training, or act by position, or on several devices: they are in no sum of matrices.
_REFUSED = (
    *("layer_replication", "alora_invocation_tokens", "megatron_config", "arrow_config", "use_bdlora", "use_qalora"),
    *("kasa_config", "velora_config", "monteclora_config", "trainable_token_indices"),
)
_IGNORED = {"runtime_config", "eva_config", "corda_config", "loftq_config", "lora_ga_config", "init_lora_weights"}
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # others take a part out of the base


class Refused(RuntimeError):
    """An adapter that cannot be used; the message says why, behind the adapter's name."""


def check(folder: Path, base: str, base_folder: Path) -> None:
    """Raise Refused for an adapter that cannot be merged, or was trained on another model, as far as its files say."""
    if importlib.util.find_spec("peft") is None:
        raise Refused("needs peft; run: python -m pip install 'mechsub[adapters]'")
    _check_base(checked_config(folder), base, base_folder)


def checked_config(folder: Path) -> dict:
    """The configuration of a LoRA adapter that is a sum of matrices, as far as the configuration says."""
    config = _config(folder)
    if (kind := config.get("peft_type")) != "LORA":
        raise Refused(f"is of the kind {str(kind)[:40]}; only LoRA (with DoRA and rsLoRA) can be merged")
    if (task := config.get("task_type")) not in (None, "CAUSAL_LM"):
        raise Refused(f"was trained for the task {str(task)[:40]}, and is not of a language model")
    if used := [name for name in _REFUSED if config.get(name)]:
        raise Refused(f"uses {used[0]}, which is not supported")
    if (start := config.get("init_lora_weights")) not in _PLAIN_STARTS:
        raise Refused(f"starts from {str(start)[:40]}, which changes its base; save it as plain LoRA with peft")
    return config


def check_base(folder: Path, base: str, base_folder: Path) -> None:
    """Raise Refused for an adapter that was trained on another model."""
    _check_base(_config(folder), base, base_folder)


def _config(folder: Path) -> dict:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise Refused(f"has no {name}; save it with peft's save_pretrained (safetensors)")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise Refused(f"is damaged: {CONFIG} cannot be read; fetch or save it again")
    return config


def _check_base(config: Mapping[str, object], base: str, folder: Path) -> None:
    trained = config.get("base_model_name_or_path")
    if isinstance(trained, str) and trained and _is_other(trained, base, folder):
        raise Refused(
            f"was trained on {trained[:100]}, and {base} is another model; if they are the same, say so in "
            f"base_model_name_or_path of its {CONFIG}"
        )
    mapping = config.get("auto_mapping")
    kind = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    kinds = json.loads((folder / "config.json").read_text()).get("architectures") or [kind]
    if kind and kind not in kinds:
        raise Refused(f"was trained on a {str(kind)[:40]}, and {base} is a {kinds[0]}")


def _is_other(trained: str, base: str, folder: Path) -> bool:
    """Whether the adapter was certainly trained on another model. The weights of that model decide where they are here,
    else its name; a folder's name decides nothing."""
    here = sources.find(trained)
    if here is not None and (here.samefile(folder) or _weights(here) == _weights(folder)):
        return False
    if sources.is_folder(trained):
        return True
    if _stem(trained) == _stem(_ORIGINAL.get(base, base)):
        return False
    is_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", trained) is not None
    return here is not None or (is_id and not sources.is_folder(base))


def _weights(folder: Path) -> set[str]:
    return {value for name, value in sources.sums(folder).items() if name.endswith(".safetensors")}


def _stem(name: str) -> str:
    """A model's name without owner and suffixes: mirrors and quantised copies have the same stem."""
    return re.sub(r"(-unsloth)?-bnb-[48]bit$", "", Path(name).name.lower())


def merge(model: "TransformerBridge", folder: Path) -> "TransformerBridge":
    """Add the adapter's weights to the model's own, in place, in the precision of the model; returns the model.

    Raises Refused where shapes or layers are those of another model; where weights are missing, damaged or not finite;
    and where the sum gives other logits than the adapter beside its base.
    """
    import peft

    weights = tensors(folder / WEIGHTS)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            adapted = peft.PeftModel(model, _lora(_config(folder))).eval()
            _compare(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False), weights)
            peft.set_peft_model_state_dict(adapted, weights)
            tokens = checks.probe_tokens(model.get_input_embeddings().num_embeddings)
            tokens = tokens.to(model.get_input_embeddings().weight.device)
            beside = adapted(tokens).logits
            merged = adapted.merge_and_unload(safe_merge=True)
            apart = float((merged(tokens).logits - beside).abs().max() / beside.abs().max())
    except Refused:
        raise
    except Exception as error:  # a foreign configuration can make peft raise anything
        said = " ".join(str(error).split())[:300]
        raise Refused(f"cannot be merged by peft: {type(error).__name__}: {said}") from None
    if not apart <= _CLOSE:
        raise Refused(f"is not what peft merges: logits differ by {apart:.1e} of the largest from those unmerged")
    output = merged.get_output_embeddings()
    merged.config.tie_word_embeddings = output is not None and output.weight is merged.get_input_embeddings().weight
    return merged


def _lora(config: dict) -> "LoraConfig":
    import peft

    known = {field.name for field in dataclasses.fields(peft.LoraConfig) if field.init} | {"peft_type"}
    if unknown := [name for name, value in config.items() if value and name not in known | _IGNORED]:
        raise Refused(f"uses {unknown[0][:60]}, which peft {peft.__version__} does not know; update peft")
    given = {name: value for name, value in config.items() if name in known - _IGNORED - {"peft_type"}}
    return peft.LoraConfig(**{**given, "inference_mode": True, "init_lora_weights": False})


def tensors(path: Path) -> dict[str, Tensor]:
    """An adapter's weights. Raises Refused for a file that is damaged, or holds NaN."""
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise Refused(f"is damaged: {path.name} cannot be read ({error}); fetch or save it again") from None
    if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise Refused(f"holds NaN or infinite values, in {broken[0]}; fetch or save it again")
    return weights


def _compare(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise for weights that are missing or superfluous, and for weights whose shape the base does not have."""
    for one, other, verb in ((wanted, given, "lacks"), (given, wanted, "has")):
        if odd := [name for name in one if name not in other]:
            raise Refused(
                f"{verb} {len(odd)} weights that its configuration and this base do {'not ' * (verb == 'has')}ask for, "
                f"{odd[0]} for one: it is of another base, or has embeddings that its configuration does not name"
            )
    for name, value in given.items():
        if value.shape != wanted[name].shape:
            shapes = f"{list(value.shape)}, where this base needs {list(wanted[name].shape)}"
            raise Refused(f"is of another base: {name} is {shapes}")
