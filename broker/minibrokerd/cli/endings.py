"""How every command ends: with a message and an exit code of the table in exits.py, never with a traceback.

Also when it is not the command's fault: Ctrl-C at a prompt, a reader that has gone, a disk that is full.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from io import StringIO
from typing import NoReturn

import click

from minibrokerd.cli.printing import fail, leave_closed_pipe, note, wants_json
from minibrokerd.process import exits


def ending(work: Callable[[], object]) -> NoReturn:
    """Do the work of a command line, write what is still buffered, and end the process with its code."""
    stream = sys.stdout
    try:
        code = work()
        sys.stdout.flush()
    except SystemExit as ended:  # the message was printed
        if (
            sys.stdout is not stream
        ):  # click met a closed pipe itself, and put something harmless in its place
            leave_closed_pipe()
        _flush_or_forget()
        sys.exit(ended.code)
    except BrokenPipeError:
        leave_closed_pipe()
    except (KeyboardInterrupt, click.Abort) as error:
        _interrupted(error)
    except click.ClickException as error:
        if not wants_json():
            _show(error)
            sys.exit(error.exit_code)
        fail(error.format_message(), error.exit_code)
    except OSError as error:
        _flush_or_forget()
        fail(f"cannot write the results: {error}", exits.REFUSED)
    sys.exit(code if isinstance(code, int) else exits.DONE)


def _show(error: click.ClickException) -> None:
    """Say what is wrong with a command line, in lines that fit the terminal."""
    said = StringIO()
    error.show(said)
    for line in said.getvalue().splitlines():
        note(line.replace("\t", "    "))


def _interrupted(error: BaseException) -> NoReturn:
    """End after Ctrl-C; a prompt that was not answered (the end of the input) is a refusal."""
    if isinstance(error, click.Abort) and not isinstance(error.__context__, KeyboardInterrupt):
        fail(
            "nothing was done: nobody answered y (--yes does it without a question)", exits.REFUSED
        )
    sys.exit(exits.INTERRUPTED)


def _flush_or_forget() -> None:
    """Write what is buffered; what cannot be written would fail again when the interpreter flushes it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
