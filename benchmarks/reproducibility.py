"""Does the same command give the same bytes, and what changes the numbers, by how much?

    python benchmarks/reproducibility.py [repeats fingerprints published additions] [--runs 20] [--studies NAME ...]

* repeats: three studies, each in both precisions, run 20 times in fresh processes (two at a time, so that their threads
  meet other work): records and tensors must be the same bytes;
* fingerprints: the same commands with another number of threads, and with the instructions of another processor (ATen,
  oneDNN and MKL held to AVX2 by their environment variables), against the plain command: the largest difference;
* published: the same for the published set-up (5 epochs, width 256, 3 seeds), and bf16 products against fp32;
* additions: more seeds, another metric, a sweep in place of single commands, more animals and numbers, another batch
  size: which existing numbers change.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mechsub.lab import store

ROOT = Path(__file__).parents[1]
TOY = {"n_seeds": 2, "epochs": 1, "d_model": 32, "batch_size": 4096}
SMALL = {
    "subliminal_accuracy": TOY,
    "hidden_alignment": {**TOY, "n_images": 60, "n_steps": 1},
    "token_entanglement": {"n_animals": 10, "n_partners": 40, "n_wordings": 2, "n_subset": 20, "n_permutations": 100},
}
PRECISIONS = ("fp32", "bf16")
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
ELSEWHERE = {
    "1 thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    "AVX2": AVX2,
    "oneDNN without bf16 instructions": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "MKL_CBWR=COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="repeats, fingerprints, published, additions (default: all)")
    parser.add_argument("--runs", type=int, default=20, help="of every command in repeats")
    parser.add_argument("--studies", nargs="+", choices=SMALL, default=list(SMALL), help="in repeats and fingerprints")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="in repeats")
    args = parser.parse_args()
    parts = {
        "repeats": lambda work: print_repeats(work, args.studies, args.precisions, args.runs),
        "fingerprints": lambda work: print_fingerprints(work, args.studies),
        "published": print_published,
        "additions": print_additions,
    }
    chosen = args.parts or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]!r}; choose from {', '.join(parts)}")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for part in chosen:
            parts[part](Path(folder))
    print(f"{time.perf_counter() - began:.0f} s")


# Running and comparing.


def tiny_model(folder: Path) -> Path:
    """A random Llama of 3 layers on disk, the same in every call."""
    if not folder.exists():
        sys.path.insert(0, str(ROOT / "tests"))
        from tiny_llama import save_tiny_llama

        save_tiny_llama(folder)
    return folder


def words(study: str, work: Path, **changed) -> list[str]:
    """The small command of a study with some options changed; a tuple of values is a sweep."""
    language = study == "token_entanglement"
    chosen = {**SMALL[study], **({"model": tiny_model(work / "llama")} if language else {}), **changed}
    if language and "precision" in chosen:
        chosen["dtype"] = chosen.pop("precision")
    out = []
    for name, value in chosen.items():
        out += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return out


def run(study: str, flags: Iterable[str], out: Path, changed: Mapping[str, str] = {}) -> list[Path]:
    """The cells of a command, run in a process of its own."""
    command = [sys.executable, "-m", f"studies.{study}", *flags, "--out", str(out)]
    environment = {**os.environ, **changed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return sorted(path.parent for path in (out / study).glob("*/provenance.json"))


def content(cell: Path) -> tuple[bytes, ...]:
    """Everything that a cell holds of numbers, byte by byte."""
    return tuple(path.read_bytes() for path in (cell / store.RECORDS, cell / store.TENSORS) if path.is_file())


def rows(cell: Path) -> list[dict]:
    """Records without the options of their cell."""
    options = {*store.read_provenance(cell)["config"], "products"}
    return [{key: value for key, value in row.items() if key not in options} for row in store.read_records(cell)]


def differences(these: list[dict], those: list[dict]) -> tuple[dict[str, float], int]:
    """Largest absolute difference of every field that differs, and how many values that are no floats differ."""
    most: dict[str, float] = {}
    others = 0
    for a, b in zip(these, those, strict=True):
        for key in {**a, **b}:
            x, y = a.get(key), b.get(key)
            if x == y:
                continue
            if isinstance(x, float) and isinstance(y, float):
                most[key] = max(most.get(key, 0.0), abs(x - y))
            else:
                others += 1
    return most, others


def tensor_difference(this: Path, that: Path) -> float:
    """Largest absolute difference of any stored value; log-probabilities in nats."""
    a, b = store.read_tensors(this), store.read_tensors(that)
    return max((float((a[key].double() - b[key].double()).abs().max()) for key in a), default=0.0)


def said(this: Path, that: Path, show: int = 4) -> str:
    """One line on how far two cells of the same options are apart."""
    if content(this) == content(that):
        return "the same bytes"
    most, others = differences(rows(this), rows(that))
    ordered = sorted(most.items(), key=lambda pair: -pair[1])[:show]
    parts = [f"{key} {value:.1e}" for key, value in ordered]
    if (tensors := tensor_difference(this, that)) > 0:
        parts.insert(0, f"stored matrices {tensors:.1e}")
    return f"at most {', '.join(parts)}; {others} values that are not fractions differ"


# The parts.


def print_repeats(work: Path, studies: Iterable[str], precisions: Iterable[str], n: int) -> None:
    print(f"the same command, {n} fresh processes, two at a time:")
    for study, precision in itertools.product(studies, precisions):
        found = repeated(study, words(study, work, precision=precision), n, work / f"{study}-{precision}-repeats")
        same = max(map(found.count, found))
        print(f"  {study}, {precision}: {same} of {n} byte-identical ({sum(map(len, found[0]))} bytes)", flush=True)


def repeated(study: str, flags: list[str], n: int, folder: Path) -> list[tuple[bytes, ...]]:
    """What n fresh processes store."""

    def once(i: int) -> tuple[bytes, ...]:
        (cell,) = run(study, flags, folder / str(i))
        found = content(cell)
        shutil.rmtree(folder / str(i))
        return found

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(once, range(n)))


def print_fingerprints(work: Path, studies: Iterable[str]) -> None:
    print("the same command elsewhere, against 2 threads and all instructions:")
    for study, precision in itertools.product(studies, PRECISIONS):
        flags, out = words(study, work, precision=precision), work / precision
        plain = run(study, flags, out / "plain")[0]
        for name, changed in ELSEWHERE.items():
            other = run(study, flags, out / name, changed)[0]
            print(f"  {study}, {precision}, {name}: {said(plain, other)}", flush=True)
        if precision == "bf16":
            full = next((work / "fp32" / "plain" / study).glob("*/provenance.json")).parent
            print(f"  {study}, bf16 against fp32: {said(plain, full)}", flush=True)


def print_published(work: Path) -> None:
    print("hidden_alignment with its defaults and 3 seeds, against fp32 and all instructions:")
    flags = ["--n-seeds", "3", "--n-steps", "1", "--precision"]
    plain = run("hidden_alignment", [*flags, "fp32"], work / "published")[0]
    for name, precision, changed in (
        ("AVX2", "fp32", AVX2),
        ("bf16 products", "bf16", {}),
    ):
        other = run("hidden_alignment", [*flags, precision], work / f"published, {name}", changed)[0]
        print(f"  {name}: {said(plain, other)}")
        print(f"    of trained students: {accuracies(plain, other)}", flush=True)


def accuracies(this: Path, that: Path) -> str:
    """Largest and mean difference of accuracy and of debiased CKA, arm by arm."""
    parts = []
    for field in ("accuracy", "debiased_cka"):
        pairs = [
            (a[field], b[field])
            for a, b in zip(rows(this), rows(that), strict=True)
            if field in a and "reference" not in a["arm"]
        ]
        apart = [abs(x - y) for x, y in pairs]
        parts.append(f"{field} mean {sum(apart) / len(apart):.1e}, largest {max(apart):.1e}")
    return "; ".join(parts)


def print_additions(work: Path) -> None:
    print("adding to what exists:")
    for study in ("subliminal_accuracy", "hidden_alignment"):
        few, many = (rows(run(study, words(study, work, n_seeds=n), work / f"{n} seeds")[0]) for n in (3, 5))
        print(f"  {study}, 5 seeds for 3: {said_of_common(few, many)}", flush=True)
    flags = words("hidden_alignment", work)
    (cell,) = run("hidden_alignment", flags, work / "metrics")
    before = content(cell)
    cells = run("hidden_alignment", [*flags, "--metric", "linear_r2", "cosine"], work / "metrics")
    print(f"  hidden_alignment, another --metric: {len(cells)} cell, same bytes: {content(cell) == before}", flush=True)
    study, grid = "subliminal_accuracy", {"n_aux": ("10", "1"), "loss": ("mse", "kl")}
    sweep = run(study, words(study, work, **grid), work / "sweep")
    for n_aux, loss in itertools.product(*grid.values()):
        run(study, words(study, work, n_aux=n_aux, loss=loss), work / "singles")
    same = sum(content(cell) == content(work / "singles" / study / cell.name) for cell in sweep)
    print(f"  {study}, a sweep of {len(sweep)} cells for single commands: {same} the same bytes", flush=True)
    study = "token_entanglement"
    (base,) = run(study, words(study, work), work / "base")
    (other,) = run(study, words(study, work, batch_size=7), work / "batches")
    print(f"  {study}, batches of 7 prompts for 16: {said(base, other)}", flush=True)
    for name, changed in (
        ("12 animals for 10", {"n_animals": 12}),
        ("50 numbers for 40", {"n_partners": 50}),
        ("3 wordings for 2", {"n_wordings": 3}),
    ):
        (other,) = run(study, words(study, work, **changed), work / name)
        print(f"  {study}, {name}: {said_of_words(rows(base), rows(other))}", flush=True)


KEYS = ("arm", "member", "layer", "step", "on")


def said_of_common(few: list[dict], many: list[dict]) -> str:
    """How many of the rows of fewer seeds are found among those of more, and which are not."""
    changed = changed_rows(few, many)
    where = sorted({f"{row['arm']} of member {row['member']}" for row in changed})
    most = differences([a for a, _ in pairs_of(few, many)], [b for _, b in pairs_of(few, many)])[0]
    text = ", ".join(f"{key} {value:.1e}" for key, value in sorted(most.items(), key=lambda pair: -pair[1])[:3])
    return f"{len(few) - len(changed)} of {len(few)} rows the same" + (
        f"; not {', '.join(where)} ({text})" if where else ""
    )


def pairs_of(few: list[dict], many: list[dict]) -> list[tuple[dict, dict]]:
    """Rows of both that have the same keys."""
    found = {tuple(row.get(key) for key in KEYS): row for row in many}
    return [(row, found[tuple(row.get(key) for key in KEYS)]) for row in few]


def changed_rows(few: list[dict], many: list[dict]) -> list[dict]:
    return [a for a, b in pairs_of(few, many) if a != b]


def said_of_words(few: list[dict], many: list[dict]) -> str:
    """What does not depend on the other words: the log-probabilities without any system message, word by word."""
    parts = []
    for kind in ("animal", "partner"):
        a, b = ({row[kind]: row["log_p_none"] for row in these if row["kind"] == kind} for these in (few, many))
        common = [abs(a[word] - b[word]) for word in a if word in b]
        same = sum(not value for value in common)
        parts.append(
            f"{len(common)} of {len(a)} {kind}s kept, {same} to the bit, largest difference {max(common):.1e} nats"
        )
    return "; ".join(parts)


if __name__ == "__main__":
    main()
