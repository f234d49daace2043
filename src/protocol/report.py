"""The events and the history entry of one run, in ComfyUI's order and with ComfyUI's data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
"""The events that end a run."""

NodeUi = dict[str, Any]
"""What an output node reports to the client: `{"images": [{"filename", "subfolder", "type"}]}` and the like."""


@dataclass(frozen=True)
class Frame:
    """A picture for the client: in PNG what a node sends in place of a file, else in JPEG the preview of a node."""

    content: bytes = field(repr=False)
    preview_of: Mapping[str, Any] | None = None


Send = Callable[[str, "dict[str, Any] | Frame"], None]
"""Sends an event (type, data) to the client that queued the prompt."""


class RunReport:
    """Is called for everything that happens to a prompt: sends the events, and builds the history entry."""

    def __init__(self, prompt_id: str, prompt: Mapping[str, Any], send: Send) -> None:
        self._prompt_id = prompt_id
        self._prompt = prompt
        self._send = send
        self._messages: list[list[Any]] = []
        self._outputs: dict[str, NodeUi] = {}
        self._node_id = ""
        self._states: dict[str, dict[str, Any]] = {}

    def started(self) -> None:
        """The run begins."""
        self._send_and_record("execution_start")

    def cached(self, nodes: Mapping[str, NodeUi | None]) -> None:
        """The nodes that will not run because their results are cached, with what each reports to the client."""
        self._outputs.update({node_id: ui for node_id, ui in nodes.items() if ui is not None})
        self._send_and_record("execution_cached", nodes=list(nodes))

    def node_started(self, node_id: str) -> None:
        """A node begins to run."""
        self._node_id = node_id
        self._note_state(node_id, "running", 0, 1)
        self._send_states()
        self._send_event("executing", node=node_id, display_node=node_id)

    def progress(self, node_id: str, step: int, steps: int) -> None:
        """The node that runs has done `step` of `steps`."""
        self._note_state(node_id, "running", step, steps)
        self._send_states()
        self._send_event("progress", value=step, max=steps, node=node_id)

    def picture(self, png: bytes) -> None:
        """The node that runs sends a picture over the websocket."""
        self._send("picture", Frame(png))

    def preview(self, jpeg: bytes) -> None:
        """The node that runs sends a preview of its work over the websocket."""
        ids = dict.fromkeys(("node_id", "display_node_id", "real_node_id"), self._node_id)
        self._send("preview", Frame(jpeg, {**ids, "parent_node_id": None, "prompt_id": self._prompt_id}))

    def output(self, node_id: str, ui: NodeUi | None) -> None:
        """A node has results; `ui` is None unless it is an output node."""
        if ui is not None:
            self._outputs[node_id] = ui
            self._send_event("executed", node=node_id, display_node=node_id, output=ui)

    def node_finished(self, *node_ids: str) -> None:
        """A node has run, or several have."""
        for node_id in node_ids:
            self._note_state(node_id, "finished", 1, 1)
        self._send_states()

    def succeeded(self) -> None:
        """The run ended without an error."""
        self._send_and_record("execution_success")

    def interrupted(self, node_id: str | None, executed: Sequence[str]) -> None:
        """The run was interrupted at a node; `executed` are the nodes that have run."""
        self._send_and_record(
            "execution_interrupted", node_id=node_id or "", node_type=self._class_of(node_id), executed=list(executed)
        )

    def failed(
        self,
        node_id: str | None,
        executed: Sequence[str],
        exception_type: str,
        message: str,
        traceback: Sequence[str] = (),
    ) -> None:
        """A node raised, which ended the run; None if it was no node."""
        inputs = self._prompt[node_id]["inputs"] if node_id is not None else {}
        self._send_and_record(
            "execution_error",
            node_id=node_id or "",
            node_type=self._class_of(node_id),
            executed=list(executed),
            exception_message=message,
            exception_type=exception_type,
            traceback=list(traceback),
            current_inputs={name: [str(value)] for name, value in inputs.items()},
            current_outputs=list(executed),
        )

    def entry(self, queue_item: Sequence[Any]) -> dict[str, Any] | None:
        """The history entry, None for a run that never began; `queue_item` is the prompt as /queue returns it."""
        if not self._messages:
            return None
        succeeded = self._messages[-1][0] == "execution_success"
        return {
            "prompt": queue_item,
            "outputs": self._outputs,
            "status": {
                "status_str": "success" if succeeded else "error",
                "completed": succeeded,
                "messages": self._messages,
            },
            "meta": {
                node_id: {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
                for node_id in self._outputs
            },
        }

    # --- Sending -----------------------------------------------------------------------------------------

    def _send_event(self, kind: str, **data: Any) -> None:
        self._send(kind, {**data, "prompt_id": self._prompt_id})

    def _send_and_record(self, kind: str, **data: Any) -> None:
        """Send an event that is also kept in the history."""
        message = {**data, "prompt_id": self._prompt_id, "timestamp": int(time.time() * 1000)}
        self._messages.append([kind, message])
        self._send(kind, message)

    def _note_state(self, node_id: str, state: str, value: int, maximum: int) -> None:
        ids = dict.fromkeys(("node_id", "display_node_id", "real_node_id"), node_id)
        progress = {"value": value, "max": maximum, "state": state, "prompt_id": self._prompt_id}
        self._states[node_id] = {**progress, "parent_node_id": None, **ids}

    def _send_states(self) -> None:
        self._send_event("progress_state", nodes=dict(self._states))

    def _class_of(self, node_id: str | None) -> str:
        return str(self._prompt[node_id]["class_type"]) if node_id is not None else ""
