"""What happens to a job when the engine fails it: free memory, restart ComfyUI, run it once more, or say why not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..deadline import Deadline
from ..errors import CudaFailed, EngineFault, OutOfMemory, OutputMissing, WorkerError
from .engine import ComfyEngine

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_MAX_RESTARTS_BY_OTHERS = 2  # that do not count as failures of the job itself


def run_with_recovery(
    engine: ComfyEngine, attempt: Callable[[Sequence[str]], Answer], retries: int, deadline: Deadline
) -> Answer:
    """What `attempt` returns; it is called again after a fault that a restart can fix.

    `attempt` is given the ids of nodes that have to run although they are cached: they named files that are gone, as
    a node without filename_prefix does if the previous job was the same.

    A dead or hung engine is restarted and the job runs again, at most `retries` times and while `deadline` is not
    passed; a restart that another job caused does not count. After out-of-memory, ComfyUI gives its memory
    back and the job runs again once. After a failure of CUDA the engine is ended and the worker is to be retired.
    Raises the last error while a fresh ComfyUI boots, or what kept it from booting (ComfyBootFailed, BootTimeout),
    which retires the worker too.
    """
    engine.ensure_ready()
    deadline.restart()  # waiting for the first boot is not the job's own time
    faults = restarts = 0
    has_freed, to_renew = False, ()
    while True:
        with engine.stopping:  # another job's prompt is being stopped, and ComfyUI perhaps with it
            pass
        seen = engine.ensure_ready()
        try:
            return attempt(to_renew)
        except EngineFault as fault:
            if engine.generation != seen and restarts < _MAX_RESTARTS_BY_OTHERS:  # another job had it restarted
                restarts += 1
                continue
            faults += 1
            log.warning("%s: %s", fault.error_code, fault)
            last_lines = engine.process.public_log()
            engine.restart(seen)
            if faults > retries or deadline.passed:
                raise _with_attempts(fault, faults + restarts, last_lines) from fault
        except OutOfMemory:
            _free(engine)
            if has_freed or deadline.passed:
                raise
            log.warning("out of memory: models unloaded, running the job once more")
            has_freed = True
        except OutputMissing as missing:
            if to_renew:
                raise
            to_renew = tuple(missing.details["node_ids"])
        except CudaFailed:
            engine.discard(seen)
            raise


def _free(engine: ComfyEngine) -> None:
    try:
        engine.client.free()
    except WorkerError as error:
        log.warning("memory was not freed: %s", error)


def _with_attempts(fault: EngineFault, attempts: int, last_lines: list[str]) -> EngineFault:
    """The fault with how often the job was tried, and ComfyUI's last log lines."""
    times = "once" if attempts == 1 else f"{attempts} times"
    return type(fault)(
        f"{fault.message}; the job was tried {times} (JOB_RETRIES) and ComfyUI was restarted",
        **fault.details,
        attempts=attempts,
        comfyui_log=last_lines,
    )
