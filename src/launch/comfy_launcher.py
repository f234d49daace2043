"""Runs ComfyUI as a child that cannot outlive the worker and cannot live on without its worker thread: a script.

`python comfy_launcher.py PARENT_PID READY_FD main.py ARGUMENT…` (or `-m MODULE ARGUMENT…`) behaves like `python
main.py ARGUMENT…`, with three differences. The kernel kills the process when the worker dies in any way
(PR_SET_PDEATHSIG, prctl(2); other systems than Linux have nothing like it). When ComfyUI's only worker thread ends by
an exception, after which its server would answer for ever and run nothing, the process ends, so that everybody can see
it. And Python's cyclic garbage collector is off until the worker writes to the pipe READY_FD: importing makes millions
of objects that stay, and the collector looks at them again and again. With `-` for READY_FD it is left alone.

It runs in ComfyUI's environment: standard library only, Python 3.9 and later.
"""

import ctypes
import gc
import os
import runpy
import signal
import sys
import threading
import traceback
import types
from pathlib import Path

WORKER_THREAD_ENDED = 70
"""The exit code for a worker thread that ended."""

_PR_SET_PDEATHSIG = 1
_WORKER_THREAD = "(prompt_worker)"  # Python names a thread after its target


def die_with_parent(parent: int) -> None:
    """Have this process killed when the one with the id `parent`, which started it, dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request
        os._exit(1)


def die_with_worker_thread() -> None:
    """Have this process end when a thread that runs `prompt_worker` ends by an exception, SystemExit included."""
    usual = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.thread is not None and _WORKER_THREAD in arguments.thread.name:
            traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(WORKER_THREAD_ENDED)
        usual(arguments)

    threading.excepthook = hook


def collect_garbage_after(ready: int) -> None:
    """Turn the cyclic garbage collector on when something comes through the pipe `ready`.

    What there is then stays (gc.freeze): ComfyUI collects after jobs, which would look at it each time.
    """
    gc.disable()

    def wait() -> None:
        is_ready = os.read(ready, 1)
        os.close(ready)
        if is_ready:
            gc.freeze()
        gc.enable()

    os.set_inheritable(ready, False)
    threading.Thread(target=wait, daemon=True, name="garbage-collector").start()


def main() -> None:
    """Tie this process to its parent and become the program."""
    parent, ready, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    die_with_parent(parent)
    die_with_worker_thread()
    if ready != "-":
        collect_garbage_after(int(ready))
    if program[0] == "-m":
        sys.argv = program[1:]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        from comfy_bytecode import find_in, pack_of  # type: ignore[import-not-found]  # beside this script

        find_in(pack_of(Path.cwd()))
        run_script(program)


def run_script(program: "list[str]") -> None:
    """What `python SCRIPT ARGUMENT…` does; `runpy.run_path` would change `argv[0]` or leave `__file__` relative."""
    script = Path(program[0]).absolute()
    sys.argv = program
    sys.path[0] = str(script.parent)
    module = types.ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module
    exec(compile(script.read_bytes(), str(script), "exec"), module.__dict__)  # noqa: S102  it is our program


if __name__ == "__main__":
    main()
