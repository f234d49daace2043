"""The queue and the history of the gateway, kept in a file: a gateway that starts again goes on where it ended."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..protocol.queue import PromptQueue, QueuedPrompt

_MAX_HISTORY = 1000  # prompts that are kept
_SCHEMA = """
create table if not exists prompts (
    prompt_id text primary key,
    item text not null,     -- the prompt as /queue shows it, in JSON
    job_id text,            -- of the endpoint, once it has the job
    entry text,             -- of the history, in JSON, once the prompt has ended
    ended real              -- in seconds since 1970
)
"""


class StoredQueue(PromptQueue):
    """A queue whose prompts and history are in the SQLite file at `file`, from which it begins."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._access = threading.Lock()
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute(_SCHEMA)
        self._load()

    def close(self) -> None:
        """Close the file."""
        with self._access:
            self._database.close()

    def job_of(self, prompt_id: str) -> str | None:
        """The endpoint's job of a prompt, None if it has none yet."""
        rows = self._execute("select job_id from prompts where prompt_id = ?", prompt_id)
        return rows[0][0] if rows else None

    def note_job(self, prompt_id: str, job_id: str) -> None:
        """Keep which job of the endpoint runs a prompt."""
        self._execute("update prompts set job_id = ? where prompt_id = ?", job_id, prompt_id)

    # --- As `PromptQueue` ------------------------------------------------------------------------------

    def put(self, queued: QueuedPrompt) -> None:
        """See `PromptQueue`."""
        item = json.dumps(queued.as_json())
        self._execute("insert or replace into prompts (prompt_id, item) values (?, ?)", queued.prompt_id, item)
        super().put(queued)

    def finish(self, prompt_id: str, entry: dict[str, Any] | None) -> None:
        """See `PromptQueue`."""
        if entry is None:
            self._forget([prompt_id])
        else:
            values = json.dumps(entry), time.time(), prompt_id
            self._execute("update prompts set entry = ?, ended = ? where prompt_id = ?", *values)
        super().finish(prompt_id, entry)
        with self._changed:
            old = list(self.history)[:-_MAX_HISTORY]
        self.delete_history(old)

    def delete_history(self, prompt_ids: Iterable[str]) -> None:
        """See `PromptQueue`."""
        ended = [prompt_id for prompt_id in prompt_ids if prompt_id in self.history]
        self._forget(ended)
        super().delete_history(ended)

    def _forget(self, prompt_ids: Iterable[str]) -> None:
        for prompt_id in prompt_ids:
            self._execute("delete from prompts where prompt_id = ?", prompt_id)

    # --- The file --------------------------------------------------------------------------------------

    def _load(self) -> None:
        for entry, prompt_id in self._execute("select entry, prompt_id from prompts where ended > 0 order by ended"):
            self.history[prompt_id] = json.loads(entry)
            self._count_on(self.history[prompt_id]["prompt"][0])
        for (item,) in self._execute("select item from prompts where entry is null order by rowid"):
            number, prompt_id, prompt, extra_data, outputs = json.loads(item)
            super().put(QueuedPrompt(number, prompt_id, prompt, extra_data, outputs))
            self._count_on(number)

    def _count_on(self, number: float) -> None:
        self._counter = max(self._counter, int(abs(number)))

    def _execute(self, statement: str, *values: Any) -> list[Any]:
        with self._access:
            return self._database.execute(statement, values).fetchall()
