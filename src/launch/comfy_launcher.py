"""A script that runs ComfyUI as a child process that exits when the worker or ComfyUI's worker thread ends.

`python comfy_launcher.py PARENT_PID READY_FD main.py ARGUMENT…` (or `-m MODULE ARGUMENT…`) behaves like `python
main.py ARGUMENT…`, with these differences. The kernel kills the process when the worker dies, whatever the cause
(PR_SET_PDEATHSIG, prctl(2); only Linux has this). When ComfyUI's only worker thread ends by an exception, after which
its server would keep answering but run nothing, the process exits, so that the failure is noticed. Python's cyclic
garbage collector is off until the worker writes to the pipe READY_FD: imports create millions of objects that stay
alive, and the collector would traverse them again and again. With `-` for READY_FD the collector stays on. With
`--guard FOLDERS FILES` before the program (both with os.pathsep between) it is confined: see `comfy_confinement`. With
`--libraries FOLDER` Python looks there too.
psutil tells the memory of the container (see `container_memory`).
Modules come from a pack, if there is one (see `comfy_bytecode`), and put off imports (see `comfy_deferred_imports`),
unless `--import-all` comes before the program.

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
"""The exit code after ComfyUI's worker thread has ended."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_WORKER_THREAD = "(prompt_worker)"  # Python names a thread after its target


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent process, which has the id `parent`, dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)


def hide_memory() -> None:
    """Keep other processes of the same user from reading this one's memory and environment (prctl(2), Linux only).

    It holds for root too with the capabilities that Docker gives by default, but not with CAP_SYS_PTRACE or
    CAP_PERFMON. A program that is started by exec is readable again; a process that is forked is not.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_worker_thread() -> None:
    """Have this process exit when a thread that runs `prompt_worker` ends by an exception, including SystemExit."""
    default_hook = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.thread is not None and _WORKER_THREAD in arguments.thread.name:
            traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(WORKER_THREAD_ENDED)
        default_hook(arguments)

    threading.excepthook = hook


def after_boot(ready_pipe: int) -> None:
    """Turn the cyclic garbage collector off until a byte can be read from `ready_pipe`, or it is closed.

    After a byte the imports that were put off are done, too, while no job runs. The objects that exist before and
    after them are frozen (gc.freeze): ComfyUI runs the collector after jobs, which would traverse them each time.
    """
    gc.disable()

    def wait() -> None:
        is_ready = os.read(ready_pipe, 1)
        os.close(ready_pipe)
        if is_ready:
            gc.freeze()
        gc.enable()
        if is_ready and "comfy_deferred_imports" in sys.modules:
            sys.modules["comfy_deferred_imports"].import_all(is_idle)
            gc.freeze()

    os.set_inheritable(ready_pipe, False)
    threading.Thread(target=wait, daemon=True, name="after-boot").start()


def is_idle() -> bool:
    """Whether ComfyUI's worker thread waits for a prompt, as far as that is known."""
    workers = [thread.ident for thread in threading.enumerate() if _WORKER_THREAD in thread.name]
    frames = sys._current_frames()
    running = [frames[ident] for ident in workers if ident in frames]
    return all(frame.f_code.co_filename == threading.__file__ for frame in running)


def main() -> None:
    """Make this process exit with its parent, then run the program in it."""
    parent, ready_pipe, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    die_with_parent(parent)
    if program[0] == "--guard":
        confine(program[1], program[2])
        program = program[3:]
    if program[0] == "--libraries":  # last: none of them takes the place of one that is there
        sys.path.append(program[1])
        program = program[2:]
    defers = program[0] != "--import-all"
    if not defers:
        program = program[1:]
    die_with_worker_thread()
    if ready_pipe != "-":
        after_boot(int(ready_pipe))
    if program[0] == "-m":
        sys.argv = program[1:]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        from comfy_bytecode import install_finder, pack_path  # type: ignore[import-not-found]  # in this folder
        from container_memory import limit_psutil  # type: ignore[import-not-found]

        install_finder(pack_path(Path.cwd()), defers)
        limit_psutil()
        run_script(program)


def confine(folders: str, files: str) -> None:
    """Keep the program from changing the folders and reading the files; says so if the kernel cannot do that."""
    import comfy_confinement  # type: ignore[import-not-found]  # in this folder

    if not comfy_confinement.confine(folders.split(os.pathsep), files.split(os.pathsep)):
        sys.stderr.write(
            "COMFYUI_CONFINED: this kernel cannot confine ComfyUI (Linux 5.19 is required); it runs unconfined\n"
        )


def run_script(program: "list[str]") -> None:
    """Do what `python SCRIPT ARGUMENT…` does; `runpy.run_path` would change `argv[0]` or leave `__file__` relative."""
    script = Path(program[0]).absolute()
    sys.argv = program
    sys.path[0] = str(script.parent)
    module = types.ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module
    exec(compile(script.read_bytes(), str(script), "exec"), module.__dict__)  # noqa: S102  it is our program


if __name__ == "__main__":
    main()
