"""An S3 server on loopback (moto), with and without authentication, and a faulty proxy in front of it."""

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
_ACTIONS_WITHOUT_KEY = 3  # the calls that create a user, its key and its policy


@dataclass(frozen=True)
class Storage:
    """A running server with a bucket, and the credentials for it."""

    config: BucketConfig

    def client(self) -> Any:
        """A plain boto3 client, to check what the code under test stored."""
        return _client("s3", self.config.endpoint_url, self.config.access_key_id, self.config.secret_access_key)

    def keys(self) -> list[str]:
        """The keys of all objects in the bucket."""
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
def _server(requires_auth: bool) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"INITIAL_NO_AUTH_ACTION_COUNT": str(_ACTIONS_WITHOUT_KEY)} if requires_auth else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **variables},
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
    """A server without authentication: any credentials and presigned URLs are accepted."""
    with _server(requires_auth=False) as url:
        _client("s3", url).create_bucket(Bucket=NAME)
        yield Storage(BucketConfig(url, "any", "any", NAME, region="us-east-1"))


@pytest.fixture(scope="session")
def strict_storage() -> Iterator[Storage]:
    """A server that checks access keys and signatures."""
    with _server(requires_auth=True) as url:
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
class FaultyProxy:
    """A proxy in front of a server: refuses, cuts off or delays requests as these fields say, and forwards the rest."""

    target: str
    refuse: int = 0
    """How many of the next requests get a 503."""
    cut: int = 0
    """How many of the next connections are closed in the middle of a request."""
    cut_answer_at: int = 0
    """The next response is cut off after about this many bytes; 0 for none."""
    pause: float = 0.0
    """Seconds before each response."""
    requests: list[str] = field(default_factory=list)
    """The request line of each request."""
    url: str = ""
    answered: int = 0
    """Bytes of responses received from the server so far."""


@contextmanager
def faulty_proxy(target: str, **faults: Any) -> Iterator[FaultyProxy]:
    """Run a proxy with these faults in front of `http://host:port`."""
    proxy = FaultyProxy(target, **faults)
    host, port = target.removeprefix("http://").split(":")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = self.request.recv(65536)
            if not head:
                return
            proxy.requests.append(head.split(b"\r\n", 1)[0].decode())
            if proxy.cut > 0:
                proxy.cut -= 1
                return
            if proxy.refuse > 0:
                proxy.refuse -= 1
                body = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
                answer = b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                self.request.sendall(answer + body)
                return
            time.sleep(proxy.pause)
            with socket.create_connection((host, int(port))) as upstream:
                upstream.sendall(head)
                downstream = threading.Thread(target=_copy, args=(upstream, self.request, proxy), daemon=True)
                downstream.start()
                _copy(self.request, upstream)
                downstream.join(10)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, *_: object) -> None:
            """Ignore errors: either side may have closed its connection."""

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield proxy
        server.shutdown()


def _copy(source: socket.socket, target: socket.socket, proxy: FaultyProxy | None = None) -> None:
    try:
        while chunk := source.recv(65536):
            if proxy is not None:
                proxy.answered += len(chunk)
                if 0 < proxy.cut_answer_at < proxy.answered:
                    proxy.cut_answer_at = 0
                    break
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
