"""python -m mechsub import FOLDER"""

from pathlib import Path

from mechsub.commands import folder
from mechsub.lab import imports
from mechsub.lab.terminal import say, stop


def add(commands) -> None:
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
    command.set_defaults(run=run)


def run(options) -> int:
    source = folder(options.folder)
    root = Path("foreign", source.resolve().name) if options.into is None else Path(options.into).expanduser()
    try:
        put = imports.put(source, root)
    except (OSError, ValueError) as error:
        stop(str(error), 1)
    if put.others:
        say(f"note: {root} has other cells too ({len(put.others)}); {imports.LEDGER} there says what was sent")
    say(f"{len(put.added)} cells stored under {root}, {len(put.there)} were there")
    say(f"to read them: python -m studies.NAME --out {root}, or ms.frame(NAME, out={str(root)!r})")
    return 0
