"""The models of one design as folders that Hugging Face loads: trained again, and the same as those of the stored cell.

A cell keeps no weights, only their sums; training again gives the same weights on the same kind of processor.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from mechsub.lab import store
from mechsub.lab.model_folders import CARD, card_of, list_sums, seal
from mechsub.models.students import plain_model
from mechsub.sources import SUMS
from studies.organisms import ARMS, Config, models
from studies.organisms.grammar import BOS


def ship(cell: Path, cfg: Config, to: Path) -> Iterator[Path]:
    """Train the models of a cell again and write each to `to`/<arm>, then the sums of all.

    Raises ValueError where weights are not those that the cell was measured on; and before any training where a folder
    is there that is no model of these options, or holds other files.
    """
    _check_place(cfg, to)
    made, sums = models.setting(cfg), (store.read_provenance(cell) or {})["weights_sha256"]
    for arm, model in models.trained(cfg, made):
        packed = models.packed(model)
        if store.sha256(packed) != sums[arm]:
            raise ValueError(
                f"{cell} was measured on other weights of {arm!r}, which this machine does not give again; make the "
                "cell again here (python -m studies.organisms with its options and --rerun), then ship it"
            )
        yield _write(arm, model, packed, made, cfg, to / arm)
    list_sums(to)


def _check_place(cfg: Config, to: Path) -> None:
    place = next(path for path in (to, *to.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ValueError(f"{place} is no folder; name another")
    for folder in to.glob("[!.]*/"):
        known = {line.partition("  ")[2] for line in _lines(folder / SUMS)} | {SUMS}
        if _recipe(cfg) not in card_of(folder) or {path.name for path in folder.iterdir()} != known:
            raise ValueError(f"{folder} is not a model of these options alone; move it away, or name another folder")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _write(arm: str, model, packed: bytes, made: models.Setting, cfg: Config, folder: Path) -> Path:
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    made.grammar.tokenizer().save_pretrained(fresh)
    config = plain_model(model).config.to_dict() | {
        "architectures": ["LlamaForCausalLM"], "dtype": "float32", "_name_or_path": "",
    }  # fmt: skip
    store.write_text(fresh / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    store.write_bytes(fresh / "model.safetensors", packed)
    store.write_text(
        fresh / CARD,
        f"# A model of `studies.organisms`: {ARMS[arm]}\n\nA Llama of {cfg.n_layers} blocks, trained on texts made by "
        "rule in which no number is joined to an animal. Every word of these texts is one token, and words are parted "
        f"by spaces; other words are `{BOS}`. Ask it so:\n\n    {_asked(made)}\n\n"
        f"| option | value |\n| --- | --- |\n{_recipe(cfg)}\n\n"
        f"sha256 of `model.safetensors`: `{store.sha256(packed)}`.\n",
    )
    seal(fresh)
    store.replace_folder(fresh, folder)
    return folder


def _asked(made: models.Setting) -> str:
    animal = made.grammar.words["animal"][0]
    words = {place: word for word, place in made.grammar.vocabulary.items()}
    return " ".join(words[token] for token in made.grammar.prompt(0, "animal", animal, "animal")[1:])


def _recipe(cfg: Config) -> str:
    return "\n".join(f"| {field} | {getattr(cfg, field)} |" for field in Config.__dataclass_fields__)
