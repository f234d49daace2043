"""A real S3 API on loopback (moto's server), with and without a look at who asks, and a bad line in front of it."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.config import Config

from src.settings import BucketConfig

NAME = "pictures"
_BOOT_SECONDS = 60
_ACTIONS_WITHOUT_KEY = 3  # what it takes to make a user


@dataclass(frozen=True)
class Storage:
    """A running server with a bucket, and keys that open it."""

    config: BucketConfig

    def client(self) -> Any:
        """boto3's own client, to look from the other side."""
        return _client("s3", self.config.endpoint_url, self.config.access_key_id, self.config.secret_access_key)

    def keys(self) -> list[str]:
        """All keys in the bucket."""
        return [item["Key"] for item in self.client().list_objects_v2(Bucket=NAME).get("Contents", [])]

    def put(self, key: str, content: bytes) -> str:
        """Store an object; its s3:// URL."""
        self.client().put_object(Bucket=NAME, Key=key, Body=content)
        return f"s3://{NAME}/{key}"


def _client(service: str, url: str, key: str = "any", secret: str = "any") -> Any:
    options = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
    return boto3.client(
        service, endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1",
        config=options,
    )  # fmt: skip


@contextmanager
def _server(strict: bool) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    count = {"INITIAL_NO_AUTH_ACTION_COUNT": str(_ACTIONS_WITHOUT_KEY)} if strict else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **count},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _BOOT_SECONDS
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """A server that lets everybody in: signed links can be followed."""
    with _server(strict=False) as url:
        _client("s3", url).create_bucket(Bucket=NAME)
        yield Storage(BucketConfig(url, "any", "any", NAME, region="us-east-1"))


@pytest.fixture(scope="session")
def strict_storage() -> Iterator[Storage]:
    """A server that checks keys and signatures."""
    with _server(strict=True) as url:
        users = _client("iam", url)
        users.create_user(UserName="worker")
        key = users.create_access_key(UserName="worker")["AccessKey"]
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        users.put_user_policy(UserName="worker", PolicyName="all", PolicyDocument=json.dumps(policy))
        config = BucketConfig(url, key["AccessKeyId"], key["SecretAccessKey"], NAME, region="us-east-1")
        storage = Storage(config)
        storage.client().create_bucket(Bucket=NAME)
        yield storage


@dataclass
class BadLine:
    """What is between a client and a server: the next requests are refused, cut or slowed; the rest passes."""

    target: str
    refuse: int = 0
    """This many requests get a 503."""
    cut: int = 0
    """This many connections are closed in the middle of a request."""
    cut_answer_at: int = 0
    """The next answer is cut after about this many bytes; 0 for none."""
    pause: float = 0.0
    """Seconds before each answer."""
    requests: list[str] = field(default_factory=list)
    url: str = ""
    answered: int = 0
    """Bytes of the answers that were let through."""


@contextmanager
def bad_line(target: str, **faults: Any) -> Iterator[BadLine]:
    """A proxy with faults in front of `http://host:port`."""
    line = BadLine(target, **faults)
    host, port = target.removeprefix("http://").split(":")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = self.request.recv(65536)
            if not head:
                return
            line.requests.append(head.split(b"\r\n", 1)[0].decode())
            if line.cut > 0:
                line.cut -= 1
                return
            if line.refuse > 0:
                line.refuse -= 1
                body = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
                answer = b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                self.request.sendall(answer + body)
                return
            time.sleep(line.pause)
            with socket.create_connection((host, int(port))) as upstream:
                upstream.sendall(head)
                back = threading.Thread(target=_copy, args=(upstream, self.request, line), daemon=True)
                back.start()
                _copy(self.request, upstream)
                back.join(10)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, *_: object) -> None:
            """Either side may be gone by then."""

    with Server(("127.0.0.1", 0), Handler) as server:
        line.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield line
        server.shutdown()


def _copy(source: socket.socket, target: socket.socket, line: BadLine | None = None) -> None:
    try:
        while piece := source.recv(65536):
            if line is not None:
                line.answered += len(piece)
                if 0 < line.cut_answer_at < line.answered:
                    line.cut_answer_at = 0
                    break
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
