"""The connections of boto3's client: opened by our `connect`, registered, and with responses of limited size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .web import Connect, Guarded

_MAX_RESPONSE_BYTES = 1_000_000  # of XML; the content of objects is read in chunks of its own


def use_connections(client: Any, connect: Connect, register: Callable[[Any], None]) -> None:
    """Make a client connect by `connect` only, and `register` its connections, so that they can be broken off."""
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

    # botocore has no public way to set its connection classes.
    client._endpoint.http_session._manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}


class _LimitedResponses:
    """A connection that limits the size of responses that are read at once, as XML is."""

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        original_stream = response.stream

        def stream(*arguments: Any, **options: Any) -> Any:
            length = 0
            for chunk in original_stream(*arguments, **options):
                length += len(chunk)
                if length > _MAX_RESPONSE_BYTES:
                    raise OSError("an endless response")
                yield chunk

        response.stream = stream
        return response
