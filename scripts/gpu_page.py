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

It also counts the bytes of its tensors, and runs out of memory where they are more than it is given: it shows that
the number of conditions follows from the memory, and that a job keeps none. It cannot show how long anything takes,
what a kernel of CUDA rounds differently, how much memory its kernels and its allocator take besides, or what a
compiled network or a CUDA graph does. Forward derivatives (`fullgrad` of networks with curved functions) are left
out: torch makes tensors of the CPU there. `torch._subclasses.FakeTensorMode` follows functions of tensors only, since
without a driver autograd refuses fake tensors of a GPU; a test runs the metrics of pairs and the forward methods
under it."""
PASSES = """## How a study fills a GPU

**Images.** Those of the next job are opened by a thread while the GPU works on this one, into pinned memory; the copy
to the GPU does not stop the host. Networks that heatproof loads have their channels last in memory.

**Conditions in a pass** (`--conditions-at-once auto|N`). The images of a job under several conditions (noise,
strengths) go through the network together, for all methods. `auto` is one on the CPU. On a GPU it is found before the
first job, for each network: the peak of memory of one condition of the largest job is measured, and 80 % of what is
free is divided by it; no pass has more than 512 images, or 128 of 224 × 224, as for all passes of the engine. The
number is in `study.json` (`conditions_in_a_pass`), and a study goes on with it. Conditions share a pass where they
have the size of the reference and the same weights; methods that are told the condition, such as stored maps, run on
each alone. Maps and rows are those of one condition after the other to rounding (tests: 1e-4 of the value, 1e-5
absolute), since convolutions round by the size of the batch. With the same N the CPU gives the same bytes, also where
a study was stopped and goes on. Where memory runs out all the same, the conditions of the pass are halved, down to
one, and stay so for the worker; then the images of the job are halved.

**Autocast** (`--autocast never|auto|always`; default `never`). In the network, matrix products and convolutions run
in bfloat16 where a map is made and where a metric asks; images are perturbed, and metrics computed, in full
precision. bfloat16 has the exponents of float32, so that small gradients do not vanish, and needs no scaling. `auto`
compares the first images of the study (at most eight), clean and under the last condition, with and without. The
network runs under autocast only where no predicted class changes, no probability by more than .02 (a value: 2 % of
the largest), no flag, and each map of every method keeps a rank correlation (Spearman, over its pixels) of at least
.99 and a mean difference of at most .01, on the scale from 0 to 1. Metrics of pairs compare ranks, and .01 is two and
a half of the 256 grey levels of an image. Otherwise it runs in full precision, and a warning names what would differ.
It is decided for a network and all methods of the study: CAMs share one forward and one backward pass, and a second
pass for those that need full precision would cost more than autocast saves. `study.json` has every method's numbers
(`lower_precision`), and a study goes on as it was begun. `auto` is off on the CPU, on GPUs that have no bfloat16, and
with `--shard`, where machines could decide in different ways; `always` compares too, and warns.

On the CPU, eight images of the bundled networks: `shapes` kept .9999 and .0025 for CAMs, .9986 for `refine:layercam`,
but .986 for `gradient` and .959 for `lrp`; `shapes-vit` kept .991 for `layercam`, but .924 for `refine:layercam`. So
`auto` may choose it for CAMs of such a CNN, and does not with `lrp` or `gradient`. What it gains in time on a GPU is
what `make gpu` measures."""


def gpu_page(table: Callable[[Sequence[str], Any], str]) -> list[str]:
    """The parts of the page; `table(header, rows)` writes a table."""
    known = json.loads(WAITS.read_text("utf-8"))
    return [INTRODUCTION, PASSES, PRETENDED, _counts(known, table), _reasons(known, table)]


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
reference, `clean`, has further rows for each method. The conditions share one pass, whose waits are counted at the
first of them, which also makes the superpixels of the images.

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
