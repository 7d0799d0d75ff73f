"""Weights that must be downloaded: whether the host can be reached, and the error where it cannot."""

import os
import socket
from pathlib import Path

from heatproof.errors import ModelError

# The hub's client tells its maker of what it loads; it reads this once, when it is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

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
    """The error for pretrained weights that cannot be obtained.

    Weights from a local file are no way out for a network whose architecture is described on the hub as well.
    """
    lines = str(reason).strip().splitlines()
    prefix, _, name = spec.partition(":")
    hub = prefix == "hf" or name.startswith(("hf-hub:", "hf_hub:"))
    local = "hf:FOLDER" if prefix == "hf" else "timm:local-dir:FOLDER"
    instead = (
        f"Give a local folder that holds it ({local})" if hub else "Give a local file with `checkpoint` (--checkpoint)"
    )
    where = f" There is no folder {name} here." if prefix == "hf" else ""
    return ModelError(
        f"Expected to get the pretrained weights of {spec}. They could not be had: "
        f"{(lines[0] if lines else type(reason).__name__).rstrip('.')}.{where} {instead}, or load it once on a "
        f"connected machine and copy the cache, {cache}. To train it from random weights, `pretrained` must be false "
        "(--model-arg pretrained=false)."
    )


def is_path(name: str) -> bool:
    """Whether a name is that of a local folder, which no model of a hub can have: `./net`, `/data/net`, `a/b/c`."""
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or Path(name).exists()


def missing_folder(spec: str, name: str) -> ModelError:
    """The error for a local folder of a model that does not exist."""
    path = Path(name).expanduser()
    got = "It is a file: give the folder that holds it" if path.is_file() else "There is none: check the path"
    return ModelError(f"Expected {spec} to name a folder that holds a model and its config.json. {got}.")


def hub_cache() -> str:
    """The folder of the Hugging Face hub's client, which timm and transformers share."""
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
