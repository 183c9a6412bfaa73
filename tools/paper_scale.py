"""The language studies on models of one's own, in the papers' forms and the repaired ones, and one folder to send.

    make paper-scale MODEL=meta-llama/Llama-3.2-1B-Instruct BASE=meta-llama/Llama-3.2-1B DEVICE=cuda
    make paper-scale MODEL=... BASE=... LARGE=meta-llama/Llama-3.1-8B-Instruct DEVICE=cuda ARGS="--dtype bf16"
    make paper-scale MODEL=... ARGS=--plan       # what would run, and about how long; runs nothing

What is stored under --out is reused, so that the same command goes on after a stop. A command that fails is named at
the end, and the others run. The folder that is written last has cells, records, findings, figures and the report.
"""

import argparse
import functools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mechsub import language, sources
from mechsub.lab import durations, exports, finder
from mechsub.machine import devices

SIZE = 2048  # of the square products that a device is timed by
PAGE = ("index.html", "plotly.min.js")  # of the report


class Command(NamedTuple):
    study: str
    model: str  # whose size the time goes with
    options: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        return [sys.executable, "-m", f"studies.{self.study}", *self.options]


def plan(model: str, base: str, large: str, dtype: str) -> Iterator[Command]:
    """Published form, repaired form, random weights, geometry, causes; the pair; and the first of these at scale."""
    kind = ("--dtype", dtype)
    yield from _pairs(model, kind)
    yield Command("token_entanglement", model, ("--model", model, "--weights", "random-0", "random-1", *kind))
    yield Command(
        "interaction_spectrum", model, ("--model", model, "--weights", "trained", "random-0", "random-1", *kind)
    )
    for study in ("hidden_alignment", "lens_trajectory", "bottleneck", "contributions", "steering"):
        yield Command(study, model, ("--model", model, *kind))
    if base:
        yield from _pairs(base, kind)
        yield Command("base_vs_instruct", model, ("--base", base, "--instruct", model, *kind))
    if large:
        yield from _pairs(large, kind)


def _pairs(model: str, kind: tuple[str, ...]) -> Iterator[Command]:
    published = ("--format", "published", "--spaced", "false")
    yield Command("token_entanglement", model, ("--model", model, *published, *kind))
    yield Command("token_entanglement", model, ("--model", model, *kind))
    yield Command("interaction_spectrum", model, ("--model", model, *kind))
    for metric in ("cosine", "causal", "dla"):
        yield Command("unembed_projection", model, ("--model", model, "--metric", metric, *kind))


@functools.cache
def n_weights(model: str) -> int:
    """Of its configuration alone: nothing is loaded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    place = sources.default_folder() if model == language.DEFAULT else sources.find(model) or model
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(place))
    return sum(value.numel() for value in made.parameters())


def expected(command: Command, size: int, store: Path, faster: float) -> float | None:
    """Seconds: the median of the study's stored cells of the model next in size, times the weights, over how much
    faster products are here; of a study that loads no model, the median of its cells."""
    made = [json.loads(path.read_text(encoding="utf-8")) for path in (store / command.study).glob("*/provenance.json")]
    sized = [(n, one["seconds"]) for one in made if (n := _size_of(one))]
    if sized:
        near = min((n for n, _ in sized), key=lambda n: (abs(math.log(n / size)), n))
        return statistics.median(seconds for n, seconds in sized if n == near) * size / near / faster
    return statistics.median(one["seconds"] for one in made) if made else None


def _size_of(made: dict) -> int | None:
    """Weights of the model of a stored cell; of a cell of two models, of its base."""
    base = made.get("config", {}).get("base")
    if "n_params" in made or not base:
        return made.get("n_params")
    try:
        return n_weights(base)
    except (OSError, ValueError):  # a model that is not at hand
        return None


def rate(device: str) -> float:
    """Square products a second, fp32."""
    import torch

    x = torch.ones(SIZE, SIZE, device=device)
    (x @ x).sum().item()
    start = time.perf_counter()
    for _ in range(5):
        y = x @ x
    y.sum().item()
    return 5 / (time.perf_counter() - start)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="paper_scale", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", required=True, help="instruct model: Hugging Face id or folder")
    parser.add_argument("--base", default="", help="its base model")
    parser.add_argument("--large", default="", help="a larger model, on which the studies of pairs run")
    parser.add_argument("--device", default="auto", choices=devices.NAMES)
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--out", default="paper_scale", help="store and, beside it, the folder to send")
    parser.add_argument("--plan", action="store_true", help="print what would run, and run nothing")
    options = parser.parse_args(argv)
    options.device = str(devices.found(options.device))
    if not options.plan and (problem := _no_target(Path(options.out))):
        parser.error(problem)
    commands = list(plan(options.model, options.base, options.large, options.dtype))
    try:
        sizes = {name: n_weights(name) for name in dict.fromkeys(command.model for command in commands)}
    except (OSError, ValueError) as error:  # of transformers, whose message is many lines
        print(f"error: the configuration cannot be read: {str(error).splitlines()[0][:300]}", file=sys.stderr)
        return 2
    bytes_ = 2 if options.dtype == "bf16" else 4
    for name, size in sizes.items():
        print(f"{name}: {size:,} weights, {size * bytes_ / 2**30:.1f} GiB of {options.dtype} on {options.device}")
    faster = rate(options.device) / rate("cpu") if options.device != "cpu" else 1.0
    _print_plan(commands, sizes, faster)
    if options.plan:
        return 0
    failed = [command for command in commands if not _ran(command, options)]
    for command in failed:
        print(f"failed: {' '.join(command.words[2:])}", file=sys.stderr)
    for line in (unsent := list(_send(Path(options.out)))):
        print(f"failed: {' '.join(line.split())[:800]}", file=sys.stderr)
    return 1 if failed or unsent else 0


def _print_plan(commands: Sequence[Command], sizes: dict[str, int], faster: float) -> None:
    store = finder.folder().parent / "artifacts"
    total = 0.0
    for command in commands:
        seconds = expected(command, sizes[command.model], store, faster)
        total += seconds or 0.0
        shown = "unknown" if seconds is None else durations.words(seconds)
        print(f"{shown:>12}  {command.study} {' '.join(command.options)}")
    print(
        f"{durations.words(total):>12}  in all; products here are {faster:.1f} times as fast as on this machine's CPU"
    )


def _ran(command: Command, options: argparse.Namespace) -> bool:
    words = [*command.words, "--out", options.out, "--device", options.device]
    print(f"{time.strftime('%H:%M:%S')} {' '.join(words[2:])}", flush=True)
    return subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode == 0


def _no_target(store: Path) -> str:
    """Why the folder to send cannot be written, before hours of computing; or nothing."""
    if not store.name or store.name == "..":
        return f"--out {str(store)!r} names no folder of its own"
    folder = _target(store)
    return f"{folder} is there already; move it away, or give another --out" if folder.exists() else ""


def _target(store: Path) -> Path:
    return store.with_name(f"{store.name}_to_send")


def _send(store: Path) -> Iterator[str]:
    """Write cells, tables, figures and the page into one folder beside the store; a line for each that fails."""
    folder, names = _target(store), exports.studies_in(store) if store.is_dir() else []
    if not names:
        yield f"no cell is stored under {store}; there is nothing to send"
        return
    words = [sys.executable, "-m", "studies.report", "--out", str(store), "--beside", str(store)]
    page = [store / name for name in PAGE]
    if subprocess.run(words, check=False).returncode:
        yield f"the report; python {' '.join(words[1:])} says why"
        page = []
    try:
        left_out = exports.write(folder, store, names, page)
    except (OSError, ValueError) as error:
        yield f"the folder to send: {error}; then run python -m mechsub export {folder} --store {store}"
        return
    print("".join(f"left out: {line}\n" for line in left_out) + f"to send: {folder}")


if __name__ == "__main__":
    raise SystemExit(main())
