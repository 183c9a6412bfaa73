"""Commands on what studies have stored, and on this machine.

Each is a file of mechsub/commands; python -m mechsub COMMAND --help has its options and exit codes.
"""

import argparse
from typing import NoReturn

from mechsub.commands import doctor, export, import_, pull, push, recheck, verify
from mechsub.lab import terminal


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        terminal.stop(message, 2)


@terminal.command
def main(argv: list[str] | None = None) -> int:
    parser = _Parser(prog="python -m mechsub", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for command in (verify, recheck, doctor, export, import_, push, pull):
        command.add(commands)
    options = parser.parse_args(argv)
    if options.command is None:
        parser.error(f"give a command: {', '.join(commands.choices)}")
    return options.run(options)


if __name__ == "__main__":
    raise SystemExit(main())
