"""Weights that must be downloaded: whether the host can be reached, and the error where it cannot."""

import os
import socket
from pathlib import Path

from heatproof.errors import ModelError

_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT")


def reachable(host: str) -> bool:
    """Whether the host's name resolves; always True behind a proxy, where names need not resolve.

    Checked before a download, because the hub's client retries for a minute when offline.
    """
    if any(os.environ.get(name) for name in _PROXIES):
        return True
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def no_weights(spec: str, cache: str | Path, reason: object) -> ModelError:
    """The error for pretrained weights that cannot be obtained."""
    lines = str(reason).strip().splitlines()
    return ModelError(
        f"Expected to get the pretrained weights of {spec}. They could not be had: "
        f"{(lines[0] if lines else type(reason).__name__).rstrip('.')}. Give a local file with `checkpoint` "
        f"(--checkpoint), or load it once on a connected machine and copy the cache, {cache}."
    )


def hub_cache() -> str:
    """The folder of the Hugging Face hub's client, which timm and transformers share."""
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
