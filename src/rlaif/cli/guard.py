"""From an exception to a message and an exit code, the same for every command and for the root scripts. Imports nothing heavy.

0 done; 1 failed; 2 usage; 3 the machine lacks something; 4 below --fail-under; 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from rlaif.errors import EnvironmentFailure, Interrupted, ProblemFileError, RlaifError

Command = Callable[[Sequence[str]], int]


def guarded(command: Command, argv: Sequence[str]) -> int:
    """Run `command(argv)` and return its exit code; what it raises becomes a message on stderr, with a traceback only after `--debug`."""
    debug = "--debug" in argv
    try:
        code = command(argv)
        sys.stdout.flush()  # a reader that went away is noticed here, not in the interpreter's last breath
        return code
    except SystemExit as done:  # `--help` ends this way
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    except BrokenPipeError:
        # `rlaif problems list | head` is no failure. Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print("\nInterrupted.", file=sys.stderr)
        return Interrupted.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        what, code = explain(error)
        print(f"Error: {what}", file=sys.stderr)
        return code


def explain(error: Exception) -> tuple[str, int]:
    """What to tell a person about an exception, and the exit code."""
    if isinstance(error, ProblemFileError) and not error.try_next:
        return f"{error}\nTry: correct that, and the same command again", error.exit_code
    if isinstance(error, RlaifError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return f"The disk is full{where}\nTry: free some space, or choose another disk with --output_dir", 1
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}\nTry: check the path and its permissions", 1
    # these two are recognised by name: this module must import neither torch nor safetensors
    if type(error).__name__ == "SafetensorError":
        return f"A file of weights is broken or was cut off: {error}\nTry: fetch or copy the model again", EnvironmentFailure.exit_code
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "Out of memory\nTry: a smaller --batch_size, --max_new_tokens or --micro_batch_tokens, or --lora_rank 16", 1
    return f"Unexpected {type(error).__name__}: {error}\nThis is a bug in rlaif. Try: the same command with --debug, which shows where", 1


def suggestion(word: str, known: Sequence[str], prefix: str = "") -> str:
    """ "did you mean --episodes?", or nothing where no known word is near."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {prefix}{near[0]}?" if near else ""
