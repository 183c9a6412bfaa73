"""python -m mechsub verify [PATH]"""

import argparse

from mechsub.commands import folder
from mechsub.lab import store, verify
from mechsub.lab.terminal import say, stop


def add(commands) -> None:
    kinds = "\n".join(f"  {kind:12}{meaning}" for kind, meaning in verify.KINDS.items())
    command = commands.add_parser(
        "verify",
        help="check every file of a store",
        description=f"Check every file of a store against its sha256, and name what is\n\n{kinds}",
        epilog="Exit code 0 if nothing is damaged or missing, else 1.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("path", nargs="?", default="artifacts", help="root of the results (default: artifacts)")
    command.set_defaults(run=run)


def run(options) -> int:
    root = folder(options.path)
    if any((part / store.PROVENANCE).is_file() for part in (root, *root.iterdir())):
        stop(f"{root} is a part of a store; give the folder that holds the folders of the studies", 2)
    counts = dict.fromkeys(("cell", *verify.KINDS), 0)
    for kind, line in verify.findings(root):
        counts[kind] += 1
        if kind != "cell":
            say(f"{kind:12}{line}")
    cells = counts.pop("cell")
    say(f"{cells} whole cells; " + ", ".join(f"{kind}: {count}" for kind, count in counts.items()))
    return 1 if any(counts[kind] for kind in verify.FAILURES) else 0
