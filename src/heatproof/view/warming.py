"""The first requests to a server, made before anybody waits for an answer: they load what later ones need."""

import json
import urllib.request
from typing import Any


def warmed(url: str) -> str:
    """Asks for the page, its style and one answer to a slider, which is returned."""
    for path in ("", "theme.css"):
        _asked(f"{url}{path}")
    config = json.loads(_asked(f"{url}config"))
    parts = {one["id"]: one["props"] for one in config["components"]}
    slider = next(id for id, props in parts.items() if props.get("elem_id") == "hp-opacity")
    event = next(one for one in config["dependencies"] if [slider, "input"] in map(list, one["targets"]))
    values = [parts[id].get("value") for id in event["inputs"]]
    body = {"data": values, "fn_index": event["id"], "session_hash": "warming"}
    return json.loads(_asked(f"{url}gradio_api/run/predict", body))["data"][0]


def _asked(url: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()
