"""Trains the bundled network on the demo's Shapes; writes shapesnet.safetensors and .json to models/weights.

    OMP_NUM_THREADS=1 python scripts/train_shapes.py [--epochs 28] [--minutes 28] [--seed 0]

AdamW with a cosine schedule; images are turned by quarters and mirrored at random, which no class minds.
The weights kept are those of the epoch with the lowest validation loss. The 600 test images (other random
streams, other backgrounds) are looked at once, at the end.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from heatproof.data.shape_drawing import CLASSES
from heatproof.data.shapes import DEMO, Shapes, demo_shapes
from heatproof.models.shapesnet import shapesnet

WEIGHTS = Path(__file__).resolve().parent.parent / "src" / "heatproof" / "models" / "weights"
MEAN = STD = 0.5
BATCH, PEAK, DECAY = 64, 4e-3, 1e-2


def tensors(images: Shapes) -> tuple[torch.Tensor, torch.Tensor]:
    """All images of a split: uint8 `(N, 3, H, W)` and labels `(N,)`."""
    pixels = np.stack([np.asarray(images.open(i)) for i in range(images.n)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(images.labels)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    return ((pixels.float() / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def turned(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A batch, by random quarter turns and mirrored or not (the same for the whole batch)."""
    turns, mirrored = torch.randint(4, (), generator=generator), torch.randint(2, (), generator=generator)
    pixels = torch.rot90(pixels, int(turns), (2, 3))
    return pixels.flip(3) if mirrored else pixels


@torch.inference_mode()
def loss_and_accuracy(net: torch.nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    net.eval()
    logits = torch.cat([net(normalised(batch)) for batch in pixels.split(100)])
    accuracy = (logits.argmax(1) == labels).float().mean()
    return float(F.cross_entropy(logits, labels)), float(accuracy)


def epoch(net, optimiser, schedule, pixels, labels, generator) -> float:
    net.train()
    losses = []
    for rows in torch.randperm(len(pixels), generator=generator).split(BATCH):
        optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(net(normalised(turned(pixels[rows], generator))), labels[rows])
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def train(epochs: int, minutes: float, patience: int, seed: int) -> tuple[torch.nn.Module, dict]:
    """The network of the best validation epoch, in eval mode, and how it came about."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    start = time.monotonic()
    train_set, val_set = tensors(demo_shapes("train")), tensors(demo_shapes("val"))
    print(f"{len(train_set[0])} training images made in {time.monotonic() - start:.0f} s", flush=True)
    net = shapesnet(len(CLASSES)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), lr=PEAK, weight_decay=DECAY)
    steps = epochs * math.ceil(len(train_set[0]) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK, total_steps=steps, pct_start=0.15)
    best, kept, best_epoch, done = math.inf, copy.deepcopy(net.state_dict()), 0, 0
    for done in range(1, epochs + 1):
        loss = epoch(net, optimiser, schedule, *train_set, generator)
        val_loss, val_accuracy = loss_and_accuracy(net, *val_set)
        spent = (time.monotonic() - start) / 60
        print(
            f"epoch {done}: loss {loss:.4f}, val {val_loss:.4f} {val_accuracy:.4f}, {spent:.1f} min",
            flush=True,
        )
        if val_loss < best:
            best, kept, best_epoch = val_loss, copy.deepcopy(net.state_dict()), done
        if done - best_epoch >= patience or spent > minutes:
            break
    net.load_state_dict(kept)
    spent = (time.monotonic() - start) / 60
    story = {"epochs": done, "best_epoch": best_epoch, "val_loss": best, "minutes": round(spent, 1)}
    return net.eval(), story


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--minutes", type=float, default=28, help="stop after the epoch that passes this")
    parser.add_argument("--patience", type=int, default=10, help="epochs without a better validation loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    net, story = train(arguments.epochs, arguments.minutes, arguments.patience, arguments.seed)
    test = demo_shapes("test")
    _, accuracy = loss_and_accuracy(net, *tensors(test))
    print(f"test accuracy {accuracy:.4f} on {test.n} images")
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, arguments.out / "shapesnet.safetensors")
    card = {
        "size": [DEMO["size"]] * 2,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "resize": None,
        "classes": list(CLASSES),
        "test_accuracy": round(accuracy, 4),
        "training": {
            "images": {split: demo_shapes(split).n for split in ("train", "val", "test")},
            "shapes": {key: DEMO[key] for key in ("size", "shape_sizes", "seed")},
            "generator": demo_shapes("test", 12).pixel_hash(),
            "optimiser": f"AdamW, one-cycle, peak lr {PEAK}, weight decay {DECAY}, batch {BATCH}",
            "seed": arguments.seed,
            **story,
        },
    }
    (arguments.out / "shapesnet.json").write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
