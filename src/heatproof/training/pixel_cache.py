"""All images of a set as the network's input, in bytes, on disk: drawn or decoded once for all epochs."""

import os
from pathlib import Path

import numpy as np
import torch

from heatproof.data.torch_dataset import ImageDataset
from heatproof.progress import Bar, Log, Silent


def cached_pixels(data: ImageDataset, path: Path, bar: Bar | Log | Silent) -> tuple[np.ndarray, torch.Tensor]:
    """Pixels uint8 `(N, C, h, w)`, mapped from the file, and labels `(N,)`; made where the file is not there."""
    rows = data.rows
    labels = torch.tensor([data.images.labels[row] for row in rows])
    bar.stage(f"Preparing {data.images.name}", len(rows))
    if not path.exists():
        first = data[0][0]
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            whole = np.lib.format.open_memmap(part, "w+", np.uint8, (len(rows), *first.shape))
            for i in range(len(rows)):
                whole[i] = (data[i][0] * 255).round().byte().numpy()
                bar.advance(1)
            whole.flush()
            del whole
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r"), labels
