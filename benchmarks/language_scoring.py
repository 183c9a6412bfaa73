"""Speed and memory of scoring prompts with a language model, as ratios against plain Hugging Face loops.

    python benchmarks/language_scoring.py [--model smollm2-135m-instruct] [--prompts 96]

* next tokens: mechsub (equal-length batches, one position unembedded) against one prompt at a time through the same
  Hugging Face model (its default attention), as published code runs it (logits of every position) and with the last
  position's logits alone, and against the product rate measured in the same run;
* the matrix: seconds of a row of all animals, and of a row of all numbers through the trie, against scoring each pair
  by its own prompt and continuation, as published code does;
* bf16: its speed, and its error in nats;
* the bridge with mechsub's hooks against Hugging Face eager on the same batches;
* peak memory of caching final-position states, against a plain forward and TransformerLens's full cache.

Medians of repeated rounds in which the competitors take turns; nothing is asserted.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time

from mechsub.designs import love

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=96, help="prompts of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", choices=("plain", "cache", "full"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch

    from mechsub.models import language

    if args.memory:
        return print_peak(args.memory, args.model)
    model = language.load_language_model(args.model)
    eager, default = (hugging_face(args.model, attention) for attention in ("eager", "sdpa"))
    prompts = love_prompts(model, args.prompts)
    print(f"machine: {processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{args.model}: {len(prompts)} prompts of {len(prompts[0])} tokens, medians of {args.rounds} rounds")
    times = rounds(args.rounds, next_token_runs(model, eager, default, prompts))
    report_next_tokens(model, times, prompts)
    report_pairs(model, default, prompts, args.rounds)
    report_bf16(args, model, prompts, times["mechsub"])
    for kind in ("plain", "cache", "full"):
        subprocess.run([sys.executable, __file__, "--memory", kind, "--model", args.model], check=True)


def hugging_face(name: str, attention: str):
    import torch
    from transformers import AutoModelForCausalLM

    from mechsub.models import language

    folder = language.cache_folder() / name if name == language.DEFAULT else name
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


def love_prompts(model, n: int) -> list:
    from mechsub.inputs import prompts

    w = prompts.WORDINGS[0]
    return [
        prompts.prompt(model.tokenizer, w.question, system=w.love(f"{i:03d}", "number"), answer=w.answer)
        for i in range(n)
    ]


def rounds(n: int, runs: dict) -> dict[str, float]:
    """Median seconds of each run; the runs take turns, so that a slow moment of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(n):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def next_token_runs(model, eager, default, prompts: list) -> dict:
    import torch

    from mechsub.measures import scores

    @torch.no_grad()
    def one_at_a_time():
        return torch.stack([default(prompt[None]).logits[0, -1].log_softmax(-1) for prompt in prompts])

    @torch.no_grad()
    def one_last():
        for prompt in prompts:
            default(prompt[None], logits_to_keep=1).logits[0, -1].log_softmax(-1)

    @torch.no_grad()
    def eager_batches():
        batches = (torch.stack(prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH))
        return torch.cat([eager(batch, logits_to_keep=1).logits[:, -1].log_softmax(-1) for batch in batches])

    def mechsub():
        return scores.next_token_log_probs(model, prompts, batch_size=BATCH)

    difference = (mechsub() - one_at_a_time()).abs().max()
    print(f"largest difference to one at a time: {float(difference):.1e} nats")
    return {"one": one_at_a_time, "last": one_last, "eager": eager_batches, "mechsub": mechsub, "products": product}


def product() -> None:
    """A product of the size of a batch's largest: 2 x 1,024 x 1,536 x 576 operations, 200 times."""
    x, w = _operands()
    for _ in range(200):
        x @ w


def _operands():
    import torch

    return torch.ones(1024, 576), torch.ones(576, 1536)


def report_next_tokens(model, times: dict, prompts: list) -> None:
    n, length = len(prompts), len(prompts[0])
    rate = 200 * 2 * 1024 * 576 * 1536 / times["products"]
    c = model.original_model.config
    head = c.vocab_size * c.hidden_size
    body = sum(p.numel() for p in model.original_model.parameters()) - head * (1 if c.tie_word_embeddings else 2)
    attention = 4 * c.num_hidden_layers * c.hidden_size * length  # scores and mixing, a position
    used = n * (2 * length * body + length * attention + 2 * head) / times["mechsub"]
    print(
        f"one prompt at a time (Hugging Face, sdpa): {1e3 * times['one'] / n:.0f} ms a prompt, "
        f"{1e3 * times['last'] / n:.0f} ms with the last position's logits alone"
    )
    print(
        f"mechsub: {1e3 * times['mechsub'] / n:.0f} ms a prompt, {times['one'] / times['mechsub']:.2f}x and "
        f"{times['last'] / times['mechsub']:.2f}x; "
        f"{used / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s of plain products ({100 * used / rate:.0f}%)"
    )
    print(f"bridge and hooks over Hugging Face eager in the same batches: {times['mechsub'] / times['eager']:.2f}x")


def report_pairs(model, default, prompts: list, n: int) -> None:
    """A row of the matrices against one run for every pair."""
    import torch

    from mechsub.inputs import words
    from mechsub.measures import scores
    from studies import token_entanglement

    numbers = [f" {number}" for number in words.numbers()]
    animals = love.choose_animals(model.tokenizer, token_entanglement.Config())
    tokens = [animal.token for animal in animals]
    tails = [torch.tensor(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in numbers[500:508]]

    @torch.no_grad()
    def pairs():
        for prompt, tail in zip(prompts, tails, strict=False):
            logp = default(torch.cat([prompt, tail])[None]).logits[0].log_softmax(-1)
            logp[len(prompt) - 1 : -1].gather(-1, tail[:, None]).sum()

    few = prompts[:8]
    times = rounds(
        n,
        {
            "pairs": pairs,
            "strings": lambda: scores.string_log_probs(model, few, numbers, batch_size=4),
            "next": lambda: scores.next_token_log_probs(model, few, tokens=tokens, batch_size=BATCH),
        },
    )
    each, row, direct = times["pairs"] / len(tails), times["strings"] / 8, times["next"] / 8
    print(
        f"a pair by its own run: {1e3 * each:.0f} ms; {len(animals)} animals of a prompt: {1e3 * direct:.0f} ms "
        f"({each * len(animals) / direct:.0f}x); {len(numbers)} numbers of a prompt: {1e3 * row:.0f} ms "
        f"({each * len(numbers) / row:.0f}x)"
    )


def report_bf16(args, model, prompts: list, seconds: float) -> None:
    import torch

    from mechsub.measures import scores
    from mechsub.models import language

    low = language.load_language_model(args.model, dtype=torch.bfloat16)
    exact = scores.next_token_log_probs(model, prompts, batch_size=BATCH)
    likely = exact > exact.topk(1000).values[:, -1:]
    times = rounds(args.rounds, {"bf16": lambda: scores.next_token_log_probs(low, prompts, batch_size=BATCH)})
    error = (scores.next_token_log_probs(low, prompts, batch_size=BATCH) - exact)[likely].abs()
    print(
        f"bf16: {seconds / times['bf16']:.2f}x the speed of fp32; error over the 1,000 likeliest tokens: "
        f"mean {float(error.mean()):.3f}, 99% {float(error.quantile(0.99)) if error.numel() < 2**24 else 0:.3f}, "
        f"largest {float(error.max()):.3f} nats"
    )


def print_peak(kind: str, name: str) -> None:
    """Peak memory above the loaded model of 1,110 prompts in batches of 16 (the full cache: one batch)."""
    import torch

    from mechsub import cache_activations
    from mechsub.models import language
    from mechsub.models.hooked import LAST_ONLY

    model = language.load_language_model(name)
    tokens = torch.stack(love_prompts(model, 1000) + love_prompts(model, 110))
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak of loading
    before = _field("VmRSS")
    with torch.no_grad():
        if kind == "plain":
            for batch in tokens.split(BATCH):
                model.run_with_hooks(batch, fwd_hooks=[LAST_ONLY])
        elif kind == "cache":
            cache_activations(model, tokens, pos=-1, batch_size=BATCH)
        else:
            model.run_with_cache(tokens[:BATCH])
    plain = "plain forward, last position unembedded"
    what = {"plain": plain, "cache": "cache_activations of every block", "full": "run_with_cache, one batch"}
    print(f"peak memory, {what[kind]}: {_field('VmHWM') - before:.2f} GiB above the loaded model")


def _field(name: str) -> float:
    return int(open("/proc/self/status").read().split(f"{name}:")[1].split()[0]) / 2**20


def processor() -> str:
    try:
        lines = open("/proc/cpuinfo").read().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
