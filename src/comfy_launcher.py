"""Starts ComfyUI so that it cannot outlive the worker: a script, run as `comfy_launcher.py PARENT_PID COMMAND…`.

It asks the kernel to kill this process when the worker dies in any way, then becomes the command. The request
outlives the exec. See PR_SET_PDEATHSIG in prctl(2); other systems than Linux have nothing like it.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have this process killed when the one with the id `parent`, which started it, dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request
        os._exit(1)


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    die_with_parent(parent)
    os.execvp(command[0], command)  # noqa: S606  no shell is the point


if __name__ == "__main__":
    main()
