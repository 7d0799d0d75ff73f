"""The models that have a name, for `heatproof list models`."""

from typing import Any


def available() -> list[dict[str, Any]]:
    """One object per spec: the bundled networks, those of packages, torchvision's and timm's, and the open forms."""
    import timm
    import torchvision

    from heatproof.models.load import FORMS
    from heatproof.models.model_sources import BUNDLED
    from heatproof.models.packaged import PACKAGED

    open_forms = [form for form in FORMS if form.startswith(("hf:", "python:"))]
    classifiers = torchvision.models.list_models(module=torchvision.models)
    return [
        *(_entry_of(name, FORMS[name], "heatproof") for name in BUNDLED),
        *(_entry_of(f"pypi:{name}", network.about, network.distribution) for name, network in PACKAGED.items()),
        *(_entry_of(form, FORMS[form], form.partition(":")[0]) for form in open_forms),
        *(_entry_of(f"torchvision:{name}", "", "torchvision") for name in classifiers),
        *(_entry_of(f"timm:{name}", "", "timm") for name in timm.list_models()),
    ]


def _entry_of(name: str, summary: str, source: str) -> dict[str, Any]:
    options = {"checkpoint": None, "model_args": {}, "mean": None, "std": None, "size": None, "layer": "auto"}
    return {"name": name, "summary": summary, "needs": [], "options": options, "source": source}
