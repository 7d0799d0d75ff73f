"""Writes `benchmarks/waits.json` anew: where every path of the engine waits for a GPU, counted on a pretended one.

    python scripts/waits.py

Reasons are kept; a wait without one is printed, and so is a reason that no wait has. Then `make docs` writes
docs/gpu.md.
"""

import json
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """The exit status is 1 where a reason is missing."""
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    warnings.simplefilter("ignore")
    import torch

    from tests import device_paths

    torch.set_num_threads(1)
    before = device_paths.known() if device_paths.FILE.exists() else {"reasons": {}, "before": {}}
    paths = {path: device_paths.sites(device_paths.waits(path)) for path in device_paths.PATHS}
    noise = device_paths.condition_waits(device_paths.NOISE)
    conditions = {name: device_paths.sites(found) for name, found in noise.items()}
    used = sorted({site for found in [*paths.values(), *conditions.values()] for site in found})
    reasons = {site: before["reasons"].get(site, "") for site in used}
    found = {"reasons": reasons, "before": before["before"], "paths": paths, "conditions": conditions}
    device_paths.FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(*(f"no reason: {site}" for site in used if not reasons[site]), sep="\n")
    print(*(f"gone: {site}" for site in sorted(set(before["reasons"]) - set(used))), sep="\n")
    print(f"{len(paths)} paths and {len(conditions)} conditions, {len(used)} waits.")
    return int(not all(reasons.values()))


if __name__ == "__main__":
    sys.exit(main())
