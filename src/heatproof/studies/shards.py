"""A study in shards: `--shard 3/40` does every fortieth job, into a folder of its own (see `merging`)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from heatproof.addresses import Place, is_address, place
from heatproof.errors import InvalidInput

_NAME = re.compile(r"shard-(\d+)-of-(\d+)")
_Job = TypeVar("_Job")


class Shard(NamedTuple):
    """The `number`-th of `count` shards, the first being 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """Its folder's name, as `shard-003-of-040`."""
        width = max(3, len(str(self.count)))
        return f"shard-{self.number:0{width}d}-of-{self.count:0{width}d}"

    def of(self, jobs: Sequence[_Job]) -> list[_Job]:
        """The jobs of this shard: in turn, so that every shard has as many of every model and set of images."""
        return list(jobs[self.number - 1 :: self.count])

    @classmethod
    def read(cls, text: Any) -> "Shard":
        """A shard from `3/40` or a pair of numbers. InvalidInput where it is none."""
        parts = text.split("/") if isinstance(text, str) else text
        try:
            found = cls(*(int(part) for part in parts))
        except (TypeError, ValueError):
            raise InvalidInput(f"--shard must be NUMBER/COUNT, as 3/40. Got {text!r}.") from None
        if not 1 <= found.number <= found.count:
            raise InvalidInput(
                f"--shard must have a number from 1 to its count, as 1/{max(1, found.count)}. Got {found}."
            )
        return found


def shard_folders(folder: Place) -> list[Any]:
    """The folders of shards below a folder, in order."""
    there = place(folder)
    if is_address(there):
        there.fs.invalidate_cache(there.path)
    if not there.is_dir():
        return []
    found = [one.name for one in there.iterdir() if _NAME.fullmatch(one.name)]
    return [there / name for name in sorted(found)]


def job_keys(plan: Mapping[str, Any]) -> list[str]:
    """The keys of all jobs of a study, in the order in which shards take them, from its `study.json`."""
    size = plan.get("batch_size") or 1
    return [
        f"m{model:02d}-d{dataset:02d}-{start:07d}"
        for model in range(len(plan["models"]))
        for dataset, one in enumerate(plan["datasets"])
        for start in range(0, one["image_count"], size)
    ]
