"""The finished parts of a job that is not finished, so that a study that is stopped loses no more than a few seconds.

A job is one batch of images, and a batch cannot be cut without changing its numbers in their last digits. What is kept
are results of the whole batch: every method's maps under a condition, every metric of a method's maps, and, once a
condition is done, its rows. A job that is begun again takes them as they are and works out the rest, so its shard has
the same bytes as if it had never been stopped.

They lie in `partial/KEY/NNNN.npz`, written every `EVERY` seconds, and are removed when the job's shard is there.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from heatproof.addresses import Place, load_arrays, names_in, remove_folder
from heatproof.engine import Outcome
from heatproof.files import write_atomically
from heatproof.flags import Flag, Reason
from heatproof.studies.maps import KeptMaps
from heatproof.studies.rows import Rows

#: Seconds between two files: what is lost is this, and the map or the score that was being worked out.
EVERY = 20.0
#: The file that is there while a job is done, and after one that did not end.
BEGUN = "begun"

Arrays = dict[str, np.ndarray]


class PartialJob:
    """The finished parts of one job, by name; each is a few arrays."""

    def __init__(self, folder: Place):
        self.folder = folder
        self._pending: dict[str, Callable[[], Arrays]] = {}
        self._known: dict[str, Arrays] = {}
        self._files = 0
        for name in names_in(folder, ".npz"):
            self._files = int(name.removesuffix(".npz")) + 1
            with suppress(Exception):  # a file that cannot be read is worked out again
                self._known.update(_parts(folder / name))
        self._last = time.monotonic()

    def begin(self) -> bool:
        """Notes that the job is begun; whether it had been before, and did not end."""
        mark = self.folder / BEGUN
        before = mark.exists()
        write_atomically(mark, lambda file: file.write(b"begun"))
        return before

    def get(self, name: str) -> Arrays | None:
        """A finished part of an earlier run, or None."""
        return self._known.get(name)

    def put(self, name: str, arrays: Callable[[], Arrays]) -> None:
        """Keeps a part; `arrays` is called when it is written."""
        self._pending[name] = arrays
        if time.monotonic() - self._last >= EVERY:
            self.write()

    def forget(self, prefix: str) -> None:
        """Parts that need not be written any more, as others hold what they did."""
        self._pending = {name: part for name, part in self._pending.items() if not name.startswith(prefix)}

    def write(self) -> None:
        """Writes the parts that are not written yet."""
        parts = {name: made() for name, made in self._pending.items()}
        index = {name: list(arrays) for name, arrays in parts.items()}
        flat: dict[str, Any] = {
            f"{i}.{field}": parts[name][field] for i, name in enumerate(index) for field in index[name]
        }
        path = self.folder / f"{self._files:04d}.npz"
        write_atomically(path, lambda file: np.savez(file, index=np.array(json.dumps(index)), **flat))
        self._pending, self._last, self._files = {}, time.monotonic(), self._files + 1

    def remove(self) -> None:
        """Removes all that was written."""
        remove_folder(self.folder)

    def of(self, images: Sequence[str]) -> "PartialBatch":
        """The parts about these images of the job."""
        return PartialBatch(self, hashlib.blake2b(repr(list(images)).encode(), digest_size=8).hexdigest())


class PartialBatch:
    """The finished parts of a batch, condition by condition."""

    def __init__(self, job: PartialJob, batch: str):
        self._job, self._batch = job, batch

    def condition(self, number: int) -> "PartialCondition":
        """The parts under one condition."""
        return PartialCondition(self._job, f"{self._batch}/{number}/")

    def done(self, number: int) -> bool:
        """Whether the rows of a condition are known from an earlier run."""
        return self._job.get(f"{self._batch}/{number}/rows") is not None

    def explained(self, number: int, methods: Sequence[str]) -> bool:
        """Whether the logits and the maps of these methods are known from an earlier run."""
        names = ["logits", *(f"map {method}" for method in methods)]
        return all(self._job.get(f"{self._batch}/{number}/{name}") is not None for name in names)

    def rows(self, number: int, kept: KeptMaps) -> Rows | None:
        """The rows of a condition that is done, whose maps are added to `kept`; None where it is not."""
        found = self._job.get(f"{self._batch}/{number}/rows")
        if found is None:
            return None
        shown = json.loads(str(found["methods"]))
        raw = sorted((name for name in found if name.startswith("raw")), key=lambda name: int(name[3:]))
        kept.add_raw([torch.from_numpy(found[name]) for name in raw])
        kept.display |= {method: found[f"display{i}"] for i, method in enumerate(shown)}
        return Rows.from_text(str(found["rows"]))

    def add_rows(self, number: int, rows: Rows, raw: Sequence[torch.Tensor], display: Mapping[str, np.ndarray]) -> None:
        """Keeps the rows of a condition and its maps; the reference's maps stay, as other conditions need them."""
        prefix = f"{self._batch}/{number}/"
        for kind in ("score", "map", "logits") if number else ("score",):
            self._job.forget(f"{prefix}{kind}")
        self._job.put(
            f"{prefix}rows",
            lambda: {
                "rows": np.array(rows.text()),
                "methods": np.array(json.dumps(list(display))),
                **{f"raw{i}": _array(one) for i, one in enumerate(raw)},
                **{f"display{i}": one for i, one in enumerate(display.values())},
            },
        )


class PartialCondition:
    """The finished maps and scores of a batch under one condition, as the engine asks for them."""

    def __init__(self, job: PartialJob, prefix: str):
        self._job, self._prefix = job, prefix

    def logits(self) -> torch.Tensor | None:
        """The logits of the batch, `(N, K)`."""
        return self._tensor("logits")

    def add_logits(self, logits: torch.Tensor) -> None:
        """Keeps the logits."""
        self._add("logits", lambda: {"values": _array(logits)})

    def maps(self, method: str) -> torch.Tensor | None:
        """The raw maps of a method."""
        return self._tensor(f"map {method}")

    def add_maps(self, method: str, raw: torch.Tensor) -> None:
        """Keeps the raw maps of a method, unless numpy has no such numbers."""
        if raw.dtype is not torch.bfloat16:
            self._add(f"map {method}", lambda: {"values": _array(raw)})

    def add_explanation(self, logits: torch.Tensor, raw: Mapping[str, torch.Tensor]) -> None:
        """Keeps the logits and the raw maps of all methods."""
        self.add_logits(logits)
        for method, maps in raw.items():
            self.add_maps(method, maps)

    def outcome(self, method: str, metric: str) -> Outcome | None:
        """The values of a metric on a method's maps."""
        found = self._job.get(f"{self._prefix}score {method} {metric}")
        if found is None:
            return None
        flags = [Flag(Reason[reason], text) for reason, text in json.loads(str(found["flags"]))]
        curve = (torch.from_numpy(found["at"]), torch.from_numpy(found["points"])) if "at" in found else None
        return Outcome(method, metric, torch.from_numpy(found["values"]), flags, curve)

    def add_outcome(self, outcome: Outcome) -> None:
        """Keeps the values of a metric on a method's maps."""

        def arrays() -> Arrays:
            flags = json.dumps([(flag.reason.name, str(flag)) for flag in outcome.flags])
            found = {"values": _array(outcome.values), "flags": np.array(flags)}
            if outcome.curve is not None:
                found |= {"at": _array(outcome.curve[0]), "points": _array(outcome.curve[1])}
            return found

        self._add(f"score {outcome.method} {outcome.metric}", arrays)

    def _add(self, name: str, arrays: Callable[[], Arrays]) -> None:
        self._job.put(f"{self._prefix}{name}", arrays)

    def _tensor(self, name: str) -> torch.Tensor | None:
        found = self._job.get(f"{self._prefix}{name}")
        return None if found is None else torch.from_numpy(found["values"])


def _parts(path: Place) -> dict[str, Arrays]:
    """The parts in one file."""
    with load_arrays(path) as found:
        index = json.loads(str(found["index"]))
        return {name: {field: found[f"{i}.{field}"] for field in fields}
                for i, (name, fields) in enumerate(index.items())}  # fmt: skip


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy()
