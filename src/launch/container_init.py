"""What a container's first process has to do: end with the worker, hand on signals, reap orphans.

The usual programs for it (tini, dumb-init) keep the container's environment, secrets included, where every process of
the same user can read it: in `/proc/1/environ`. This one is the worker itself, with its memory hidden.
"""

from __future__ import annotations

import os
import signal

_HANDED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}


def leave_init_behind() -> None:
    """If this is a container's first process, go on in a child of it, which has a session of its own.

    The first process stays behind as the container's init, and ends as the child does. Call it before any thread runs.
    """
    if os.getpid() != 1:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_HANDED_ON, signal.SIGCHLD})  # none may be lost meanwhile
    worker = os.fork()
    if worker == 0:
        os.setsid()  # so that Ctrl-C in a terminal comes once, through the init
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        return
    os._exit(_serve(worker))


def _serve(worker: int) -> int:
    """Hand on signals and reap processes until the worker has ended; its exit status as a shell gives it."""
    while True:
        number = signal.sigwait({*_HANDED_ON, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(worker, number)
            continue
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if ended == worker:
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            if ended == 0:
                break
