"""The door of ``triage``. It imports nothing heavy itself: an interrupt is a word from the first moment on."""

import sys
from collections.abc import Sequence

INTERRUPTED = 130  # 128 + SIGINT, as shells tell it


def main(arguments: Sequence[str] | None = None) -> None:
    """What ``triage`` and ``python -m launch.cli`` run. Leaves with the command's exit code, 130 when interrupted."""
    try:
        from launch.commands import app as commands  # noqa: PLC0415  # half a second in which Ctrl-C must be a word too

        commands(args=arguments, prog_name="triage")
    except KeyboardInterrupt:
        print("triage: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


app = main  # what the installed script calls

if __name__ == "__main__":
    main()
