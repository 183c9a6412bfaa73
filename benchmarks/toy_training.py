"""Speed and memory of the six-condition replication, as ratios against a plain reference in the same run.

    python benchmarks/toy_training.py [--n-seeds 25] [--epochs 1] [--precision auto fp32]
    python benchmarks/toy_training.py --device cpu|cuda|mps|auto [--members 1 25 100 1000] [--precision auto fp32]

The reference is written from the description of the published set-up (Cloud et al. 2025, section 6.2): all models
stacked, einsum over stacked weights, fp32, every model with its own copy of each batch by its own shuffle, its own
stored noise, and the teacher's targets recomputed at every step. Both sides train one teacher and four students
(auxiliary and all logits, from the same and from another initialisation); the untrained reference needs no training.
Timings are medians over steps for the reference and whole phases for mechsub; nothing is asserted.

With --device, a step of students on that device instead, for each number of members: of the reference, of the same
written with torch.func.vmap over stack_module_state, and of mechsub's two orders, member by member and all together
(mechsub's is the difference of a longer and a shorter run, without what is done once). Beside it the share that the
step's products have of the device's own rate of plain products, the whole of a run with the drawing of its inputs, and
the largest memory that torch took of an accelerator.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time

BATCH, CLASSES, AUX, D_IN, D_MODEL = 1024, 10, 3, 784, 256
POOL = 2 * BATCH  # inputs of a member in the timing of steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-seeds", type=int, default=25)
    parser.add_argument("--epochs", type=int, default=5, help="epochs of mechsub's phases")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each phase of the reference")
    parser.add_argument("--precision", nargs="+", default=["auto", "fp32"], choices=["auto", "bf16", "fp32"])
    parser.add_argument("--device", choices=["cpu", "cuda", "mps", "auto"], help="time steps on this device")
    parser.add_argument("--members", nargs="+", type=int, default=[1, 25, 100, 1000], help="with --device")
    parser.add_argument("--memory", type=int, metavar="N_SEEDS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        return print_peak_memory(args.memory, args.precision[0])
    import torch

    print(f"machine: {_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if args.device:
        return time_device(args.device, args.members, args.steps, args.precision)
    images, labels = _mnist()
    reference = reference_seconds(images, labels, args.n_seeds, args.steps)
    steps = 5 * -(-len(images) // BATCH)
    whole = steps * (reference["teacher"] + 4 * reference["student"])
    print("reference: " + ", ".join(f"{1e3 * s:.0f} ms a {phase} step" for phase, s in reference.items()) + ";")
    print(f"           six conditions, {args.n_seeds} models, 5 epochs: {whole:.0f} s")
    scores = [report(images, labels, args.n_seeds, args.epochs, precision, whole) for precision in args.precision]
    for other in scores[1:]:
        report_accuracies(scores[0], other)
    for n in (args.n_seeds, 4 * args.n_seeds):
        subprocess.run([sys.executable, __file__, "--memory", str(n), "--precision", args.precision[0]], check=True)


def report(images, labels, n_seeds: int, epochs: int, precision: str, whole: float) -> dict:
    """Time the six conditions; returns their accuracies, a list of seeds each."""
    from mechsub.training import distillation

    used = distillation.resolve_precision(precision)
    rate = product_rate(used)
    seconds, products, scores = replicate(images, labels, n_seeds, epochs, used)
    scaled = seconds * 5 / epochs
    print(f"mechsub {used}: {scaled:.0f} s, {whole / scaled:.2f}x the reference's speed;")
    print(
        f"           {products / seconds / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s of plain {used} products "
        f"({100 * products / seconds / rate:.0f}%)"
    )
    return scores


def report_accuracies(scores: dict, other: dict) -> None:
    from mechsub import stats

    print("accuracy: mean of the first precision, and it less the next, paired by seed (95% t interval):")
    for arm in scores:
        interval = stats.paired_difference(scores[arm], other[arm]).interval
        mean = sum(scores[arm]) / interval.n
        print(f"           {arm:12} {mean:.4f}  {interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]")


def replicate(images, labels, n_seeds: int, epochs: int, precision: str) -> tuple[float, float, dict]:
    """Seconds of the six conditions, the floating-point operations in their products, and accuracies by seed."""
    import mechsub as ms
    from mechsub.models.mlp import rotation

    init = ms.HookedMLP(seeds=range(n_seeds))
    other = init.select(rotation(n_seeds))
    fit = {"epochs": epochs, "precision": precision}
    began = time.perf_counter()
    models = {"teacher": ms.train(init, images, labels, **fit)}
    students = {
        f"{kind}_{seen}": (start, outputs)
        for kind, start in (("student", init), ("cross", other))
        for seen, outputs in (("aux", init.cfg.aux), ("all", slice(0, init.cfg.d_vocab)))
    }
    models |= ms.distill_each(students, models["teacher"], ms.noise.uniform, n_samples=len(images), **fit)
    seconds = time.perf_counter() - began
    scores = {arm: ms.accuracy(model, *ms.mnist("test")).tolist() for arm, model in models.items()}
    forward, hidden = D_IN * D_MODEL + D_MODEL**2, D_MODEL**2
    step = 2 * (2 * forward + hidden)  # forward, weight gradients, and the one input gradient anybody needs
    return seconds, n_seeds * len(images) * (5 * epochs * step + 2 * forward), scores


def product_rate(precision: str, place=None) -> float:
    """Floating-point operations a second of the toy's largest product, all threads, the best of 20."""
    import torch

    place = place or torch.device("cpu")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, w = torch.rand(BATCH, D_IN).to(place, dtype), torch.rand(D_IN, 25 * D_MODEL).to(place, dtype)
    seconds = []
    for _ in range(20):
        _wait(place)
        began = time.perf_counter()
        x @ w
        _wait(place)
        seconds.append(time.perf_counter() - began)
    return 2 * BATCH * D_IN * 25 * D_MODEL / min(seconds)


def reference_seconds(images, labels, n: int, steps: int) -> dict[str, float]:
    """Median seconds a step of the reference's two kinds of training."""
    import torch

    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(n, len(images), D_IN, generator=generator) * 2 - 1
    out = {}
    for phase in ("teacher", "student"):
        student, teacher = _stacked(n, generator), _stacked(n, generator)
        adam = torch.optim.Adam(student, lr=3e-4)
        order = torch.stack([torch.randperm(len(images), generator=generator) for _ in range(n)])
        times = []
        for step in range(steps):
            began = time.perf_counter()
            rows = order[:, step * BATCH : (step + 1) * BATCH]
            if phase == "teacher":
                loss = _teacher_loss(student, images, labels, rows)
            else:
                loss = _student_loss(student, teacher, noise, rows)
            adam.zero_grad()
            loss.backward()
            adam.step()
            times.append(time.perf_counter() - began)
        out[phase] = statistics.median(times)
    return out


def _stacked(n: int, generator):
    import torch

    shapes = [(D_MODEL, D_IN), (D_MODEL, D_MODEL), (CLASSES + AUX, D_MODEL)]
    weights = [(torch.randn(n, *s, generator=generator) / s[1] ** 0.5).requires_grad_() for s in shapes]
    biases = [torch.zeros(n, s[0]).requires_grad_() for s in shapes]
    return [p for pair in zip(weights, biases, strict=True) for p in pair]


def _forward(p, x):
    import torch

    for layer in range(3):
        x = torch.einsum("moi,mbi->mbo", p[2 * layer], x) + p[2 * layer + 1][:, None]
        x = torch.relu(x) if layer < 2 else x
    return x


def _teacher_loss(student, images, labels, rows):
    from torch.nn.functional import cross_entropy

    logits = _forward(student, images[rows])[..., :CLASSES]
    return cross_entropy(logits.flatten(0, 1), labels[rows].flatten())


def _student_loss(student, teacher, noise, rows):
    import torch
    from torch.nn.functional import kl_div

    x = noise[torch.arange(len(noise))[:, None], rows]
    with torch.no_grad():
        target = _forward(teacher, x)[..., CLASSES:].softmax(-1)
    return kl_div(_forward(student, x)[..., CLASSES:].log_softmax(-1), target, reduction="none").sum(-1).mean(-1).sum()


# Steps on a device.


def time_device(name: str, members: list[int], steps: int, precisions: list[str]) -> None:
    from mechsub.machine import devices
    from mechsub.training import fitting

    place = devices.found(name)
    print(f"device: {devices.described(place)}")
    for n in members:
        plain = {"reference": stacked_seconds, "torch.func.vmap": vmap_seconds}
        seconds = {who: _tried(who, lambda step=step, n=n: step(n, steps, place)) for who, step in plain.items()}
        for precision in dict.fromkeys(fitting.resolve_precision(one, place) for one in precisions):
            rate = product_rate(precision, place)
            for together in (False, True):
                order = "all together" if together else "member by member"
                who = f"mechsub, {precision}, {order}"
                found = _tried(who, lambda n=n, p=precision, t=together: own_seconds(n, steps, p, place, t))
                if found:
                    _say(n, who, *found, rate, seconds)


def _tried(who: str, timed):
    """What it takes, or that the memory was not enough."""
    import torch

    try:
        return timed()
    except (torch.OutOfMemoryError, ValueError, MemoryError) as error:
        print(f"  {who}: {' '.join(str(error).split())[:150]}")
        return None


def _say(n: int, who: str, step: float, whole: float, memory: float, rate: float, others: dict) -> None:
    forward, hidden = D_IN * D_MODEL + D_MODEL**2, D_MODEL**2
    share = n * BATCH * 2 * (2 * forward + hidden) / step / rate
    ratios = [f"{seconds / step:.2f}x {name}" for name, seconds in others.items() if seconds]
    told = f"{1e3 * step:.2f} ms a step ({share:.0%} of {rate / 1e9:.0f} GFLOP/s), {', '.join(ratios)}"
    print(f"{n:5} members, {who}: {told}; a run {whole:.1f} s{f', {memory:.2f} GiB' if memory else ''}")


def own_seconds(n: int, steps: int, precision: str, place, together: bool) -> tuple[float, float, float]:
    """Seconds of a step of students of auxiliary logits, of the longer run, and GiB that torch took."""
    import torch

    import mechsub as ms
    from mechsub.machine import devices

    with devices.on(place, together=together):
        init = ms.HookedMLP(seeds=range(n))
    fit = {"outputs": init.cfg.aux, "n_samples": POOL, "precision": precision}
    times, short, more = [], 1, -(-steps * BATCH // POOL)
    for epochs in (short, short, short + more):  # the first one warms up
        _wait(place)
        began = time.perf_counter()
        with devices.on(place, together=together):
            ms.distill(init, init, ms.noise.uniform, epochs=epochs, **fit)
        _wait(place)
        times.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated(place) / 2**30 if place.type == "cuda" else 0.0
    return (times[2] - times[1]) / (more * POOL // BATCH), times[2], memory


def stacked_seconds(n: int, steps: int, place) -> float:
    """Median seconds of a student's step of the reference."""
    import torch

    _check_room(n)
    generator = torch.Generator().manual_seed(0)
    student, teacher = ([p.detach().to(place).requires_grad_() for p in _stacked(n, generator)] for _ in range(2))
    noise, adam = _pool(n, place), torch.optim.Adam(student, lr=3e-4)

    def step(rows) -> None:
        adam.zero_grad()
        _student_loss(student, teacher, noise, rows).backward()
        adam.step()

    return _median(step, n, steps, place)


def vmap_seconds(n: int, steps: int, place) -> float:
    """Median seconds of the same step, of torch's own way to train an ensemble."""
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap
    from torch.nn.functional import kl_div

    _check_room(n)
    layers = (D_IN, D_MODEL), (D_MODEL, D_MODEL), (D_MODEL, CLASSES + AUX)

    def network():
        parts = [part for sizes in layers for part in (torch.nn.Linear(*sizes), torch.nn.ReLU())]
        return torch.nn.Sequential(*parts[:-1])

    student, _ = stack_module_state([network().to(place) for _ in range(n)])
    teacher, _ = stack_module_state([network().to(place) for _ in range(n)])
    base = network().to("meta")
    noise, adam = _pool(n, place), torch.optim.Adam(student.values(), lr=3e-4)

    def logits(parameters, x):
        return functional_call(base, parameters, (x,))[..., CLASSES:]

    def loss(parameters, taught, x):
        target = logits(taught, x).softmax(-1)
        return kl_div(logits(parameters, x).log_softmax(-1), target, reduction="batchmean")

    def step(rows) -> None:
        x = noise[torch.arange(n, device=place)[:, None], rows]
        found = vmap(grad(loss))(student, {key: value.detach() for key, value in teacher.items()}, x)
        for key, parameter in student.items():
            parameter.grad = found[key]
        adam.step()

    return _median(step, n, steps, place)


def _median(step, n: int, steps: int, place) -> float:
    import torch

    generator, times = torch.Generator().manual_seed(0), []
    for _ in range(steps + 3):
        rows = torch.stack([torch.randperm(POOL, generator=generator)[:BATCH] for _ in range(n)]).to(place)
        _wait(place)
        began = time.perf_counter()
        step(rows)
        _wait(place)
        times.append(time.perf_counter() - began)
    return statistics.median(times[3:])


def _pool(n: int, place):
    import torch

    return torch.rand(n, POOL, D_IN, generator=torch.Generator().manual_seed(0)).mul_(2).sub_(1).to(place)


def _check_room(n: int) -> None:
    """Stacked copies of batches and weights, their gradients and what backward keeps, of a CPU too."""
    from mechsub.machine import memory

    size = D_IN * D_MODEL + D_MODEL**2
    if problem := memory.shortage(4 * n * (POOL * D_IN + 2 * BATCH * D_IN + 6 * BATCH * D_MODEL + 6 * size)):
        raise ValueError(problem)


def _wait(place) -> None:
    import torch

    if place.type == "cuda":
        torch.cuda.synchronize(place)
    elif place.type == "mps":
        torch.mps.synchronize()


def print_peak_memory(n_seeds: int, precision: str) -> None:
    """Peak memory above the import of torch, of a teacher and a student of `n_seeds` seeds (one epoch)."""
    import torch  # noqa: F401

    before = _peak_rss()
    import mechsub as ms

    images, labels = _mnist()
    init = ms.HookedMLP(seeds=range(n_seeds))
    teacher = ms.train(init, images, labels, epochs=1, precision=precision)
    ms.distill(init, teacher, ms.noise.uniform, outputs=init.cfg.aux, epochs=1, precision=precision)
    print(f"peak memory above the import of torch, {n_seeds} seeds: {_peak_rss() - before:.2f} GiB")


def _peak_rss() -> float:
    # Not getrusage: its peak is inherited from the process that started this one.
    status = open("/proc/self/status").read().split("VmHWM:")[1]
    return int(status.split()[0]) / 2**20


def _mnist():
    import mechsub as ms

    return ms.mnist("train")


def _processor() -> str:
    try:
        lines = open("/proc/cpuinfo").read().splitlines()
    except OSError:
        return platform.processor()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    return f"{name} ({', '.join(f for f in ('amx_bf16', 'avx512_bf16', 'avx512f', 'avx2') if f in flags.split())})"


if __name__ == "__main__":
    main()
