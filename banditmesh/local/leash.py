"""Run a command that cannot outlive its parent: ``python leash.py PARENT_PID COMMAND [ARGUMENT…]``.

A script of its own, because what stands between fork and exec of a process with threads (``preexec_fn``) can deadlock.
Linux kills the command as soon as the *thread* that started it ends, even by SIGKILL; elsewhere the command runs
without this guard.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; survives exec


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent ended before its child began")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
