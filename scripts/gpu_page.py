"""docs/gpu.md: what is the same on a GPU, and where the host waits for it; `make_docs.py` writes the page.

The numbers are those of `benchmarks/waits.json`: `scripts/waits.py` writes it, `tests/test_accelerator.py` checks it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

WAITS = Path(__file__).resolve().parent.parent / "benchmarks" / "waits.json"
WHAT = {
    "number": "a number is read",
    "comparison": "two tensors are compared",
    "size": "a size depends on numbers",
    "mask": "a mask is an index",
    "status": "a solver's status is read",
    "to host": "a copy to the host",
    "to device": "a copy to the GPU",
}
INTRODUCTION = """
`--device cuda`, or `auto` where there is a GPU, runs networks, maps, metrics and perturbations there. Random numbers
are drawn on the CPU, so that every device has the same; superpixels, JPEG and the fits of LIME and Kernel SHAP are made
on the CPU. Numbers agree with the CPU's to rounding: `make gpu` compares them on any machine with a GPU, in six
minutes (maps to 1e-4 of the largest value, metrics to 1e-3), and times methods beside the passes that they make."""
PRETENDED = """## Without a GPU

Tests run every path on a *pretended* GPU (`tests/accelerator.py`): tensors in the CPU's memory that say they are on
`cuda:0`. Numbers are computed, so every path runs to its end. What a GPU refuses is an error with its line: an
operation on tensors of two devices, an array made of a tensor of the GPU, a generator of the CPU that shall fill one.
A copy to the host that was not waited for holds other numbers until it is. Where the host waits is counted by torch's
own rules for CUDA (`torch.cuda.set_sync_debug_mode`). On an H100, at commit 453fdf9, torch counted 5 waits for
`gradcam`, 8 for `eigencam`, 5 for `layercam` and `refine:layercam`, 6 for `scorecam`, 47 for `insertion` and 28 for
`road`; the pretended GPU counts as many at that commit, call by call.

It cannot show how long anything takes, what a kernel of CUDA rounds differently, how much memory is used, or what a
compiled network or a CUDA graph does. Forward derivatives (`fullgrad` of networks with curved functions) are left
out: torch makes tensors of the CPU there. `torch._subclasses.FakeTensorMode` follows functions of tensors only, since
without a driver autograd refuses fake tensors of a GPU; a test runs the metrics of pairs and the forward methods
under it."""


def gpu_page(table: Callable[[Sequence[str], Any], str]) -> list[str]:
    """The parts of the page; `table(header, rows)` writes a table."""
    known = json.loads(WAITS.read_text("utf-8"))
    return [INTRODUCTION, PRETENDED, _counts(known, table), _reasons(known, table)]


def _counts(known: Mapping[str, Any], table: Callable) -> str:
    now = {path: sum(found.values()) for path, found in known["paths"].items()}
    now |= {f"condition {name}": sum(found.values()) for name, found in known["conditions"].items()}
    before, rows = known["before"], []
    groups = {"method": "methods", "metric": "metrics", "change": "perturbations and transformations"}
    for kind, named in groups.items():
        paths = [path for path in now if path.startswith(f"{kind} ")]
        totals = (str(sum(counted[one] for one in paths)) for counted in (before, now))
        rows.append((f"{len(paths)} {named}, one call each", *totals))
    rows += [(path, str(before[path]), str(now[path])) for path in now if path.startswith("condition ")]
    return f"""## How often

Waits of a second call on two images, before and after needless ones were taken out. Conditions are those of a noise
study with five methods, five controls and six metrics; the number does not depend on how many methods there are. The
reference, `clean`, has further rows for each method; the first perturbation of a batch also makes its superpixels.

{table(("what", "before", "now"), rows)}"""


def _reasons(known: Mapping[str, Any], table: Callable) -> str:
    everywhere = {**known["paths"], **{f"condition {name}": one for name, one in known["conditions"].items()}}
    rows = []
    for site, reason in known["reasons"].items():
        place, _, kind = site.rpartition(": ")
        file, _, function = place.partition(" ")
        paths = [path for path, found in everywhere.items() if site in found]
        rows.append((f"`{file}` {function}", WHAT[kind], reason, str(len(paths))))
    return f"""## Where, and why

Every wait that is left on a warm path; a test fails where another one appears, or one of these is gone. *paths*: in how
many of the {len(everywhere)} methods, metrics, changes and conditions.

{table(("where", "what", "why", "paths"), rows)}"""
