"""Commands on what studies have stored, and on this machine.

python -m mechsub verify [PATH]   # exit code 0 if nothing in the store is damaged or missing, else 1
python -m mechsub recheck         # exit code 0 if cells made again are what is stored, else 1
python -m mechsub doctor          # exit code 0 if what `make run` needs is there, else 1
python -m mechsub export PATH     # a new folder that can be sent: cells, tables, figures, sums
python -m mechsub import FOLDER   # exit code 0 if the folder is what was sent, and its cells are stored, else 1
python -m mechsub push | pull     # such a folder, to and from a repository on the Hugging Face hub
"""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import NoReturn

from mechsub.lab import terminal


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _refuse(message)


@terminal.command
def main(argv: list[str] | None = None) -> int:
    parser = _Parser(prog="python -m mechsub", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    _add_verify(commands)
    _add_recheck(commands)
    _add_doctor(commands)
    _add_export(commands)
    _add_import(commands)
    _add_push(commands)
    _add_pull(commands)
    options = parser.parse_args(argv)
    return options.run(options)


def _refuse(message: str) -> NoReturn:
    print(f"error: {_printable(message)}", file=sys.stderr)
    raise SystemExit(2)


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in line)


def _add_verify(commands) -> None:
    from mechsub.lab.verify import KINDS

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
    from mechsub.lab import store, verify

    root = Path(options.path).expanduser()
    if not root.is_dir():
        _refuse(f"{root} is not a folder")
    if any((folder / store.PROVENANCE).is_file() for folder in (root, *root.iterdir())):
        _refuse(f"{root} is a part of a store; give the folder that holds the folders of the studies")
    counts = dict.fromkeys(("cell", *verify.KINDS), 0)
    for kind, line in verify.findings(root):
        counts[kind] += 1
        if kind != "cell":
            print(_printable(f"{kind:12}{line}"))
    cells = counts.pop("cell")
    print(f"{cells} whole cells; " + ", ".join(f"{kind}: {count}" for kind, count in counts.items()))
    return 1 if any(counts[kind] for kind in verify.FAILURES) else 0


def _add_recheck(commands) -> None:
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
    command.set_defaults(run=_recheck)


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"a number above 0 and at most 1, not {text!r}")


def _workers(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= (value := int(text)) <= 1000:
        return value
    raise argparse.ArgumentTypeError(f"an integer from 1 to 1000, not {text!r}")


def _recheck(options) -> int:
    from mechsub.lab import finder, recheck

    if options.record and not options.probes:
        _refuse("--record is for --probes")
    if unknown := [name for name in options.studies if finder.find_study(name) is None]:
        _refuse(f"there is no study {unknown[0]!r}")
    if options.probes:
        return _probes(options)
    root = Path(options.store)
    if not root.is_dir():
        _refuse(f"{root} is not a folder")
    try:
        for line in recheck.recheck(root, 1.0 if options.all else options.share, options.studies, options.workers):
            said = "as stored" if line["same"] else f"differs: {line.get('first') or line['apart']}"
            print(_printable(f"{line['study']} {line['cell']}: {said} ({line['seconds']:.0f} s)"), flush=True)
        result = recheck.result(root)
    except ValueError as error:
        print(f"error: {_printable(str(error))}", file=sys.stderr)
        return 1
    print(result)
    return 1 if result is None or result.differing else 0


def _probes(options) -> int:
    from mechsub.lab import probes

    try:
        names = options.studies or probes.studies()
        action = probes.record if options.record else probes.check
        checked = []
        for done in action(names, options.workers):
            checked.append(done)
            said = done.problem or ("recorded" if options.record else "the same")
            print(_printable(f"{done.probe.name}: {said} ({done.seconds:.1f} s)"), flush=True)
    except ValueError as error:
        print(f"error: {_printable(str(error))}", file=sys.stderr)
        return 1
    problems = sum(bool(done.problem) for done in checked)
    print(f"{len(checked)} probes, {problems} with a problem; {sum(done.seconds for done in checked):.0f} s")
    return 1 if problems else 0


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


def _add_export(commands) -> None:
    command = commands.add_parser(
        "export",
        help="put cells, tables and figures into one folder that can be sent",
        description="Write a new folder with the stored cells; their records as CSV and parquet, findings as CSV, by "
        "study; a figure of each study; a README of the columns; and a manifest with the sha256 of every file.",
        epilog="Parquet needs pyarrow, and SVG kaleido and Chromium; without them the rest is written. Exit code 1 if "
        "a stored cell is damaged.",
    )
    command.add_argument("path", help="the new folder")
    command.add_argument("--studies", nargs="+", default=[], metavar="NAME", help="of these studies only")
    command.add_argument("--store", default="artifacts", metavar="DIR", help="root of the results (default: artifacts)")
    command.set_defaults(run=_export)


def _export(options) -> int:
    from mechsub.lab import exports

    root, path = Path(options.store).expanduser(), Path(options.path).expanduser()
    if not root.is_dir():
        _refuse(f"{root} is not a folder")
    there = exports.studies_in(root)
    if absent := [name for name in options.studies if name not in there]:
        _refuse(f"no cell of {absent[0]!r} is stored under {root}")
    if not there:
        _refuse(f"no cell is stored under {root}")
    names = [name for name in there if not options.studies or name in options.studies]
    try:
        left_out = exports.write(path, root, names)
    except FileExistsError as error:
        _refuse(str(error))
    except (OSError, ValueError) as error:
        return _failed(error)
    for line in left_out:
        print(_printable(f"left out: {line}"))
    print(_printable(f"{path}: {len(names)} studies of {root}"))
    return 0


def _add_import(commands) -> None:
    command = commands.add_parser(
        "import",
        help="check such a folder and store its cells apart from one's own",
        description="Check every file of an exported folder against its manifest, and store its cells under a root of "
        "their own, which studies read with --out, and mechsub verify checks. A cell that is there is never replaced.",
        epilog="Exit code 1 if a file is not what was sent, or another cell stands in the place of one; nothing is "
        "stored then. Killed, the same command goes on.",
    )
    command.add_argument("folder", help="what `python -m mechsub export` wrote")
    command.add_argument("--into", metavar="ROOT", help="where to store the cells (default: foreign/<name of FOLDER>)")
    command.set_defaults(run=_import)


def _import(options) -> int:
    from mechsub.lab import imports

    folder = Path(options.folder).expanduser()
    if not folder.is_dir():
        _refuse(f"{folder} is not a folder")
    root = Path("foreign", folder.resolve().name) if options.into is None else Path(options.into).expanduser()
    try:
        put = imports.put(folder, root)
    except (OSError, ValueError) as error:
        return _failed(error)
    if put.others:
        print(
            _printable(
                f"note: {root} has other cells too ({len(put.others)}); {imports.LEDGER} there says what was sent"
            )
        )
    print(_printable(f"{len(put.added)} cells stored under {root}, {len(put.there)} were there"))
    print(_printable(f"to read them: python -m studies.NAME --out {root}, or ms.frame(NAME, out={str(root)!r})"))
    return 0


def _add_push(commands) -> None:
    command = commands.add_parser(
        "push",
        help="send an exported folder to the Hugging Face hub",
        description="Send what `python -m mechsub export` wrote to a repository on the Hugging Face hub, which is "
        "made, private, where there is none. One that holds other files is refused. `hf auth login` comes first.",
        epilog="Exit code 1 if the folder is not what was exported, or the hub refuses it.",
    )
    command.add_argument("folder", help="what `python -m mechsub export` wrote")
    _add_repository(command)
    command.add_argument("--public", action="store_true", help="make the repository public, where it is made")
    command.set_defaults(run=_push)


def _add_pull(commands) -> None:
    command = commands.add_parser(
        "pull",
        help="fetch such a folder from the Hugging Face hub",
        description="Fetch an exported folder from a repository on the Hugging Face hub, and compare it with its "
        "manifest. `python -m mechsub import` stores its cells.",
        epilog="Exit code 1 if the hub refuses, or a file is not what was sent; nothing is left then.",
    )
    _add_repository(command)
    command.add_argument("path", help="the new folder")
    command.add_argument("--revision", help="branch, tag or commit (default: the newest)")
    command.set_defaults(run=_pull)


def _add_repository(command) -> None:
    command.add_argument("repository", metavar="OWNER/NAME", help="on the hub")
    command.add_argument("--kind", choices=("dataset", "model"), default="dataset", help="of repository")


def _push(options) -> int:
    from mechsub.lab import hub

    folder = Path(options.folder).expanduser()
    if not folder.is_dir():
        _refuse(f"{folder} is not a folder")
    try:
        commit = hub.push(folder, options.repository, options.kind, options.public)
    except (OSError, ValueError, hub.Refused) as error:
        return _failed(error)
    print(_printable(f"{folder} is commit {commit} of {options.repository}"))
    return 0


def _pull(options) -> int:
    from mechsub.lab import hub

    path = Path(options.path).expanduser()
    try:
        commit = hub.pull(options.repository, path, options.kind, options.revision)
    except FileExistsError as error:
        _refuse(str(error))
    except (OSError, ValueError, hub.Refused) as error:
        return _failed(error)
    print(_printable(f"{path} is commit {commit} of {options.repository}; python -m mechsub import {path}"))
    return 0


def _failed(error: Exception) -> int:
    print(f"error: {_printable(' '.join(str(error).split()))}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
