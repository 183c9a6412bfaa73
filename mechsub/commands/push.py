"""python -m mechsub push FOLDER OWNER/NAME"""

import argparse

from mechsub.commands import folder
from mechsub.lab import hub
from mechsub.lab.terminal import say, stop


def add(commands) -> None:
    command = commands.add_parser(
        "push",
        help="send an exported folder to the Hugging Face hub",
        description="Send what `python -m mechsub export` wrote to a repository on the Hugging Face hub, which is "
        "made, private, where there is none. One that holds other files is refused. `hf auth login` comes first.",
        epilog="Exit code 1 if the folder is not what was exported, or the hub refuses it.",
    )
    command.add_argument("folder", help="what `python -m mechsub export` wrote")
    add_repository(command)
    command.add_argument("--public", action="store_true", help="make the repository public, where it is made")
    command.set_defaults(run=run)


def add_repository(command) -> None:
    command.add_argument("repository", type=_repository, metavar="OWNER/NAME", help="on the hub")
    command.add_argument("--kind", choices=("dataset", "model"), default="dataset", help="of repository")


def _repository(text: str) -> str:
    try:
        return hub.named(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(options) -> int:
    source = folder(options.folder)
    try:
        commit = hub.push(source, options.repository, options.kind, options.public)
    except (OSError, ValueError, hub.Refused) as error:
        stop(str(error), 1)
    say(f"{source} is commit {commit} of {options.repository}")
    return 0
