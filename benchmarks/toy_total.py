"""What the stored cells of the toy cost, by their own provenance, and what shared teachers saved.

    python benchmarks/toy_total.py [ROOT]

Seconds are those that each cell took when it was made, on the processor that its provenance names, beside whatever
else ran there. A set of teachers is trained once for all cells that learn from it (`studies.teachers`, addressed by
content); what the other cells would have spent is counted at the seconds of one training of 25 published teachers here.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

TOY = (
    *("subliminal_accuracy", "hidden_alignment", "factors", "input_distributions", "mechanism", "conditions"),
    *("channel", "pretrained", "recipe_search", "maximise", "more_classes", "next_token"),
)


def main(root: Path) -> None:
    total, uses = 0.0, Counter()
    for name in TOY:
        made = [json.loads(path.read_text()) for path in sorted((root / name).glob("*/provenance.json"))]
        made = [one for one in made if str(one["config"].get("model", "toy")) == "toy"]
        seconds = sum(one["seconds"] for one in made)
        total += seconds
        uses.update(source for one in made for source in one.get("made_from", {}) if source.startswith("teachers/"))
        print(f"{name:22} {len(made):4} cells {seconds:8.0f} s")
    print(f"{'all':22} {'':4}       {total:8.0f} s = {total / 3600:.1f} hours")
    again = sum(uses.values()) - len(uses)
    each = _training()
    print(f"{sum(uses.values())} cells learned from {len(uses)} sets of teachers: {again} times {each:.0f} s saved")


def _training() -> float:
    import mechsub as ms

    images, labels = ms.mnist("train")
    started = time.perf_counter()
    ms.train(ms.HookedMLP(seeds=range(25)), images, labels)
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path("artifacts"), help="folder of the stored cells")
    main(parser.parse_args().root)
