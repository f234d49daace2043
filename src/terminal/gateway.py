"""`--gateway`: which endpoint it uses, and with which key."""

from __future__ import annotations

from ..errors import InvalidInput
from ..gateway.endpoint import RUNPOD_URL
from ..gateway.frontend import editor_version
from ..gateway.server import GatewayOptions, serve_gateway
from ..settings import Settings
from .command_line import Options, print_gateway

_PORT = 8188  # ComfyUI's
_LOCAL = "8000"


def run_gateway(options: Options, settings: Settings) -> int:
    """Serve until it is stopped; the exit status. Raises InvalidInput, PortTaken, InvalidSetting."""
    port = options.port or _PORT
    url, key, target = _endpoint(options, settings)
    gateway = GatewayOptions(url, key, port, options.folder, settings.bucket)
    return serve_gateway(gateway, lambda: print_gateway(port, target, editor_version()))


def _endpoint(options: Options, settings: Settings) -> tuple[str, str, str]:
    """The endpoint's URL, the key, and what to call it."""
    if options.local is not None:
        url = local_url(options.local or _LOCAL)
        return url, settings.serve_api_key, url
    endpoint_id = options.endpoint or settings.runpod_endpoint_id
    if not endpoint_id or not settings.runpod_api_key:
        missing = "RUNPOD_API_KEY" if endpoint_id else "the endpoint's id (--endpoint or RUNPOD_ENDPOINT_ID)"
        raise InvalidInput(
            f"{missing} is missing: RunPod's console has both, the id of the endpoint and keys. With --local the "
            "prompts run on an endpoint of this machine (--serve)"
        )
    return f"{RUNPOD_URL}/{endpoint_id}", settings.runpod_api_key, f"the endpoint {endpoint_id}"


def local_url(text: str) -> str:
    """The URL of an endpoint of `--serve`: from a port (`8011`), `host:port`, or a URL with or without its path."""
    url = f"http://127.0.0.1:{text}" if text.isdecimal() else text if "://" in text else f"http://{text}"
    scheme, _, rest = url.rstrip("/").partition("://")
    return f"{scheme}://{rest}" if "/" in rest else f"{scheme}://{rest}/v2/local"
