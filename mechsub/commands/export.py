"""python -m mechsub export PATH"""

from pathlib import Path

from mechsub.commands import folder
from mechsub.lab import exports
from mechsub.lab.terminal import say, stop


def add(commands) -> None:
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
    command.set_defaults(run=run)


def run(options) -> int:
    root, path = folder(options.store), Path(options.path).expanduser()
    there = exports.studies_in(root)
    if absent := [name for name in options.studies if name not in there]:
        stop(f"no cell of {absent[0]!r} is stored under {root}", 2)
    if not there:
        stop(f"no cell is stored under {root}", 2)
    names = [name for name in there if not options.studies or name in options.studies]
    try:
        left_out = exports.write(path, root, names)
    except FileExistsError as error:
        stop(str(error), 2)
    except (OSError, ValueError) as error:
        stop(str(error), 1)
    for line in left_out:
        say(f"left out: {line}")
    say(f"{path}: {len(names)} {'study' if len(names) == 1 else 'studies'} of {root}")
    return 0
