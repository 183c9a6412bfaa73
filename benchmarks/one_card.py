"""What `make paper-scale`, and the studies that train, would take on one card of 80 GB, by model: extrapolated.

    python benchmarks/one_card.py    # the tables of docs/scaling.md, from configurations; nothing is loaded

Parameters are counted in Hugging Face's own models, made from their configurations without memory (torch's meta
device). What studies keep is read off their code: every factor has its name below. Hours are those of
`python -m tools.paper_scale --plan` (each command by its stored cell of the model next in size, times the weights), as
if products alone took them. Nothing was run on such a card.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

GIB = 2**30
ROOM = 78 * GIB  # torch reports 79 GiB for a card of 80 GB, and CUDA itself takes some hundred MiB
CARD = 0.4 * 67e12  # products a second in fp32: a share of an H100's (SXM) by its data sheet; no TF32
HERE = 94e9  # of one thread of the processor that made the stored cells
BYTES = {"fp32": 4, "bf16": 2}

# Copies of a model's weights in fp32, read off the code.
TUNING = 5  # whole tuning: weights, gradient, two moments of AdamW, and the copy that is kept
N_TEACHERS = 8  # of number_strings and defences
SPECTRUM = 3  # bottleneck: fp64 copies of W_U that live together
ROWS = 8 * 90  # tokens of one student's update: lists with their prompts

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


@functools.cache
def plain(name: str) -> Any:
    """Hugging Face's model on the meta device."""
    import torch
    import transformers

    kind, options, _ = MODELS[name]
    with torch.device("meta"):
        config = getattr(transformers, f"{kind}Config")(**options)
        return getattr(transformers, f"{kind}ForCausalLM")(config).requires_grad_(False)


@functools.cache
def n_weights(name: str) -> int:
    return sum(value.numel() for value in plain(name).parameters())


def n_in_blocks(name: str) -> int:
    """Of the matrices of blocks, whose changes number_strings keeps."""
    from mechsub.models.students import BLOCK

    return sum(v.numel() for n, v in plain(name).named_parameters() if v.ndim == 2 and BLOCK.match(n))


# Memory, in bytes of the card.


def weights(name: str, dtype: str) -> int:
    return n_weights(name) * BYTES[dtype]


def demanded(name: str, dtype: str, n_held: int = 0) -> float:
    """What must be free for the model to load, with `n_held` like it that are there already."""
    from mechsub.models import language

    return weights(name, dtype) * (n_held + language._MEMORY_FACTOR)


def with_spectrum(name: str, dtype: str) -> int:
    """Weights, and what bottleneck keeps beside them: of studies of one model, the most."""
    return weights(name, dtype) + SPECTRUM * 8 * plain(name).get_output_embeddings().weight.numel()


def one_student(name: str) -> int:
    """What the layers with adapters keep of one student's update."""
    from mechsub.models import students

    layers = students.linear_layers(plain(name), None, None, ())
    return 4 * ROWS * sum(sum(plain(name).get_submodule(layer).weight.shape) for layer in layers)


def tuned_teachers(name: str) -> float:
    """number_strings: base and teachers, and then the last teacher's tuning, or all updates of blocks and a student."""
    first = (N_TEACHERS + TUNING) * weights(name, "fp32")
    later = (1 + N_TEACHERS) * weights(name, "fp32") + N_TEACHERS * 4 * n_in_blocks(name) + one_student(name)
    return max(first, later)


def one_teacher(name: str) -> float:
    """what_predicts: the base, the teacher before, and the one that is tuned."""
    return (1 + 1 + TUNING) * weights(name, "fp32")


def told_teachers(name: str) -> float:
    """number_strings with teachers that are told: the base, and a student."""
    return demanded(name, "fp32") + one_student(name)


def fits(name: str) -> str:
    """What of `make paper-scale` runs on the card."""

    def runs(dtype: str) -> tuple[bool, bool, bool]:
        needed = demanded(name, dtype), with_spectrum(name, dtype), demanded(name, dtype, 1)
        return needed[0] <= ROOM, needed[1] <= ROOM, needed[2] <= ROOM

    for dtype in BYTES:
        if all(runs(dtype)):
            return f"all, {dtype}"
    one, bottleneck, _ = runs("bf16")
    if not one:
        n = -(-int(demanded(name, "bf16")) // ROOM)
        return f'nothing; in a notebook `device_map="auto"` over {n} cards, bf16'
    return "bf16, all but base_vs_instruct" + (" and bottleneck" if not bottleneck else "")


def trains(name: str) -> str:
    """Which studies that train run on the card."""
    needed = {
        "number_strings, defences": tuned_teachers(name),
        "what_predicts": one_teacher(name),
        "number_strings `--route prompted --n-position-updates 0 --foreign none --sibling none`": told_teachers(name),
    }
    return ", ".join(study for study, size in needed.items() if size <= ROOM) or "none"


def hours(name: str) -> float:
    """Of `make paper-scale` with a base, in fp32."""
    from tools import paper_scale

    commands = paper_scale.plan(name, name, "", "fp32")
    each = [paper_scale.expected(c, n_weights(name), ROOT / "artifacts", CARD / HERE) for c in commands]
    return sum(one for one in each if one is not None) / 3600


# Tables.


def print_tables() -> None:
    print("| model | parameters | weights, GiB: fp32; bf16 | to load one | the second of a pair | bottleneck | "
          "what runs | hours, fp32 |")  # fmt: skip
    print("| --- " * 8 + "|")
    for name in MODELS:
        columns = [_both(weights, name), _both(demanded, name), _both(lambda *a: demanded(*a, 1), name)]
        row = [name, f"{n_weights(name) / 1e9:.3g}e9", *columns, _both(with_spectrum, name), fits(name)]
        print(f"| {' | '.join([*row, f'{hours(name):.2g}' if fits(name).endswith('fp32') else ''])} |")
    print("\n| model | number_strings, GiB | what_predicts | number_strings, told teachers | what runs |")
    print("| --- " * 5 + "|")
    for name in MODELS:
        needed = (tuned_teachers(name), one_teacher(name), told_teachers(name))
        print(f"| {' | '.join([name, *map(_gib, needed), trains(name)])} |")


def _gib(size: float) -> str:
    return f"{size / GIB:.0f}" if size > 100 * GIB else f"{size / GIB:.3g}"


def _both(size: Any, name: str) -> str:
    return "; ".join(_gib(size(name, dtype)) for dtype in BYTES)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print_tables()


if __name__ == "__main__":
    main()
