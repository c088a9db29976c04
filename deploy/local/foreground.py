"""Signals of a program that stays in the foreground and has to clean up behind itself."""

import signal
from types import FrameType

INTERRUPTED = 130


def end_on_term() -> None:
    """Let TERM and HUP end the program the way Ctrl-C does, so that ``finally`` blocks run.

    Ctrl-C itself is set too: a shell script starts what it puts in the background with that signal ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # A second signal must not tear the cleaning up apart.
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt
