"""Every method, metric, segmenter, perturbation and study has a BibTeX entry, or is named as ours."""

import re

import pytest

from heatproof.attributions import ATTRIBUTIONS
from heatproof.bibliography import bibtex, is_ours, keys_of, publications
from heatproof.metrics import METRICS
from heatproof.perturbations import PERTURBATIONS
from heatproof.segments import SEGMENTERS
from heatproof.studies.study import all_studies
from heatproof.transformations.catalogue import TRANSFORMATIONS

REGISTERED = [
    (f"{kind} {entry.name}", entry.source)
    for kind, registry in {
        "method": ATTRIBUTIONS.values(),
        "metric": METRICS.values(),
        "segmenter": SEGMENTERS.values(),
        "perturbation": PERTURBATIONS.values(),
        "transformation": TRANSFORMATIONS.values(),
        "study": all_studies(),
    }.items()
    for entry in registry
]
#: Sources that cite one publication in two forms, or no other.
CITATION = re.compile(r"[A-ZÖÄÜ][\wäöüí-]+(?:, \w+)*(?: & \w+| et al\.)?,? (?:18|19|20)\d\d")


@pytest.mark.parametrize(("name", "source"), REGISTERED, ids=[name for name, _ in REGISTERED])
def test_every_source_has_its_entries(name, source):
    cited = set(CITATION.findall(source))
    assert is_ours(source) or len(keys_of(source)) >= max(1, len(cited) - 1), f"{name}: {source}"


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ("Wang et al. 2020, alg. 1", ["wang2020scorecam"]),
        ("Wang et al. 2020 (SS-CAM), noise on the masks", ["wang2020sscam"]),
        ("Wang et al. 2020 (Score-CAM), section 4.3; Arras et al. 2022", ["wang2020scorecam", "arras2022clevrxai"]),
        ("Zhang et al. 2018 (mixup); Zhang et al. 2024 (F), section 4", ["zhang2018mixup", "zhang2024saliency"]),
        ("Fong, Patrick & Vedaldi 2019, eq. 4 and 8", ["fong2019extremal"]),
        ("Fong & Vedaldi 2017, eq. 5", ["fong2017meaningful"]),
        ("Zhang, Torres & Hermanns 2024 (ACML)", ["zhang2024saliency"]),
        ("Webber et al. 2010; ties: Corsi & Urbano 2024", ["webber2010rbo", "corsi2024ties"]),
        ("ties: Corsi & Urbano 2024; paper N", ["corsi2024ties", "sarkar2025noise"]),
        ("ours, for tests", []),
    ],
)
def test_sources_find_the_right_entries(source, keys):
    assert keys_of(source) == keys


def test_entries_are_sound():
    years = {form: one for one in publications().values() for form in one.cited if re.search(r"\d{4}", form)}
    for form, one in years.items():
        text = one.text
        assert text.count("{") == text.count("}"), one.key
        fields = re.findall(r"^  (\w+) = \{.*\},?$", text, re.MULTILINE)
        assert {"author", "title", "year"} <= set(fields) and len(set(fields)) == len(fields), one.key
        assert len(text.strip().splitlines()) == len(fields) + 2, one.key
        if "Captum" in form:
            continue
        family = re.split(r"[ ,]", form)[0].replace("yay", "ay")  # the sources spell Chattopadhay in two ways
        author = text.partition("author = ")[2].partition("\n")[0]
        plain = re.sub(r"\\[\"'c]\{?|[{}]", "", author)
        assert plain.startswith(family.replace("ö", "o").replace("í", "i")), (one.key, family, author)
        stated = int(re.findall(r"\d{4}", form)[0])
        assert f"year = {{{stated}}}" in text or one.key == "zhang2024saliency", one.key


def test_forms_are_told_apart():
    forms = [form for one in publications().values() for form in one.cited]
    assert len(set(forms)) == len(forms)


def test_entries_stand_once_and_in_order():
    text = bibtex(["zhou2016cam", "bach2015lrp", "zhou2016cam"])
    assert re.findall(r"@\w+\{(\w+),", text) == ["bach2015lrp", "zhou2016cam"]
