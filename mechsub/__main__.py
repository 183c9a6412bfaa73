"""Commands on what studies have stored, and on this machine.

python -m mechsub verify [PATH]   # exit code 0 if nothing in the store is damaged or missing, else 1
python -m mechsub doctor          # exit code 0 if what `make run` needs is there, else 1
"""

import argparse
import sys
from pathlib import Path

from mechsub import terminal


@terminal.command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mechsub", description=(__doc__ or "").partition("\n")[0])
    parser.error = _refuse  # type: ignore[method-assign]
    commands = parser.add_subparsers(dest="command", required=True, parser_class=argparse.ArgumentParser)
    _add_verify(commands)
    _add_doctor(commands)
    for command in commands.choices.values():
        command.error = _refuse  # type: ignore[method-assign]
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

    root = Path(options.path).expanduser()
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


def _add_doctor(commands) -> None:
    command = commands.add_parser(
        "doctor",
        help="say what works on this machine, and how to mend what does not",
        description="Say what of mechsub works on this machine, and the one command that mends what does not.",
        epilog="Exit code 0 if what `make run` needs is there, else 1. No network is used.",
    )
    command.set_defaults(run=_doctor)


def _doctor(options) -> int:
    from mechsub import doctor

    marks = {"good": "ok", "absent": "-", "missing": "MISSING"}
    missing = 0
    for kind, about, text, fix in doctor.findings():
        missing += kind == "missing"
        print(_printable(f"{marks[kind]:8}{about:12}{text}"))
        if fix:
            print(_printable(f"{'':20}fix: {fix}"))
    wanted = "1 thing is" if missing == 1 else f"{missing} things are"
    print(f"{wanted} missing for `make run`" if missing else "what `make run` needs is there")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
