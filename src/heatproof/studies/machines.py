"""On which machines a study ran: the same network gives slightly different numbers on another processor."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from heatproof.errors import HeatproofWarning
from heatproof.studies.store import Store

#: The environment variables that limit the instructions of torch and oneDNN.
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


def this_machine(device: str, threads: int) -> dict[str, Any]:
    """What numbers depend on beside the plan: the device, the vector instructions, and the threads of a worker."""
    found: dict[str, Any] = {"device": device, "instructions": torch.backends.cpu.get_cpu_capability()}
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name(device)
    limits = {name: os.environ[name] for name in LIMITS if os.environ.get(name)}
    return {**found, "threads": threads, **({"limits": limits} if limits else {})}


def machines_of(store: Store, here: Mapping[str, Any], unfinished: bool) -> Sequence[Mapping[str, Any]]:
    """The machines of the study in a folder with this one; a warning where it is another than those before.

    Rows of several machines agree to the tolerances that docs/guide.md states under *Reproducible*.
    """
    there = (store.plan() or {}).get("machines") or []
    if here in there or not unfinished:
        return there or [here]
    if there:
        warnings.warn(
            f"{store.folder} was computed on {_text(there[-1])}, and goes on here on {_text(here)}. Rounding differs: "
            "most maps by less than .00001, those of gradients by up to .03 at some pixels.",
            HeatproofWarning,
            stacklevel=4,
        )
    return [*there, dict(here)]


def _text(machine: Mapping[str, Any]) -> str:
    limits = "".join(f", {name}={value}" for name, value in (machine.get("limits") or {}).items())
    return f"{machine.get('accelerator') or machine['device']} ({machine['instructions']}{limits})"
