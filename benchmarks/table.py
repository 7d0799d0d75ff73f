"""Results as text: one block for each, wide enough for a terminal, narrow enough for a note."""

from typing import Any

from benchmarks.result import Result
from benchmarks.settings import Settings

COLUMNS = f"{'work':<72} {'floor':>9} {'time':>9} {'ratio':>6} {'quartiles':>12} {'aim':>6}"


def heading(about: dict[str, Any], settings: Settings) -> str:
    """The machine and the columns."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "torch", "grad-cam") if about.get(name))
    load = f", load before {about['load_before'][0]:g}" if about["load_before"] else ""
    first = f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB{load}; {versions}"
    quick = "; quick: few repetitions, rough numbers" if settings.quick else ""
    return f"{first}\nthreads {settings.threads} (the study: 1){quick}\n\n{COLUMNS}\n{'-' * len(COLUMNS)}"


def block(result: Result) -> str:
    """The row, and below it the floor's parts, the peers and the details."""
    low, high = result.quartiles
    spread = f"{low:.2f}–{high:.2f}" if high > low else "–"
    mark = "" if result.met else "  MISSED"
    row = (
        f"{result.work:<72} {_amount(result.floor, result.unit):>9} {_amount(result.seconds, result.unit):>9} "
        f"{result.ratio:>6.3f} {spread:>12} ≤ {result.aim:<4g}{mark}"
    )
    lines = [row, "    " + _conditions(result)]
    lines += [f"    floor: {part.count} × {part.what}, {_amount(part.seconds, result.unit)}" for part in result.parts]
    lines += [f"    peer: {peer.name} {_amount(peer.seconds)} = {peer.times:.1f} × ours ({peer.note})"
              for peer in result.peers]  # fmt: skip
    lines += [f"    {line}" for line in _details(result.details)]
    lines += [f"    note: {note}" for note in result.notes]
    return "\n".join(lines)


def _conditions(result: Result) -> str:
    used = f", ratio in processor time {result.processor_ratio:.3f}" if result.processor_ratio else ""
    return f"n {result.n}, batch {result.batch}, threads {result.threads}, repetitions {result.repeats}{used}"


def _details(details: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in details.items():
        if isinstance(value, dict):
            total = sum(item["seconds"] for item in value.values())
            shares = [f"{part} {item['seconds']:.3g} s ({item['seconds'] / total:.1%})" for part, item in value.items()]
            lines += [f"{name.replace('_', ' ')}:", *(f"  {share}" for share in shares)]
        else:
            lines.append(f"{name.replace('_', ' ')}: {value:.4g}")
    return lines


def _amount(value: float, unit: str = "s") -> str:
    if unit != "s":
        return f"{value:.0f} {unit}"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"
