"""Trains a bundled network; writes NAME.safetensors and .json to models/weights.

    OMP_NUM_THREADS=1 python scripts/train_bundled.py shapes|creatures [--epochs 28] [--minutes 28] [--seed 0]

AdamW with a cosine schedule. Shapes are turned by quarters and mirrored at random, creatures mirrored, which no class
minds. Of every creature a second image is learnt, without random parts and distractors, so that images with parts
removed are nothing new (as in FunnyBirds); its target is shared by the classes that have the parts that are left. The
weights kept are those of the epoch with the lowest validation loss. The test images (other random streams, other
backgrounds) are looked at once, at the end.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from heatproof.data.creatures import Creatures, demo_creatures
from heatproof.data.shapes import DEMO, Shapes, demo_shapes
from heatproof.models.shapesnet import shapesnet
from heatproof.seeds import derived_seed

WEIGHTS = Path(__file__).resolve().parent.parent / "src" / "heatproof" / "models" / "weights"
MEAN = STD = 0.5
BATCH, PEAK, DECAY = 64, 4e-3, 1e-2
Set = tuple[torch.Tensor, torch.Tensor]  # uint8 (N, 3, H, W), and the probability of each class (N, K)


@dataclass(frozen=True)
class Recipe:
    """A bundled network: the file it is kept in, its images by split, what is learnt, and what the card says of them.

    turns: whether images are turned by quarters too.
    """

    file: str
    images: Callable[..., Shapes | Creatures]
    learnt: Callable[[Any], Set]
    facts: Mapping[str, Any]
    turns: bool


def stacked(images: list[Any]) -> torch.Tensor:
    """Images of PIL as uint8 `(N, 3, H, W)`."""
    return torch.from_numpy(np.stack([np.asarray(one) for one in images])).permute(0, 3, 1, 2).contiguous()


def tensors(images: Shapes | Creatures) -> Set:
    """All images of a split as they are."""
    labels = F.one_hot(torch.tensor(images.labels), len(images.class_names)).float()
    return stacked([images.open(i) for i in range(images.n)]), labels


def with_removals(images: Creatures) -> Set:
    """All images of a split, and each once more without random parts and distractors."""
    pixels, labels = tensors(images)
    removed, targets = [], torch.zeros_like(labels)
    for i in range(images.n):
        one, stream = images.parts(i), np.random.default_rng(derived_seed(0, images.ids[i], "training removals"))
        count = int(stream.integers(1, len(one.table.parts) + 1))
        gone = frozenset(map(str, stream.permutation(one.table.parts)[:count]))
        others = frozenset(name for name in one.distractors if stream.random() < 0.5)
        removed.append(one.without(gone | others))
        left = one.table.compatible(one.label, one.table.whole - gone)
        targets[i, left] = 1 / len(left)
    return torch.cat([pixels, stacked(removed)]), torch.cat([labels, targets])


RECIPES = {
    "shapes": Recipe(
        "shapesnet", demo_shapes, tensors, {"shapes": {k: DEMO[k] for k in ("size", "shape_sizes", "seed")}}, True
    ),
    "creatures": Recipe(
        "creatures", demo_creatures, with_removals, {"removals": "each image once more, parts removed at random"}, False
    ),
}


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    return ((pixels.float() / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def turned(pixels: torch.Tensor, generator: torch.Generator, turns: bool) -> torch.Tensor:
    """A batch, mirrored or not and by random quarter turns (the same for the whole batch)."""
    number, mirrored = torch.randint(4, (), generator=generator), torch.randint(2, (), generator=generator)
    pixels = torch.rot90(pixels, int(number), (2, 3)) if turns else pixels
    return pixels.flip(3) if mirrored else pixels


@torch.inference_mode()
def loss_and_accuracy(net: torch.nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    net.eval()
    logits = torch.cat([net(normalised(batch)) for batch in pixels.split(100)])
    accuracy = (logits.argmax(1) == labels.argmax(1)).float().mean()
    return float(F.cross_entropy(logits, labels)), float(accuracy)


def epoch(net, optimiser, schedule, pixels, labels, generator, turns: bool) -> float:
    net.train()
    losses = []
    for rows in torch.randperm(len(pixels), generator=generator).split(BATCH):
        optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(net(normalised(turned(pixels[rows], generator, turns))), labels[rows])
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def train(recipe: Recipe, epochs: int, minutes: float, patience: int, seed: int) -> tuple[torch.nn.Module, dict]:
    """The network of the best validation epoch, in eval mode, and how it came about."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    start = time.monotonic()
    train_set, val_set = recipe.learnt(recipe.images("train")), tensors(recipe.images("val"))
    print(f"{len(train_set[0])} training images made in {time.monotonic() - start:.0f} s", flush=True)
    net = shapesnet(val_set[1].shape[1]).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), lr=PEAK, weight_decay=DECAY)
    steps = epochs * math.ceil(len(train_set[0]) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK, total_steps=steps, pct_start=0.15)
    best, kept, best_epoch, done = math.inf, copy.deepcopy(net.state_dict()), 0, 0
    for done in range(1, epochs + 1):
        loss = epoch(net, optimiser, schedule, *train_set, generator, recipe.turns)
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


def card(recipe: Recipe, accuracy: float, seed: int, story: Mapping[str, Any]) -> dict[str, Any]:
    """What the .json beside the weights says."""
    test = recipe.images("test")
    return {
        "size": [test.size] * 2,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "resize": None,
        "classes": list(test.class_names),
        "test_accuracy": round(accuracy, 4),
        "training": {
            "images": {split: recipe.images(split).n for split in ("train", "val", "test")},
            **recipe.facts,
            "generator": recipe.images("test", 12).pixel_hash(),
            "optimiser": f"AdamW, one-cycle, peak lr {PEAK}, weight decay {DECAY}, batch {BATCH}",
            "seed": seed,
            **story,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("network", choices=list(RECIPES))
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--minutes", type=float, default=28, help="stop after the epoch that passes this")
    parser.add_argument("--patience", type=int, default=10, help="epochs without a better validation loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.network]
    net, story = train(recipe, arguments.epochs, arguments.minutes, arguments.patience, arguments.seed)
    _, accuracy = loss_and_accuracy(net, *tensors(recipe.images("test")))
    print(f"test accuracy {accuracy:.4f} on {recipe.images('test').n} images")
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, arguments.out / f"{recipe.file}.safetensors")
    text = json.dumps(card(recipe, accuracy, arguments.seed, story), indent=2)
    (arguments.out / f"{recipe.file}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
