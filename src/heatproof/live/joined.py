"""How results and a network come together: what the command `heatproof view` makes of its options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heatproof import targets
from heatproof.errors import HeatproofError, InvalidInput, StoreError
from heatproof.live.network import Network
from heatproof.live.study_images import StudyImages, sources
from heatproof.models import load_model
from heatproof.panels.explain_images import MapSettings
from heatproof.panels.selection import selected
from heatproof.panels.show import ShowRequest, checked_job
from heatproof.report.overlay import Look
from heatproof.studies.store import Store
from heatproof.view.interface import Collection

#: Without methods of its own, a network beside results explains with those of the results, but for the slow ones.
MOST = 6


def network(spec: Any, settings: dict[str, Any], device: str, images: Sequence[str], asked: dict[str, Any]) -> Network:
    """A network with images, without results."""
    model = load_model(spec, device=device, **settings)
    return Network(checked_job(model, list(images), **asked))


def beside(
    folder: Path, collection: Collection, spec: str, settings: dict[str, Any], device: str,
    images: Sequence[str] | None, asked: dict[str, Any],
) -> Network:  # fmt: skip
    """A network beside results: it explains the images of the results, by the names that they have there.

    Its notices, about other weights or images that are not there, are added to the collection's.

    Raises:
        StoreError: no image of the results can be had.
    """
    model = load_model(spec, device=device, **settings)
    plan = Store(folder).plan() or {}
    asked = {**asked, "methods": asked["methods"] or _methods(collection, plan)}
    if not plan:
        found = _explained(collection, images)
        request = checked_job(model, found, **asked)
    else:
        request = _of_study(folder, plan, model, images, asked)
    live = Network(request)
    _compare(live, plan, collection)
    return live


def _methods(collection: Collection, plan: dict[str, Any]) -> list[str]:
    """The methods of the results that are no controls."""
    named = [name for name in plan.get("methods") or () if ":" not in name or name.startswith("refine:")]
    found = named or [method.key for method in collection.methods if not method.key.startswith(("python:", "maps:"))]
    return found[:MOST] or ["gradcam"]


def _explained(collection: Collection, images: Sequence[str] | None) -> list[str]:
    """The files that `heatproof explain` was given, or those of --images."""
    if images:
        return list(images)
    count = collection.page(_everything()).of
    found = [name for name in map(collection.image_id, range(count)) if Path(name).is_file()]
    if not found:
        raise StoreError("The images of these results are not where they were. Name their folder with --images.")
    return found


def _everything() -> Any:
    from heatproof.view.interface import Wanted

    return Wanted()


def _of_study(
    folder: Path, plan: dict[str, Any], model: Any, images: Sequence[str] | None, asked: dict[str, Any]
) -> ShowRequest:
    """The images of a study under a network, with the seed of the study, so that its noise is the same."""
    reader = StudyImages(folder, images[0] if images else None)
    try:
        shots = [shot for name in reader.names for shot in sources(reader.dataset(name), model)]
    except HeatproofError as error:
        raise StoreError(
            f"The network needs the images of {folder}: {error} Name their folder with --images."
        ) from None
    if not shots:
        raise StoreError(f"{folder} does not say where its images are. Name their folder with --images.")
    if asked["target"] == "label" and all(shot.label is None for shot in shots):
        raise InvalidInput("--target label needs labels. The images of these results have none.")
    wanted = selected(model, asked["methods"], settings_layer(plan), asked["layers"], asked["options"])
    seed = int(asked.get("seed") or plan.get("seed") or 0)
    work = MapSettings(model, wanted, targets.with_indices(asked["target"], model.classes), "logit", "bilinear", seed)
    return ShowRequest(work, shots, Look())


def settings_layer(plan: dict[str, Any]) -> str:
    """The layer that a study of one model explained."""
    models = plan.get("models") or ()
    return str(models[0].get("asked_layer") or "auto") if len(models) == 1 else "auto"


def _compare(live: Network, plan: dict[str, Any], collection: Collection) -> None:
    known = [one.get("fingerprint") for one in plan.get("models") or () if one.get("fingerprint")]
    if known and live.fingerprint not in known:
        collection.notices = [
            *collection.notices,
            f"The live network {live.name} has other weights than the network of these results. Maps under other noise "
            "and erased regions are those of the live network.",
        ]
