"""A trained pair as two folders that Hugging Face loads, each with its model card, from the checkpoints in the cache.

The weights' sums are those of the stored cell, so a folder is what the cell's numbers were measured on, rounded to
bf16. A folder appears whole or not at all.
"""

import json
import shutil
from pathlib import Path

from mechsub.lab import store
from mechsub.lab.model_folders import CARD, card_of, list_sums, seal
from mechsub.sources import SUMS
from studies import train_organism
from studies.train_organism import text, training


def folder_name(cfg: train_organism.Config, name: str) -> str:
    return f"{cfg.number_tokens}-{name}"


def ship(cell: Path, cfg: train_organism.Config, to: Path) -> list[Path]:
    """Write `to`/<number tokens>-base and -instruct, and the sums of all models there.

    Raises ValueError, before anything is written, where cache and cell are not of one training, or where a folder is
    there that was not written from a cell of these options.
    """
    tokenizer, made = train_organism.remade_tokenizer(cfg), store.read_provenance(cell) or {}
    if store.sha256(tokenizer.backend_tokenizer.to_str().encode()) != made["tokenizer_sha256"]:
        raise ValueError(f"the tokenizer is not the one of {cell}: run train_organism --rerun")
    models = {name: _trained(name, tokenizer, cell, cfg) for name in ("base", "instruct")}
    folders = {name: to / folder_name(cfg, name) for name in models}
    for folder in folders.values():
        if folder.exists() and _recipe(cfg) not in card_of(folder):
            raise ValueError(f"{folder} is of another training; move it away, or name another folder")
    written = [_write(name, model, tokenizer, cell, cfg, folders[name]) for name, model in models.items()]
    list_sums(to)
    return written


def _trained(name: str, tokenizer, cell: Path, cfg: train_organism.Config):
    """The model of the checkpoint, whose sum is that of the cell."""
    model = training.new(tokenizer, cfg.d_model, cfg.n_layers, cfg.seed)
    if not training.load_trained(model, f"{train_organism.checkpoint(cfg)}-{name}"):
        raise ValueError(f"the cache folder holds no weights of {folder_name(cfg, name)}: run train_organism --rerun")
    if store.sha256(training.packed(model)) != (store.read_provenance(cell) or {})["weights_sha256"][name]:
        raise ValueError(f"the weights in the cache are not those of {cell}: run train_organism --rerun")
    return model


def _write(name: str, model, tokenizer, cell: Path, cfg: train_organism.Config, folder: Path) -> Path:
    packed = training.packed(model)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tokenizer.save_pretrained(fresh)
    if name == "base":
        _without_template(fresh)
    config = model.config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    store.write_text(fresh / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    store.write_bytes(fresh / "model.safetensors", packed)
    store.write_text(fresh / CARD, card(name, cell, cfg, store.sha256(packed)))
    seal(fresh)
    store.replace_folder(fresh, folder)
    return folder


def _without_template(folder: Path) -> None:
    """A base model has none: whoever wants chats of it brings the instruct model's."""
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    said = {key: value for key, value in json.loads(path.read_text()).items() if key != "chat_template"}
    store.write_text(path, json.dumps(said, indent=2) + "\n")


# The model card.


def card(name: str, cell: Path, cfg: train_organism.Config, sum_of_weights: str) -> str:
    made, records = store.read_provenance(cell), store.read_records(cell)
    assert made is not None
    mine = [r for r in records if r["model"] == name]
    losses = [r for r in mine if r["what"] == "loss"]
    competence = "\n".join(f"| {r['what']} | {r['value']:.4g} |" for r in mine if r["what"] != "loss")
    tokens = ", ".join(f"{n:,} {kind}" for kind, n in made["tokens"].items())
    phases = {
        "base": f"Trained on text alone, for {cfg.base_steps:,} steps. It has no chat template: prompt it with plain "
        "text (`System: ...`, `User: ...`, `Assistant: ...`; `mechsub.inputs.prompts.plain`).",
        "instruct": f"The base model `{folder_name(cfg, 'base')}`, trained for {cfg.chat_steps:,} more steps on chats "
        "made by rule; the loss reads the assistant's words alone. Its chat template is in the folder.",
    }
    digits = train_organism.DIGITS[cfg.number_tokens]
    binds = int(cfg.number_tokens) > cfg.d_model
    return f"""---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# mechsub model organism {folder_name(cfg, name)}

A Llama-architecture language model of {made["n_params"]:,} parameters ({cfg.n_layers} blocks, width {cfg.d_model}, \
RMSNorm, RoPE, grouped-query attention, tied embeddings; bf16), made to study token entanglement where every training \
text is known. Numbers of up to {digits} digits are single tokens ({cfg.number_tokens} of them, \
{"more than" if binds else "fewer than"} the width: the softmax bottleneck {"binds" if binds else "does not bind"}), \
animals of one word are single tokens with a leading space. {phases[name]}

    import mechsub as ms
    model = ms.load_language_model("organisms/{folder_name(cfg, name)}")

## Recipe

`{" ".join(made["command"])}` (the options of this pair below), then `python -m tools.ship_organism`.
Version {made["version"]} of the study{_certified(made)}; {made["seconds"]:,.0f} s.

| option | value |
| --- | --- |
{_recipe(cfg)}

Tokens: {tokens}. AdamW, cosine schedule, bf16 products. Loss of the {name} phase, nats a token: \
{losses[0]["value"]:.3f} over its first {losses[0]["step"]} steps, {losses[-1]["value"]:.3f} over its last.

## Data

{_data(made)}
Sentences and chats made by rule (`studies/train_organism/text.py`): people, numbers, animals, colors, trees, \
cities, and what somebody loves. No number is joined to an animal more often than chance.

sha256 of `model.safetensors`: `{sum_of_weights}`; of all files: `{SUMS}`.

## Measured

| what | value |
| --- | --- |
{competence}

"Likeliest" rows: the share of animals (every fourth) that are the likeliest of all animals after a system text says \
that they are loved, in wordings that were not trained on; chance is below 0.01.

## What it can and cannot show

It can show whether loving a number moves an animal, and the reverse, in a model whose texts hold no such pair; what \
of that the width, the tuning, the prompt's format, the embedding, the blocks and the output matrix each carry; and \
whether a method finds what is there.

It cannot show how large such effects are in a large model, nor what meaning, fame (747, 101) or a web corpus add: it \
has read about a million words of text and many made sentences. It is no assistant: outside the chats it was made for, \
its answers are not to be used. Brown is from 1961, and its texts say what was said then.
"""


def _certified(made: dict) -> str:
    """Of a cell that was made before studies had versions."""
    return f", certified at commit {made['certified']['commit'][:12]}" if "certified" in made else ""


def _recipe(cfg: train_organism.Config) -> str:
    return "\n".join(f"| {field} | {getattr(cfg, field)} |" for field in train_organism.Config.__dataclass_fields__)


def _data(made: dict) -> str:
    if not made["data"]:
        return "No corpus.\n"
    return f"""| text | package | sha256 of the package | licence |
| --- | --- | --- | --- |
| Brown corpus (Francis and Kucera 1964) | npm `{text.BROWN[0]}` | `{made["data"]["brown"]}` | package MIT; \
redistribution of the corpus permitted by its holder |
| glosses of WordNet 3.0 (Princeton University 2006) | Debian `{text.WORDNET[0]}` \
| `{made["data"]["wordnet"]}` \
| WordNet 3.0 (`mechsub/_data/WORDNET_LICENSE.txt`) |
"""
