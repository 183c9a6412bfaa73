"""python -m mechsub doctor"""

from mechsub import doctor
from mechsub.lab.terminal import say


def add(commands) -> None:
    command = commands.add_parser(
        "doctor",
        help="say what works on this machine, and how to mend what does not",
        description="Say what of mechsub works on this machine, and the one command that mends what does not.",
        epilog="Exit code 0 if what `make run` needs is there, else 1. No network is used.",
    )
    command.set_defaults(run=run)


def run(options) -> int:
    marks = {"good": "ok", "absent": "-", "missing": "MISSING"}
    missing = 0
    for kind, about, text, fix in doctor.findings():
        missing += kind == "missing"
        say(f"{marks[kind]:8}{about:12}{text}")
        if fix:
            say(f"{'':20}fix: {fix}")
    count = "1 thing is" if missing == 1 else f"{missing} things are"
    say(f"{count} missing for `make run`" if missing else "what `make run` needs is there")
    return 1 if missing else 0
