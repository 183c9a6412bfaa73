"""Commands on what studies have stored.

    python -m mechsub verify [PATH]   # exit code 0 if nothing in the store is damaged or missing, else 1
"""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mechsub", description="Commands on what studies have stored.")
    parser.error = _refuse
    commands = parser.add_subparsers(dest="command", required=True, parser_class=argparse.ArgumentParser)
    _add_verify(commands)
    for command in commands.choices.values():
        command.error = _refuse
    options = parser.parse_args(argv)
    return options.run(options)


def _refuse(message: str):
    print(f"error: {_printable(message)}", file=sys.stderr)
    raise SystemExit(2)


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in line)


def _add_verify(commands) -> None:
    from mechsub.audit import KINDS

    told = "\n".join(f"  {kind:12}{meaning}" for kind, meaning in KINDS.items())
    command = commands.add_parser(
        "verify",
        help="check every file of a store",
        description=f"Check every file of a store against its sha256, and name what is\n\n{told}",
        epilog="Exit code 0 if nothing is damaged or missing, else 1.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("path", nargs="?", default="artifacts", help="root of the results (default: artifacts)")
    command.set_defaults(run=_verify)


def _verify(options) -> int:
    from mechsub import audit, store

    root = Path(options.path)
    if not root.is_dir():
        _refuse(f"{root} is not a folder")
    if any((folder / store.PROVENANCE).is_file() for folder in (root, *root.iterdir())):
        _refuse(f"{root} is a part of a store; give the folder that holds the folders of the studies")
    counts = dict.fromkeys(("cell", *audit.KINDS), 0)
    for kind, line in audit.findings(root):
        counts[kind] += 1
        if kind != "cell":
            print(_printable(f"{kind:12}{line}"))
    cells = counts.pop("cell")
    print(f"{cells} whole cells; " + ", ".join(f"{kind}: {count}" for kind, count in counts.items()))
    return 1 if any(counts[kind] for kind in audit.FAILURES) else 0


if __name__ == "__main__":
    raise SystemExit(main())
