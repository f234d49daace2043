"""The connections that boto3's client is to use: opened by us, known to us, and cut off where an answer has no end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .web import Connect, Guarded

_MAX_RESPONSE_BYTES = 1_000_000  # of XML; objects themselves are read in pieces


def use_connections(client: Any, connect: Connect, register: Callable[[Any], None]) -> None:
    """Let a client connect by `connect` only, and keep its connections, so that somebody can end them."""
    from botocore import awsrequest  # noqa: PLC0415  slow to import

    class Registered:
        def connect(self) -> None:
            super().connect()  # type: ignore[misc]
            register(self)

    class Https(Registered, _LimitedResponses, Guarded, awsrequest.AWSHTTPSConnection):  # type: ignore[misc]
        pass

    class Http(Registered, _LimitedResponses, Guarded, awsrequest.AWSHTTPConnection):  # type: ignore[misc]
        pass

    class HttpsPool(awsrequest.AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = partial(Https, connect=connect)

    class HttpPool(awsrequest.AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = partial(Http, connect=connect)

    # botocore has no public way to say which connections it is to use.
    client._endpoint.http_session._manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}


class _LimitedResponses:
    """A connection whose answers end, if they are read whole as XML is."""

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        original_stream = response.stream

        def stream(*arguments: Any, **options: Any) -> Any:
            length = 0
            for chunk in original_stream(*arguments, **options):
                length += len(chunk)
                if length > _MAX_RESPONSE_BYTES:
                    raise OSError("an answer without end")
                yield chunk

        response.stream = stream
        return response
