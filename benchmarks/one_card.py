"""What `make paper-scale`, and the studies that train, would take on one card of 80 GB, by model.

    python benchmarks/one_card.py            # the tables of docs/scaling.md, from configurations; nothing is loaded
    python benchmarks/one_card.py measure    # the factors behind them, measured here on two small models

Parameters are counted in Hugging Face's own models, made from their configurations without memory (torch's meta
device). What studies keep is read off their code: every factor has its name below, and `measure` compares those that
a small model shows. Nothing in the tables was run on such a card, and what
students with adapters keep for their gradients is not counted.
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

PROMPT, LIST = (
    48,
    35,
)  # tokens of number_strings' prompts and lists in the default model's tokenizer, which splits digits
SENTENCE = 54  # the longest that a teacher is tuned on

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
    config = getattr(transformers, f"{kind}Config")(
        **{**options, **({"num_hidden_layers": n_layers} if n_layers else {})}
    )
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


@functools.cache
def positions() -> dict[str, tuple[int, int]]:
    """Study -> (tokens that go through the blocks, places that are unembedded), in the default model's tokenizer."""
    import mechsub as ms
    from mechsub.designs import love

    class Counted(love.LovePrompts):
        """Counts what the model would be asked, and answers with zeros; all prompts are as long as the first."""

        tokens_read = places_read = 0

        usual = None

        def ask(self, *which, **more):
            if self.usual is None:
                self.usual = super().ask(ms.prompts.WORDINGS[0].love("087", "number"))
            return self.usual

        def _count(self, asked: list, n_nodes: int) -> None:
            self.tokens_read += sum(map(len, asked)) + len(asked) * n_nodes
            self.places_read += len(asked) * (1 + n_nodes)

        def animals_after(self, asked: list):
            self._count(asked, 0)
            return torch.zeros(len(asked), len(self.tokens))

        def partners_after(self, asked: list):
            self._count(asked, self.n_nodes)
            return torch.zeros(len(asked), len(self.strings))

    import torch

    tokenizer, words = ms.language.load_tokenizer(ms.sources.DEFAULT), love.Asking()
    model: Any = type("Tokenized", (), {"tokenizer": tokenizer})()
    asked = Counted(model, love.choose_animals(tokenizer, words), love.choose_partners(words), words)
    strings = ms.prompts.encode(tokenizer, asked.strings, behind=[asked.ask(None)])
    asked.n_nodes = sum(len(trie.tokens) - 1 for trie in ms.scores.build_tries(strings))
    asked.matrices()
    out = {"token_entanglement": (asked.tokens_read, asked.places_read)}
    asked.tokens_read = asked.places_read = 0
    # base_vs_instruct: five wordings in two formats. In all, both models are asked about numbers under animals; in two,
    # about animals under numbers; in three, both bodies run on both embeddings.
    numbers = [asked.ask(None), *(asked.love(i, 0) for i in range(len(asked.partners)))]
    for _ in range(2):
        for _ in range(2 * 5):
            asked.partners_after([asked.ask(None), *(asked.love_animal(i, 0) for i in range(len(asked.animals)))])
        for _ in range(2 * 2 + 4 * 3):
            asked.animals_after(numbers)
    return out | {"base_vs_instruct": (asked.tokens_read, asked.places_read)}


# Stored cells of the default model, one for each command of `make paper-scale` that is not counted above.
TIMED = {
    "unembed_projection": ("metric=cosine", "metric=causal", "metric=dla"),
    "hidden_alignment": ("model=smollm2-135m-instruct",),
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


def flop(size: Sizes, tokens: int, places: int) -> float:
    """Of a forward pass: two for each weight."""
    return 2.0 * (size.blocks * tokens + size.head * places)


def of_pairs(name: str) -> float:
    """FLOP of `make paper-scale` with a base: token_entanglement published, repaired and with two draws of weights, and
    twice of the base; geometry of both, the other studies once, and base_vs_instruct."""
    counted = {study: flop(sizes(name), *both) for study, both in positions().items()}
    return (6 + others()) * counted["token_entanglement"] + counted["base_vs_instruct"]


def of_block(name: str) -> float:
    """FLOP of a block of number_strings: teachers tuned whole (6 a weight and token), lists, students (4)."""
    size = sizes(name)
    taught = 3 * flop(size, 8 * 24 * 8 * SENTENCE, 8 * 24 * 8 * 16)
    lists = flop(size, 9 * 544 * (PROMPT + LIST), 9 * 544 * LIST)
    rows = 8 * (9 * 256 + 3 * 8 * 64 + 6 * 8 * 16)
    return taught + lists + 2 * flop(size, rows * (PROMPT + LIST), rows * LIST)


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


# What a small model shows of the factors.


def loaded(name: str) -> tuple[float, float]:
    """Copies of the weights: resident after loading, and the peak while loading."""
    from benchmarks import scaling
    from mechsub.models import language

    before, kept = scaling.status_mib("VmRSS"), []
    _, peak = scaling.cost(lambda: kept.append(language.load_language_model(name)), 1)
    unit = _mib(kept[0])
    return (scaling.status_mib("VmRSS") - before) / unit, peak / unit


def tuned(name: str) -> float:
    """Copies of the weights, above the base, at the peak of whole tuning by two updates of 8 short rows."""
    import mechsub as ms
    from benchmarks import scaling
    from mechsub.inputs import corpora

    model = ms.load_language_model(name)
    corpus = corpora.make_corpus(model.tokenizer, ["Say a number:"] * 8, ["7"] * 8)
    recipe = ms.TuningRecipe(rank=None, updates=2, batch_size=8)
    return scaling.cost(lambda: ms.tune(model, corpus, recipe), 1)[1] / _mib(model)


def spectrum(name: str) -> float:
    """fp64 copies of W_U at the peak of bottleneck's spectrum."""
    import mechsub as ms
    from benchmarks import scaling
    from studies import bottleneck

    model = ms.load_language_model(name)
    return scaling.cost(lambda: bottleneck.spectrum(model), 1)[1] / (model.W_U.numel() * 8 / 2**20)


def scored(name: str) -> tuple[float, float]:
    """Seconds that the products of 16 prompts would take at this machine's own rate of fp32, and those measured."""
    import mechsub as ms
    from benchmarks import scaling
    from tools import paper_scale

    model = ms.load_language_model(name)
    prompts = scaling.prompts(16, scaling.LENGTH)
    size = Sizes(
        0, sum(v.numel() for n, v in model.original_model.named_parameters() if v.ndim == 2), model.W_U.numel()
    )
    size = size._replace(blocks=size.blocks - size.head)  # the embedding, once where it is tied
    ms.next_token_log_probs(model, prompts[:2])
    found, _ = scaling.cost(lambda: ms.next_token_log_probs(model, prompts))
    rate = paper_scale.rate("cpu") * 2 * paper_scale.SIZE**3
    return flop(size, 16 * scaling.LENGTH, 16) / rate, found


def _mib(model: Any) -> float:
    return sum(value.numel() * value.element_size() for value in model.original_model.parameters()) / 2**20


def print_measured(names: list[str]) -> None:
    from benchmarks import scaling

    for name in names:
        resident, peak = scaling.alone(loaded, name)
        print(f"{name}: once loaded {resident:.2f} copies of the weights, while loading {peak:.2f}")
        print(f"  whole tuning: {scaling.alone(tuned, name):.2f} copies above the base; the tables say {TUNING}")
        print(f"  spectrum: {scaling.alone(spectrum, name):.2f} fp64 copies of W_U; the tables say {SPECTRUM}")
        expected, found = scaling.alone(scored, name)
        print(f"  16 prompts: {found:.3f} s, {expected:.3f} by products at this machine's rate", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="tables", choices=("tables", "measure"))
    if parser.parse_args().part == "tables":
        print_tables()
    else:
        print_measured([str(ROOT / "organisms/1110-instruct"), "smollm2-135m-instruct"])


if __name__ == "__main__":
    main()
