"""What `make paper-scale`, and the studies that train, would take on one card of 80 GB, by model: extrapolated.

    python benchmarks/one_card.py            # the tables of docs/scaling.md, from configurations; nothing is loaded

Parameters are counted in Hugging Face's own models, made from their configurations without memory (torch's meta
device). What studies keep is read off their code: every factor has its name below. Nothing was run on such a card.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

GIB = 2**30
ROOM = 78 * GIB  # torch reports 79 GiB for a card of 80 GB, and CUDA itself takes some hundred MiB
SHARE = 0.4  # of the rates that products are assumed to reach
RATES = {"fp32": 67e12, "bf16": 989e12}  # of an H100 (SXM), by its data sheet; torch uses no TF32 unless it is asked
BYTES = {"fp32": 4, "bf16": 2}

# Copies of a model's weights in fp32, read off the code.
TUNING = 5  # whole tuning: weights, gradient, two moments of AdamW, and the copy that is kept
FIRST_TO_LAST = 7  # teachers of number_strings and defences that are held while the eighth is tuned
SPECTRUM = 3  # bottleneck: fp64 copies of W_U that live together

# Products: prompts of the default token_entanglement, and tokens of each; `python -m tools.paper_scale --plan` has the
# commands, of which six are a token_entanglement.
PROMPTS, TOKENS = 2500, 64
ENTANGLEMENTS = 6
LIST, SENTENCE = 90, 54  # tokens of a list with its prompt, and of a sentence of liking

# Configurations as the public model cards have them, and the billions of parameters that these state.
LLAMA = {"num_key_value_heads": 8, "vocab_size": 128_256}
QWEN = {"vocab_size": 152_064, "tie_word_embeddings": False}
GEMMA = {"vocab_size": 256_000, "tie_word_embeddings": True}
MODELS: dict[str, tuple[str, dict, float]] = {
    "Llama-3.2-1B": ("Llama", {**LLAMA, "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
                               "head_dim": 64, "intermediate_size": 8192, "tie_word_embeddings": True}, 1.24),
    "Llama-3.2-3B": ("Llama", {**LLAMA, "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24,
                               "head_dim": 128, "intermediate_size": 8192, "tie_word_embeddings": True}, 3.21),
    "Qwen2.5-7B": ("Qwen2", {**QWEN, "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
                             "num_key_value_heads": 4, "intermediate_size": 18_944}, 7.62),
    "Llama-3.1-8B": ("Llama", {**LLAMA, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                               "intermediate_size": 14_336, "tie_word_embeddings": False}, 8.03),
    "Gemma-2-9B": ("Gemma2", {**GEMMA, "hidden_size": 3584, "num_hidden_layers": 42, "num_attention_heads": 16,
                              "num_key_value_heads": 8, "head_dim": 256, "intermediate_size": 14_336}, 9.24),
    "Qwen2.5-14B": ("Qwen2", {**QWEN, "hidden_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 40,
                              "num_key_value_heads": 8, "intermediate_size": 13_824}, 14.8),
    "Gemma-2-27B": ("Gemma2", {**GEMMA, "hidden_size": 4608, "num_hidden_layers": 46, "num_attention_heads": 32,
                               "num_key_value_heads": 16, "head_dim": 128, "intermediate_size": 36_864}, 27.2),
    "Qwen2.5-32B": ("Qwen2", {**QWEN, "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 40,
                              "num_key_value_heads": 8, "intermediate_size": 27_648}, 32.8),
    "Llama-3.3-70B": ("Llama", {**LLAMA, "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
                                "intermediate_size": 28_672, "tie_word_embeddings": False}, 70.6),
}  # fmt: skip


class Sizes(NamedTuple):
    total: int
    blocks: int  # matrices of the blocks, through which every token goes
    head: int  # W_U: vocabulary times d_model


@functools.cache
def made(name: str) -> Any:
    """Hugging Face's model on the meta device."""
    import torch
    import transformers

    kind, options, _ = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**options)
    with torch.device("meta"):
        return getattr(transformers, f"{kind}ForCausalLM")(config).requires_grad_(False)


@functools.cache
def sizes(name: str) -> Sizes:
    return sizes_of(made(name))


def sizes_of(model: Any) -> Sizes:
    from mechsub.models.students import BLOCK

    values = list(model.named_parameters())  # a tied weight once
    blocks = sum(value.numel() for name, value in values if value.ndim == 2 and BLOCK.match(name))
    return Sizes(sum(value.numel() for _, value in values), blocks, model.get_output_embeddings().weight.numel())


# Memory, in bytes of the card.


def weights(name: str, dtype: str) -> int:
    return sizes(name).total * BYTES[dtype]


def demanded(name: str, dtype: str, n_held: int = 0) -> float:
    """What must be free for the model to load, with `n_held` like it that are there already."""
    from mechsub.models import language

    return weights(name, dtype) * (n_held + language._MEMORY_FACTOR)


def with_spectrum(name: str, dtype: str) -> int:
    """Weights, and what bottleneck keeps beside them, the most of all studies of pairs."""
    return weights(name, dtype) + SPECTRUM * 8 * sizes(name).head


def taught(name: str) -> int:
    """number_strings and defences: the base, seven teachers, and the eighth while it is tuned."""
    return (1 + FIRST_TO_LAST + TUNING) * weights(name, "fp32")


def with_ways(name: str) -> float:
    """number_strings later: base, eight teachers, the updates of their blocks, and room for the foreign model."""
    n = FIRST_TO_LAST + 1
    return n * weights(name, "fp32") + n * 4 * sizes(name).blocks + demanded(name, "fp32", 1)


def one_teacher(name: str) -> int:
    """what_predicts: the base, the teacher before, and the one that is tuned."""
    return (1 + 1 + TUNING) * weights(name, "fp32")


def fits(name: str) -> str:
    """What of `make paper-scale` runs on the card, and what to do about the rest."""

    def one(dtype: str) -> bool:
        return demanded(name, dtype) <= ROOM

    def bottleneck(dtype: str) -> bool:
        return with_spectrum(name, dtype) <= ROOM

    def pair(dtype: str) -> bool:
        return demanded(name, dtype, 1) <= ROOM

    for dtype in ("fp32", "bf16"):
        if one(dtype) and bottleneck(dtype) and pair(dtype):
            return f"all, {dtype}" + "; in fp32 all but base_vs_instruct" * (dtype == "bf16" and bottleneck("fp32"))
    if not one("bf16"):
        n = -(-int(demanded(name, "bf16")) // ROOM)
        return f'nothing; in a notebook `device_map="auto"` over {n} cards, bf16; or a smaller model'
    lacking = ["base_vs_instruct", *(["bottleneck"] if not bottleneck("bf16") else [])]
    return f"bf16, without {' and '.join(lacking)}: a smaller model for these"


# Products.


# Stored cells of the default model, one for each command of `make paper-scale` that is not counted above.
TIMED = {
    "unembed_projection": ("metric=cosine", "metric=causal", "metric=dla"),
    "hidden_alignment": ("model=smollm2-135m-instruct",),
    "base_vs_instruct": ("default",),
    **dict.fromkeys(("lens_trajectory", "bottleneck", "contributions", "steering"), ("default",)),
}


@functools.cache
def others() -> float:
    """These commands in token_entanglements, by what their cells took beside its own: more than their products."""
    from mechsub.lab import store

    def seconds(study: str, cell: str) -> float:
        made = store.read_provenance(ROOT / "artifacts" / study / cell)
        assert made is not None, f"{study}/{cell} is not stored"
        return made["seconds"]

    taken = sum(seconds(study, cell) for study, cells in TIMED.items() for cell in cells)
    return taken / seconds("token_entanglement", "default")


def of_pairs(name: str) -> float:
    """FLOP of `make paper-scale` with a base: every prompt unembeds its last place alone; two for each weight."""
    size = sizes(name)
    return (ENTANGLEMENTS + others()) * PROMPTS * 2.0 * (size.blocks * TOKENS + size.head)


def of_block(name: str) -> float:
    """FLOP of a block of number_strings: teachers tuned whole (6 a weight and token), lists (2), students (4)."""
    size = sizes(name)
    taught, lists = 8 * 24 * 8 * SENTENCE, 9 * 544 * LIST
    students = 8 * (9 * 256 + 3 * 8 * 64 + 6 * 8 * 16) * LIST
    return (6 * taught + 2 * lists + 4 * students) * float(size.blocks + size.head)


def hours(products: float, dtype: str) -> float:
    return products / (SHARE * RATES[dtype]) / 3600


# Tables.


def print_tables() -> None:
    print("| model | parameters | weights, GiB: fp32; bf16 | to load one | the second of a pair | bottleneck | "
          "what runs | PFLOP | hours: fp32; bf16 |")  # fmt: skip
    print("| --- " * 9 + "|")
    for name in MODELS:
        columns = [_both(weights, name), _both(demanded, name), _both(lambda *a: demanded(*a, 1), name)]
        products = of_pairs(name)
        took = "; ".join(f"{hours(products, dtype):.2g}" for dtype in BYTES)
        row = [name, f"{sizes(name).total / 1e9:.3g}e9", *columns, _both(with_spectrum, name), fits(name)]
        print(f"| {' | '.join([*row, f'{products / 1e15:.0f}', took])} |")
    print("\n| model | number_strings, GiB: teachers; then | defences | what_predicts | what runs | "
          "PFLOP a block | hours |")  # fmt: skip
    print("| --- " * 7 + "|")
    for name in MODELS:
        needed = {"number_strings": max(taught(name), with_ways(name)), "defences": taught(name),
                  "what_predicts": one_teacher(name)}  # fmt: skip
        row = [name, f"{_gib(taught(name))}; {_gib(with_ways(name))}", *map(_gib, list(needed.values())[1:])]
        runs = [study for study, size in needed.items() if size <= ROOM]
        row += [", ".join(runs) or "none: a smaller model, or number_strings `--route prompted`, which keeps one copy"]
        row += [f"{of_block(name) / 1e15:.0f}", f"{hours(of_block(name), 'fp32'):.2g}"]
        print(f"| {' | '.join(row)} |")


def _gib(size: float) -> str:
    return f"{size / GIB:.3g}"


def _both(size: Any, name: str) -> str:
    return "; ".join(_gib(size(name, dtype)) for dtype in BYTES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print_tables()


if __name__ == "__main__":
    main()
