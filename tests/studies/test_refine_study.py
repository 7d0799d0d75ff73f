"""The refine study on the bundled network: its arms are the maps of `refine:` and of plain CAMs at each stage."""

import pytest

from heatproof.errors import InvalidStudy
from heatproof.report.findings import Findings
from heatproof.report.page import context
from heatproof.report.source import open_source
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.studies.store import connect


def plan(**settings):
    base = {"study": "refine", "models": ["shapes"], "datasets": ["shapes"], "methods": ["layercam", "eigencam"],
            "beside": ["input-x-gradient"], "operators": ["product", "geometric"], "severities": [3], "limit": 10,
            "resamples": 100, "batch_size": 5, "controls": "none"}  # fmt: skip
    return checked_plan({**base, **settings})


class Heard:
    """Progress that nobody reads; with one, the passes are counted beforehand."""

    def stage(self, text, total, done=0):
        pass

    def advance(self, share=1.0):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a small study."""
    out = tmp_path_factory.mktemp("refine")
    done = run(plan(methods=["layercam", "eigencam", "guided-gradcam"]), out, workers=1, progress=Heard())
    assert done.passes is not None
    made, told = done.passes.made, done.passes.needed
    assert 0.9 < made.forward / told.forward < 1.1 and 0.9 < made.backward / told.backward < 1.1, done.passes
    return out


def test_arms_rows_and_layers(folder):
    found = dict(
        connect(folder).execute("SELECT method, max(layers) FROM rows WHERE method <> '' GROUP BY 1").fetchall()
    )
    assert found["layercam@stage:2"] == "stage2"
    assert found["refine:layercam@stage:2"] == "stage2+stage3+stage4"
    assert found["refine:eigencam@stage:1[operator=geometric]"] == "stage1+stage2+stage3+stage4"
    assert len(found) == 3 * (4 + 3 + 1) + 1 + 1  # and the ground truth
    rows = connect(folder).execute("SELECT count(*) FROM rows WHERE metric = 'arcc' AND NOT reference").fetchone()
    assert rows == (0,)


def test_the_findings_are_made_of_the_rows(folder):
    findings = Findings(open_source(folder))
    (one,) = findings.refinement
    query = "SELECT method, avg(value) FROM rows WHERE metric = 'arcc' AND method <> 'ground-truth' GROUP BY 1"
    for method, mean in connect(folder).execute(query).fetchall():
        row = one.table[(one.table["method"] == method) & (one.table["metric"] == "arcc")]
        assert row["mean"].item() == pytest.approx(mean)
    assert one.images == 10 and one.accuracy == 1
    assert list(one.metrics) == ["arcc", "coherency", "complexity", "road", "mask-cosine", "kappa under noise"]
    query = "SELECT avg(value) FROM rows WHERE metric = 'kappa' AND method = 'layercam@stage:4' AND NOT changed"
    kappa = connect(folder).execute(query).fetchone()
    row = one.table[(one.table["method"] == "layercam@stage:4") & (one.table["metric"] == "kappa under noise")]
    assert kappa is not None and row["mean"].item() == pytest.approx(kappa[0])
    assert {"arms.csv", "refinement.csv"} <= set(findings.tables)
    assert set(findings.tables["refinement.csv"]["size"]) >= {"all", "smallest third", "largest third"}
    (section,) = [section for section in findings.sections if section.id == "refinement"]
    assert section.answers[0].sentence == one.verdict.sentence
    assert [block.caption for block in section.blocks if block.kind == "sheet"] == [
        "Mean ± standard deviation over images",
        "Maps refined from the shallowest stage; all stages and operators are in refinement.csv",
        "ARCC by operator",
    ]


def test_the_page_names_every_layer_that_is_explained(folder):
    facts = dict(context(Findings(open_source(folder)))["facts"])
    assert facts["Layers explained"].startswith("stage1, stage2, stage3, stage4") and "Layer explained" not in facts


def test_what_cannot_be_refined_is_refused(tmp_path):
    with pytest.raises(InvalidStudy, match="Got 'input-x-gradient' among the methods"):
        run(plan(methods=["input-x-gradient"]), tmp_path / "a", workers=1)
    with pytest.raises(InvalidStudy, match="Got 'gradcam@stage2'"):
        run(plan(methods=["gradcam@stage2"]), tmp_path / "b", workers=1)
    with pytest.raises(InvalidStudy, match=r"among product, geometric, inverse-exp\. Got mean"):
        plan(operators=["mean"])
