"""python -m mechsub recheck"""

import argparse
import contextlib

from mechsub.commands import folder
from mechsub.lab import finder, probes, recheck
from mechsub.lab.terminal import say, stop


def add(commands) -> None:
    command = commands.add_parser(
        "recheck",
        help="make stored cells, or probes, again and compare them",
        description="Draw stored cells at random, make them again elsewhere, compare, and keep what came out in the "
        "store's rechecks.jsonl. With --probes: make the tiny cells again that tests keep of every study.",
        epilog="Exit code 0 if all is as stored, else 1. Killed, the same command goes on.",
    )
    command.add_argument("--share", type=_share, default=0.05, help="of every study's cells (default: 0.05)")
    command.add_argument("--all", action="store_true", help="the whole store")
    command.add_argument("--studies", nargs="+", default=[], metavar="NAME", help="of these studies only")
    command.add_argument("--workers", type=_workers, default=1, metavar="N", help="processes (default: 1)")
    command.add_argument("--store", default="artifacts", metavar="DIR", help="root of the results (default: artifacts)")
    command.add_argument("--probes", action="store_true", help="the probes of the studies, not the store")
    command.add_argument("--record", action="store_true", help="with --probes: keep what they give now")
    command.set_defaults(run=run)


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"a number above 0 and at most 1, not {text!r}")


def _workers(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= (value := int(text)) <= 1000:
        return value
    raise argparse.ArgumentTypeError(f"an integer from 1 to 1000, not {text!r}")


def run(options) -> int:
    if options.record and not options.probes:
        stop("--record is for --probes", 2)
    try:
        if unknown := [name for name in options.studies if finder.usable_study(name) is None]:
            stop(f"there is no study {unknown[0]!r}", 2)
        return _probes(options) if options.probes else _cells(options)
    except (ValueError, finder.CannotImport) as error:  # a draw of the cells of the other studies would be another draw
        stop(str(error), 1)


def _cells(options) -> int:
    root = folder(options.store)
    for line in recheck.recheck(root, 1.0 if options.all else options.share, options.studies, options.workers):
        outcome = "as stored" if line["same"] else f"differs: {line.get('first') or line['apart']}"
        say(f"{line['study']} {line['cell']}: {outcome} ({line['seconds']:.0f} s)")
    result = recheck.result(root)
    say(str(result))
    return 1 if result is None or result.differing else 0


def _probes(options) -> int:
    action, same = (probes.record, "recorded") if options.record else (probes.check, "the same")
    checked = []
    for done in action(options.studies or probes.studies(), options.workers):
        checked.append(done)
        say(f"{done.probe.name}: {done.problem or same} ({done.seconds:.1f} s)")
    problems = sum(bool(done.problem) for done in checked)
    say(f"{len(checked)} probes, {problems} with a problem; {sum(done.seconds for done in checked):.0f} s")
    return 1 if problems else 0
