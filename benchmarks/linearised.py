"""What a prediction costs beside the training that it predicts: seconds of the processor, as ratios in one run.

    python benchmarks/linearised.py [--n-seeds 2] [--inputs uniform] [--n-closed 700]

A student is distilled as published (295 steps of 1,024 inputs); then predicted, linearised once at the teacher's
midpoint, and in four stages: in fp32, and with the products that studies have on this processor. The closed form is one
eigendecomposition of the kernel of `--n-closed` inputs, and a share of the teacher's displacement for each of six
numbers of steps. Nothing is asserted.
"""

import argparse
import math
import time

import torch

STEPS = (1, 59, 295, 1180, 4012, math.inf)  # of which the closed form is asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-seeds", type=int, default=2)
    parser.add_argument("--inputs", default="uniform")
    parser.add_argument("--n-closed", type=int, default=700)
    args = parser.parse_args()
    import mechsub as ms
    from mechsub.inputs import distributions
    from mechsub.training.fitting import resolve_precision

    images, labels = ms.mnist("train")
    start = ms.HookedMLP(seeds=range(args.n_seeds))
    teacher = ms.train(start, images, labels)
    given = {"outputs": start.cfg.aux, "n_samples": 60_000}
    sampler = distributions.sampler(args.inputs, images)
    print(f"{args.n_seeds} seeds, {args.inputs}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    stages = {"one stage": {}, "four stages": {"at": "start", "relinearised": (74, 148, 221)}}
    first = 0.0  # of the training in fp32
    for precision in dict.fromkeys(("fp32", resolve_precision())):
        options = {**given, "precision": precision}
        training = seconds(lambda options=options: ms.distill(start, teacher, sampler, **options))
        first = first or training
        print(f"distill, {precision}: {training:.1f} s of the processor")
        for words, more in stages.items():
            asked = {**options, **more}
            took = seconds(lambda asked=asked: ms.linearised_student(start, teacher, sampler, **asked))
            of_first = "" if precision == "fp32" else f", {took / first:.2f} of that in fp32"
            print(f"linearised_student, {precision}, {words}: {took / training:.2f} of it{of_first}")
    took = seconds(lambda: shares(ms, start, teacher, sampler, args.n_closed))
    print(f"closed form of {args.n_closed} inputs, {len(STEPS)} numbers of steps: {took / args.n_seeds:.1f} s a seed")


def seconds(call) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def shares(ms, start, teacher, sampler, n: int) -> list:
    start, teacher = start.double(), teacher.double()
    way, aux = ms.spectra.displacement(teacher, start), start.cfg.aux
    middle = start.replace({name: value + way[name] / 2 for name, value in start.named_parameters()})
    x = sampler(n, torch.Generator().manual_seed(0)).double()
    at = ms.tangent.tangent(middle, x, aux)
    found = ms.tangent_modes.tangent_modes(at, ms.tangent.push(at, way), start(x)[..., aux].softmax(-1))
    return [ms.tangent_modes.way_learned(found, way, steps, 3e-4) for steps in STEPS]


if __name__ == "__main__":
    main()
