"""The answers pass, fail and cannot be told, compared with SciPy's one-sided tests and statsmodels' Holm."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from heatproof.statistics.audit import audit_findings
from heatproof.statistics.audit_answers import FAIL, OPEN, PASS, QUESTIONS, at_least
from heatproof.statistics.intervals import Interval

FACTS = {"road": "high", "insertion": "high", "deletion-mean": "low", "mprt": "low", "random-logit": "low",
         "energy": "high", "mask-cosine": "high"}  # fmt: skip
CONTROLS = ("random", "edges")


def rows(means: dict[str, dict[str, float]], images: int = 40, spread: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """metric → method → mean, with the image's own difficulty in every value."""
    rng = np.random.default_rng(seed)
    lines = []
    for metric, methods in means.items():
        hard = rng.normal(0, 0.2, images)
        for method, mean in methods.items():
            values = mean + hard + rng.normal(0, spread, images)
            for image, value in enumerate(values):
                lines.append((f"{image:03d}", method, metric, value, method in CONTROLS, ""))
    return pd.DataFrame(lines, columns=["image", "method", "metric", "value", "control", "flag"])


def of(frame, verdict=None, ranks=None, **given):
    return audit_findings(frame, FACTS, verdict, ranks or {}, model="m", dataset="d", layer="layer4", **given)


def faithful(**methods: float) -> dict[str, dict[str, float]]:
    """Means of the three metrics; the controls are at .2 (and .8 where lower is better)."""
    controls = dict.fromkeys(CONTROLS, 0.2)
    return {
        "road": {**methods, **controls},
        "insertion": {**methods, **controls},
        "deletion-mean": {name: 1 - value for name, value in {**methods, **controls}.items()},
    }


def test_the_p_is_the_largest_one_sided_p_with_holm_over_the_methods():
    frame = rows(faithful(good=0.3, fair=0.24, bad=0.19), images=30)
    found = of(frame)
    for metric, sign in (("road", 1), ("insertion", 1), ("deletion-mean", -1)):
        wide = frame[frame["metric"] == metric].pivot(index="image", columns="method", values="value")
        raw = [
            max(wilcoxon(sign * (wide[method] - wide[control]), alternative="greater").pvalue for control in CONTROLS)
            for method in ("good", "fair", "bad")
        ]
        corrected = multipletests(raw, method="holm")[1]
        for method, expected in zip(("good", "fair", "bad"), corrected, strict=True):
            (evidence,) = [e for e in found.findings[method]["faithful"].evidence if e.what == metric]
            if expected < 0.5:  # above, the tails of a discrete distribution overlap
                assert evidence.p == pytest.approx(expected, rel=1e-6)
            assert (evidence.answer == PASS) == (expected < 0.05)


def test_pass_fail_and_cannot_be_told():
    found = of(rows(faithful(good=0.5, even=0.21, bad=0.1)))
    answers = {method: given["faithful"].answer for method, given in found.findings.items()}
    assert answers == {"good": PASS, "even": OPEN, "bad": FAIL}
    assert found.recommended == "good" and found.fit == ("good",)
    assert found.sentence == (
        "Show good at layer4. On 40 images it was faithful (better than every control by road, insertion and "
        "deletion-mean)."
    )
    assert any("Not fit to be shown on this evidence: even and bad" in note for note in found.notes)


def test_metrics_that_disagree_leave_it_open_and_one_that_tells_nothing_does_not():
    means = faithful(mixed=0.5)
    means["insertion"]["mixed"] = 0.1
    (finding,) = [given["faithful"] for given in of(rows(means)).findings.values()]
    assert finding.answer == OPEN
    assert [line[0] for line in finding.why] == ["✓", "✗", "✓"]
    means["insertion"]["mixed"] = 0.23
    (finding,) = [given["faithful"] for given in of(rows(means)).findings.values()]
    assert (finding.answer, [one.answer for one in finding.evidence]) == (PASS, [PASS, OPEN, PASS])
    means["road"]["mixed"] = 0.2  # significant by one of three metrics
    (finding,) = [given["faithful"] for given in of(rows(means)).findings.values()]
    assert finding.answer == OPEN


def test_the_p_of_at_least_so_many():
    """Benjamini & Heller 2008, Bonferroni's form: valid under the null that fewer hold."""
    assert at_least(2, [0.01, 0.2, 0.03]) == pytest.approx(2 * 0.03)
    assert at_least(1, [0.04]) == 0.04 and at_least(2, [0.04, 0.01]) == 0.04
    assert np.isnan(at_least(2, [0.01, np.nan, np.nan]))
    rng = np.random.default_rng(0)
    null = [at_least(2, [1e-9, *rng.uniform(size=2)]) for _ in range(4000)]  # one of three holds
    assert np.mean(np.array(null) < 0.05) < 0.06


def test_one_control_that_is_not_beaten_is_enough_to_leave_it_open_or_to_fail():
    means = faithful(good=0.5)
    means["road"]["edges"] = 0.6
    assert of(rows(means)).findings["good"]["faithful"].evidence[0].answer == FAIL
    assert of(rows(means)).findings["good"]["faithful"].evidence[0].against == "edges"


def test_the_bar_fails_only_what_is_significantly_above_it():
    means = {metric: {"low": 0.2, "near": 0.5, "high": 0.8, "random": 0.0, "edges": 1.0}
             for metric in ("mprt", "random-logit")}  # fmt: skip
    found = of(rows(means, spread=0.3))
    for name in ("depends on the weights", "depends on the class"):
        assert [found.findings[m][name].answer for m in ("low", "near", "high")] == [PASS, OPEN, FAIL]
    assert found.recommended is None  # there is no metric of `faithful`
    assert found.sentence.startswith("No heatmap can be recommended on 40 images. Nearest is low: it depended on the")


def test_too_few_images_tell_nothing():
    found = of(rows(faithful(good=0.9), images=4, spread=0.01))
    finding = found.findings["good"]["faithful"]
    assert finding.answer == OPEN and "a value on 4 of 4 images is too few" in finding.why[0]
    assert any("Only 4 images" in note for note in found.notes)


def test_values_on_some_of_the_images_tell_nothing():
    frame = rows(faithful(good=0.9, other=0.5))
    frame.loc[(frame["method"] == "good") & (frame["image"] > "020"), "value"] = np.nan
    found = of(frame)
    assert found.findings["good"]["faithful"].answer == OPEN
    assert "a value on 21 of 40 images is too few" in found.findings["good"]["faithful"].why[0]


def test_a_pass_needs_the_better_mean_too():
    """Few large losses and many small gains: ranks alone would praise it."""
    frame = rows(faithful(good=0.25), spread=0.01)
    losses = (frame["method"] == "good") & (frame["image"] < "006")
    frame.loc[losses, "value"] += np.where(frame.loc[losses, "metric"] == "deletion-mean", 3.0, -3.0)
    assert of(frame).findings["good"]["faithful"].answer != PASS


def noise(consistency, within, beats, behind, images=40):
    """What the audit reads of a verdict."""
    support = {"consistency": dict.fromkeys(consistency, images), "within": dict.fromkeys(within, images)}
    return SimpleNamespace(beside={"consistency": consistency, "within": within}, beats=beats, behind=behind,
                           support=support, controls=CONTROLS, images=40, fooled={}, by=None)  # fmt: skip


def figures(**values: float) -> dict[str, Interval]:
    return {name: Interval(value, value - 0.1, value + 0.1, 100, 0.95, 0) for name, value in values.items()}


def test_stable_and_responding_come_from_the_noise_study():
    steady = figures(good=0.7, bad=0.05, even=0.1, random=0.1, edges=1.0)
    following = figures(good=0.9, bad=0.7, even=0.8, random=0.5, edges=0.8)
    beats = {"consistency": {"good": ("random",), "bad": (), "even": ()},
             "within": {"good": ("random", "edges"), "bad": (), "even": ("random",)}}  # fmt: skip
    behind = {"consistency": {"bad": ("random", "edges")}, "within": {"bad": ("edges",)}}
    verdict = noise(steady, following, beats, behind)
    found = of(rows(faithful(good=0.5, bad=0.5, even=0.5)), verdict)
    assert [found.findings["good"][name].answer for name in ("stable", "responds")] == [PASS, PASS]
    # `stable` compares with `random` alone, as `edges` is steady by construction; `responds` with every control
    assert [found.findings["bad"][name].answer for name in ("stable", "responds")] == [FAIL, FAIL]
    assert found.findings["bad"]["responds"].evidence[0].against == "edges"
    assert [found.findings["even"][name].answer for name in ("stable", "responds")] == [
        OPEN,
        OPEN,
    ]  # neither is significant
    assert found.recommended == "good" and "bad" not in found.fit
    verdict.support["consistency"]["good"] = 1  # the prediction held on one image of 40
    finding = of(rows(faithful(good=0.5, bad=0.5)), verdict).findings["good"]["stable"]
    assert finding.answer == OPEN and finding.why == ("the prediction held on 1 image, which is too few",)
    verdict.beside["within"] = figures(good=np.nan, bad=np.nan)
    found = of(rows(faithful(good=0.5, bad=0.5)), verdict)
    assert found.findings["good"]["responds"].answer == OPEN
    assert any(
        "of good (responds) might be settled by more images or stronger noise; no number" in n for n in found.notes
    )
    assert "responds" not in of(rows(faithful(good=0.5)), verdict, fixed=True).findings["good"]


def test_a_change_of_a_map_that_is_not_stable_proves_nothing():
    means = {"mprt": {"noisy": 0.0, "random": 0.0, "edges": 1.0}}
    verdict = noise(figures(noisy=0.1, random=0.1), {}, {"consistency": {"noisy": ()}, "within": {}}, {})
    assert of(rows(means)).findings["noisy"]["depends on the weights"].answer == PASS
    finding = of(rows(means), verdict).findings["noisy"]["depends on the weights"]
    assert finding.answer == OPEN and "not shown to be stable" in finding.why[-1]
    assert not finding.needs  # more images would not help


def test_a_fail_is_a_test_too():
    """A mean that is a little behind a control's is no fail; a control that is significantly better is one."""
    found = of(rows(faithful(behind=0.19, bad=0.05), images=20, spread=0.1))
    assert [found.findings[m]["faithful"].answer for m in ("behind", "bad")] == [OPEN, FAIL]
    (road,) = [one for one in found.findings["bad"]["faithful"].evidence if one.what == "road"]
    frame = rows(faithful(behind=0.19, bad=0.05), images=20, spread=0.1)
    wide = frame[frame["metric"] == "road"].pivot(index="image", columns="method", values="value")
    raw = [
        min(1, 2 * min(wilcoxon(wide[control] - wide[method], alternative="greater").pvalue for control in CONTROLS))
        for method in ("behind", "bad")
    ]
    assert road.p == pytest.approx(multipletests(raw, method="holm")[1][1], rel=1e-6)


def test_what_would_settle_an_open_answer_is_said_only_where_it_would():
    means = faithful(even=0.21)
    note = "What cannot be told of even (faithful) might be settled by {}."
    assert any(one.startswith(note.format("more images")[:-1]) for one in of(rows(means)).notes)
    alone = {metric: {"even": values["even"]} for metric, values in means.items()}
    assert note.format("a run with controls") in of(rows(alone)).notes
    frame = rows(means)
    frame.loc[(frame["method"] == "even") & (frame["image"] > "020"), "value"] = np.nan
    assert not any("might be settled" in note for note in of(frame).notes)


def test_nothing_is_asked_of_a_method_that_does_not_serve_the_model():
    frame = rows(faithful(good=0.5, chefer=0.5))
    frame.loc[frame["method"] == "chefer", "value"] = np.nan
    found = of(frame, refused={"chefer": "it has no attention"})
    assert (
        list(found.findings) == ["good"]
        and "chefer is not applicable to this model: it has no attention." in found.notes
    )


def test_a_map_that_cannot_be_made_again_is_not_recommended():
    """A perfect mask from elsewhere passes `faithful`; whether it depends on the model cannot even be asked."""
    frame = rows(faithful(stored=0.9, own=0.5) | {"mprt": {"stored": 0.1, "own": 0.1, "random": 0.0, "edges": 1.0}})
    lost = (frame["method"] == "stored") & (frame["metric"] == "mprt")
    frame.loc[lost, ["value", "flag"]] = [np.nan, "its maps cannot be made again"]
    found = of(frame)
    assert found.recommended == "own" and "stored" not in found.fit
    finding = found.findings["stored"]["depends on the weights"]
    assert finding.answer == OPEN and finding.why == ("mprt: no value (its maps cannot be made again)",)
    assert not finding.needs


def test_eight_methods_can_pass_on_eight_images():
    """The tests are one-sided: 8 × 2⁻⁸ is .031."""
    found = of(rows({"mprt": {f"m{i}": 0.1 for i in range(8)}}, images=8, spread=0.01))
    assert {given["depends on the weights"].answer for given in found.findings.values()} == {PASS}


def test_between_equal_answers_the_average_rank_decides_and_what_is_beside_the_point_does_not_disqualify():
    means = faithful(a=0.5, b=0.5) | {"energy": {"a": 0.1, "b": 0.1, "random": 0.3, "edges": 0.3}}
    found = of(rows(means), ranks={"a": 2.0, "b": 1.0})
    assert found.findings["a"]["points at the object"].answer == FAIL
    assert found.recommended == "b" and found.fit == ("b", "a")
    assert any("Also fit to be shown: a." in note for note in found.notes)


def test_every_question_says_what_a_pass_is():
    assert len({question.name for question in QUESTIONS}) == len(QUESTIONS) == 6
    assert all(question.rule and question.asks.endswith("?") for question in QUESTIONS)


def test_rows_in_another_order_and_last_bits_change_nothing():
    frame = rows(faithful(good=0.5, even=0.21, bad=0.1))
    moved = frame.sample(frac=1, random_state=1)
    moved["value"] *= 1 + 1e-12
    for one, other in zip(of(frame).findings.values(), of(moved).findings.values(), strict=True):
        assert [f.answer for f in one.values()] == [f.answer for f in other.values()]
