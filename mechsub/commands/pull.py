"""python -m mechsub pull OWNER/NAME PATH"""

from pathlib import Path

from mechsub.commands.push import add_repository
from mechsub.lab import hub
from mechsub.lab.terminal import say, stop


def add(commands) -> None:
    command = commands.add_parser(
        "pull",
        help="fetch such a folder from the Hugging Face hub",
        description="Fetch an exported folder from a repository on the Hugging Face hub, and compare it with its "
        "manifest. `python -m mechsub import` stores its cells.",
        epilog="Exit code 1 if the hub refuses, or a file is not what was sent; nothing is left then.",
    )
    add_repository(command)
    command.add_argument("path", help="the new folder")
    command.add_argument("--revision", help="branch, tag or commit (default: the newest)")
    command.set_defaults(run=run)


def run(options) -> int:
    path = Path(options.path).expanduser()
    try:
        commit = hub.pull(options.repository, path, options.kind, options.revision)
    except FileExistsError as error:
        stop(str(error), 2)
    except (OSError, ValueError, hub.Refused) as error:
        stop(str(error), 1)
    say(f"{path} is commit {commit} of {options.repository}; python -m mechsub import {path}")
    return 0
