"""The tables of a study: each a function from findings to a data frame, None where there is nothing to put in it.

A study names its tables (`Study.tables`); equal rows give equal bytes.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from heatproof.class_names import name_of
from heatproof.errors import StoreError
from heatproof.files import without_formulas, write_atomically
from heatproof.report.findings import Findings
from heatproof.report.frames import Frame
from heatproof.report.noise_checks import NoiseChecks, boundary_table, network_table
from heatproof.report.part_findings import PartFindings
from heatproof.report.robustness_findings import RobustnessFindings, RobustnessSetting
from heatproof.report.score_findings import ScoreFindings
from heatproof.report.stored_table import StoredTable, Tables
from heatproof.statistics.audit_images import COLUMNS
from heatproof.statistics.paired import Comparison, PairTest, differs, is_worse
from heatproof.statistics.part_scores import image_part_scores
from heatproof.statistics.reference_tests import ALL_SCORES, ReferenceTests

#: Columns of the tests of a noise study. `test` is friedman (statistic, p, w), average-rank (first; rank, and Nemenyi's
#: critical distance), wilcoxon (first against second; p_holm, effect > 0 where first is better, and whether the two can
#: be told `apart`), kendall-segmenters (w of the method rankings over segmenters, of one perturbation and severity), or
#: reference (the plan's reference as first against every other method, Holm's correction over these).
#: Of methods with equal maps the first is here.
ROBUSTNESS_TESTS = (
    *("model", "dataset", "layer", "segmenter", "quantity", "test", "perturbation", "severity", "first", "second"),
    *("n", "dropped", "statistic", "p", "p_holm", "effect", "apart", "w", "rank", "distance"),
)
#: The value of the columns model, dataset and layer for tests over all of them.
TOGETHER = "(all)"
#: Columns of tables/fooled.csv: a row per metric. `top` and `fooled_by` are names with a semicolon between.
FOOLED = ("model", "dataset", "metric", "family", "better", "n", "best", "top", "fooled", "fooled_by", "tested")
#: Columns of the tests of a score study. `test` is friedman (statistic, p, w), average-rank (first; rank), wilcoxon
#: (first against second, Holm's correction over all pairs of real methods, or over the controls; `worse`: whether the
#: second is significantly worse, `apart`: whether either is), or reference (the plan's reference against every other
#: method, Holm's correction over these). `metric` is a metric, or the mean rank over the scores, which
#: decides the verdict.
SCORE_TESTS = (
    *("model", "dataset", "metric", "test", "first", "second", "control", "n", "dropped", "ties"),
    *("statistic", "p", "p_holm", "effect", "worse", "apart", "w", "rank"),
)

#: Columns of tables/audit.csv: the answer to a question, and the test of each metric behind it. `p` is corrected by
#: Holm; for a fail it is that of a control being better. `p_together` is that of all metrics of the question.
AUDIT = (
    *("model", "dataset", "layer", "method", "recommended", "question", "answer", "metric", "metric_answer"),
    *("value", "against", "other", "p", "n", "why", "p_together"),
)


def file_tables(folder: Path, tables: Mapping[str, Frame]) -> None:
    """Writes tables, each atomically."""
    for name in tables:
        table = tables.made(name) if isinstance(tables, Tables) else tables[name]
        if isinstance(table, StoredTable):
            write_atomically(folder / name, table.copy)
            continue
        content = _parquet(table) if name.endswith(".parquet") else _csv(table)
        write_atomically(folder / name, lambda file, content=content: file.write(content))


def _csv(frame: Frame) -> bytes:
    return without_formulas(frame).to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogateescape")


def _parquet(frame: Frame) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), buffer, compression="zstd")
    return buffer.getvalue()


def _there(findings: Findings, part: Any, kind: str) -> Any:
    """A part of the findings; StoreError where there are no rows for it."""
    if part is None:
        raise StoreError(f"Expected {kind} in {str(findings.source.folder)!r}. Got rows of other kinds only.")
    return part


# --- noise ---


def _robustness(findings: Findings) -> RobustnessFindings:
    return _there(findings, findings.robustness, "pairs of maps")


def robustness(findings: Findings) -> Frame:
    """A row per cell and severity, and one for all severities together (`statistics.robustness_table`)."""
    return _robustness(findings).table


def pairs(findings: Findings) -> StoredTable:
    """A row per image × method × perturbation × severity (`frames.pairs`), with the names of the two classes."""
    found = _robustness(findings).stored
    names = [(model, number, name_of(names, number)) for model in sorted(set(found.cells["model"]))
             for names in [findings.class_names(model)] for number in range(len(names))]  # fmt: skip
    frame = pd.DataFrame(names, columns=["model", "class", "name"]).astype({"class": "int32"})
    return StoredTable(lambda path: found.write(path, frame))


def mask_cosine(findings: Findings) -> Frame | None:
    """Median cosine of the reference maps with the masks; None without masks."""
    found = _robustness(findings).mask_cosine
    return found if len(found) else None


def _noise_checks(findings: Findings) -> NoiseChecks:
    return _there(findings, findings.noise_checks, "pairs of maps")


def boundaries(findings: Findings) -> Frame | None:
    """What moved borders of segments change (`robustness_changes.changes`); None without such segmenters."""
    return boundary_table(_noise_checks(findings).boundaries)


def networks(findings: Findings) -> Frame | None:
    """How the figures differ between networks on the same images; None with one network."""
    return network_table(_noise_checks(findings).networks)


def rare_flips(findings: Findings) -> Frame | None:
    """The widths of intervals at few changed predictions (`statistics.rare_flips`); None where none can be drawn."""
    found = _noise_checks(findings).rare_flips
    return found if len(found) else None


def similarity(findings: Findings) -> Frame:
    """Median of every measure of a pair of maps, by method and condition (`statistics.similarity`)."""
    return _noise_checks(findings).medians


def similarity_steps(findings: Findings) -> Frame | None:
    """The change of L1 and RBO from each severity to the next (`statistics.similarity`); None with one severity."""
    found = _noise_checks(findings).steps
    return found if len(found) else None


def robustness_tests(findings: Findings) -> Frame:
    """Every test in long form, columns ROBUSTNESS_TESTS."""
    found = _robustness(findings)
    rows = [
        {**setting._asdict(), "quantity": quantity, **row}
        for setting in found.settings
        for quantity, comparison in found.comparisons[setting].items()
        for row in _tests(comparison)
    ]
    rows += [
        {**setting._asdict(), "quantity": quantity, **row}
        for setting, verdict in found.verdicts.items()
        for quantity, one in verdict.references.items()
        for row in _reference_lines(one)
    ]
    together = RobustnessSetting(TOGETHER, TOGETHER, TOGETHER, found.settings[0].segmenter)._asdict()
    for quantity, comparison in found.overall.items():
        rows += [{**together, "quantity": quantity, **row} for row in _tests(comparison)]
    for row in found.agreement.to_dict("records"):
        kept = {name: row[name] for name in ("model", "dataset", "layer", "perturbation", "severity", "w", "p")}
        rows.append({**kept, "quantity": "rm", "test": "kendall-segmenters", "n": row["segmenters"]})
    return pd.DataFrame(rows, columns=list(ROBUSTNESS_TESTS)).astype(
        {"n": "Int64", "dropped": "Int64", "apart": "boolean"}
    )


def _tests(comparison: Comparison) -> Iterator[dict[str, Any]]:
    test = comparison.friedman
    counts = {"n": test.n, "dropped": test.dropped}
    yield {"test": "friedman", "statistic": test.statistic, "p": test.p, "w": test.w, **counts}
    for method, rank in comparison.ranks.items():
        yield {"test": "average-rank", "first": method, "rank": rank, "distance": comparison.distance, **counts}
    for pair in comparison.pairs:
        found = {name: getattr(pair, name) for name in ("first", "second", "n", "statistic", "p", "p_holm", "effect")}
        apart = frozenset((pair.first, pair.second)) in comparison.apart
        yield {"test": "wilcoxon", "dropped": test.dropped, "apart": apart, **found}


def audit(findings: Findings) -> Frame:
    """The answers for every method, columns AUDIT: a row for each question and metric or quantity."""
    lines = []
    for one in findings.audits:
        for method, given in one.findings.items():
            for name, finding in given.items():
                line: dict[str, Any] = {
                    "model": one.model,
                    "dataset": one.dataset,
                    "layer": one.layer,
                    "method": method,
                }
                line |= {"recommended": method == one.recommended, "question": name, "answer": finding.answer}
                line["p_together"] = finding.p
                for evidence in finding.evidence:
                    figures = {"metric": evidence.what, "metric_answer": evidence.answer, "why": evidence.text}
                    figures |= {field: getattr(evidence, field) for field in ("value", "against", "other", "p", "n")}
                    lines.append(line | figures)
                if not finding.evidence:
                    lines.append(line | {"why": "; ".join(finding.why)})
    return pd.DataFrame(lines, columns=list(AUDIT)).astype({"n": "Int64"})


def verdicts(findings: Findings) -> Frame:
    """One row for each method of an audit: the answer to every question, the controls beaten, the verdict."""
    lines = []
    for one in findings.audits:
        for method, given in one.findings.items():
            beaten, of = one.beaten(method)
            line = {"model": one.model, "dataset": one.dataset, "layer": one.layer, "method": method}
            line |= {name: finding.answer for name, finding in given.items()}
            lines.append(line | {"beats_controls_by": beaten, "of_scores": of, "verdict": one.verdict(method)})
    columns = list(dict.fromkeys(name for line in lines for name in line))
    last = ("beats_controls_by", "of_scores", "verdict")
    return pd.DataFrame(lines, columns=[*(name for name in columns if name not in last), *last])


def per_image(findings: Findings) -> Frame:
    """A row for each image and method of an audit: show, show with a warning, do not show, and why."""
    parts = [images.table.assign(model=one.model, dataset=one.dataset) for one, images in findings.audited]
    return pd.concat(parts, ignore_index=True)[["model", "dataset", *COLUMNS]]


# --- scores ---


def _scores(findings: Findings) -> ScoreFindings:
    return _there(findings, findings.scores, "scores of maps")


def scores(findings: Findings) -> Frame:
    """Mean of every metric for every model and method (`statistics.score_table`)."""
    return _scores(findings).table


def classes(findings: Findings) -> Frame | None:
    """Mean of every metric and method by the class explained; None where that is one class."""
    found = findings.class_scores
    return None if found.empty else found


def scores_by_image(findings: Findings) -> Frame:
    """A row per image, method and metric (`frames.scores`)."""
    return _scores(findings).scores


def curves(findings: Findings) -> Frame | None:
    """Mean of every curve at every share; None without curves."""
    found = _scores(findings).curves
    return found if len(found) else None


def agreement(findings: Findings) -> Frame | None:
    """Rank correlation of every two metrics in each setting; None without any."""
    rows = [
        {**one.setting._asdict(), "metric": metric, **row}
        for one in _scores(findings).settings
        for metric, row in one.agreement.iterrows()
    ]
    return pd.DataFrame(rows) if rows else None


def fooled(findings: Findings) -> Frame:
    """The controls that fool each metric, columns FOOLED."""
    found = _scores(findings)
    lines = []
    for one, equal in ((judged, each.equal) for each in found.settings for judged in each.rankings.values()):
        line = {"model": one.model, "dataset": one.dataset, "metric": one.metric, "n": one.n, "best": one.best}
        top, controls = ("; ".join(equal.named(names)) for names in (one.top, one.fooled))
        line |= {"family": found.family(one.metric), "better": one.better, "top": top}
        lines.append(line | {"fooled": bool(one.fooled), "fooled_by": controls, "tested": one.exposed})
    return pd.DataFrame(lines, columns=list(FOOLED))


def score_tests(findings: Findings) -> Frame:
    """All pairs of methods, the best against the controls, and the reference, by metric, columns SCORE_TESTS."""
    lines = []
    for setting in _scores(findings).settings:
        here = setting.setting._asdict()
        verdict = setting.verdict
        if verdict is not None and verdict.comparison is not None:
            every = _ranked_tests(verdict.comparison, verdict.level)
            lines += [{**here, "metric": ALL_SCORES, **line} for line in every]
        for one in setting.rankings.values():
            every = [] if one.comparison is None else list(_ranked_tests(one.comparison, one.level))
            every += [{**_pair_line(test, one.level), "control": True}
                      for name, test in one.tests.items() if name in one.controls]  # fmt: skip
            lines += [{**here, "metric": one.metric, **line} for line in every]
        for quantity, found in setting.reference.items():
            lines += [{**here, "metric": quantity, **line} for line in _reference_lines(found)]
    types = {"n": "Int64", "dropped": "Int64", "ties": "Int64", "worse": "boolean", "apart": "boolean"}
    return pd.DataFrame(lines, columns=list(SCORE_TESTS)).astype(types)


def _ranked_tests(comparison: Comparison, level: float) -> Iterator[dict[str, Any]]:
    """Friedman's test, average ranks, and all pairs, the method with the better mean first."""
    test, order = comparison.friedman, {name: place for place, name in enumerate(comparison.order)}
    counts = {"n": test.n, "dropped": test.dropped, "control": False}
    yield {"test": "friedman", "statistic": test.statistic, "p": test.p, "w": test.w, **counts}
    for method, rank in comparison.ranks.items():
        yield {"test": "average-rank", "first": method, "rank": rank, **counts}
    last = len(order)
    for pair in comparison.pairs:
        turned = order.get(pair.second, last) < order.get(pair.first, last)
        yield {**_pair_line(pair.turned if turned else pair, level), "control": False}


def _pair_line(test: PairTest, level: float) -> dict[str, Any]:
    names = ("first", "second", "n", "ties", "statistic", "p", "p_holm", "effect")
    line = {"test": "wilcoxon", **{name: getattr(test, name) for name in names}}
    return line | {"worse": is_worse(test, level), "apart": differs(test, level)}


def _reference_lines(found: ReferenceTests) -> Iterator[dict[str, Any]]:
    """The reference against every other method; `apart` and `worse` as they were decided."""
    names = ("first", "second", "n", "ties", "statistic", "p", "p_holm", "effect")
    for other, test in found.tests.items():
        line = {"test": "reference", "control": False, **{name: getattr(test, name) for name in names}}
        yield line | {"worse": other in found.better, "apart": other not in found.open}


# --- metrics against the ground truth ---


def validity(findings: Findings) -> Frame | None:
    """Correlation of every metric with the ground truth (`statistics.validity`); None without ground truth."""
    found = findings.validity
    if found is None:
        return None
    facts = [{**one.setting._asdict(), "accuracy": one.accuracy} for one in found.settings]
    return _joined([one.validity.table.assign(**fact) for one, fact in zip(found.settings, facts, strict=True)])


def validity_over_models(findings: Findings) -> Frame | None:
    """Mean and standard deviation of each correlation over the networks; None with fewer than two."""
    found = findings.validity
    return None if found is None or not len(found.models) else found.models


def fooled_matrix(findings: Findings) -> Frame | None:
    """Every metric and control: the two tests, and what they say (`statistics.fooled_matrix`)."""
    return _of_settings(findings, "cells")


def rescalings(findings: Findings) -> Frame | None:
    """Every metric of maps and of the same maps rescaled (`statistics.rescaled_maps`); None without rescaled maps."""
    return _of_settings(findings, "rescalings")


def _of_settings(findings: Findings, part: str) -> Frame | None:
    found = findings.validity
    lines = [{**one.setting._asdict(), **vars(each)} for one in (found.settings if found else ())
             for each in getattr(one, part)]  # fmt: skip
    return pd.DataFrame(lines) if lines else None


# --- refined maps ---


def refinement_arms(findings: Findings) -> Frame | None:
    """Mean of every number of every arm (`score_tables.score_table`), over images that are classified right."""
    return _joined([one.table.assign(dataset=one.setting.dataset) for one in findings.refinement])


def refinement_gains(findings: Findings) -> Frame | None:
    """What each refined map gains (`refinement.refinement_gains`)."""
    return _joined([one.gains.assign(**one.setting._asdict()) for one in findings.refinement])


def _joined(tables: list[Frame]) -> Frame | None:
    """The tables below each other, model and dataset first; None without any."""
    if not tables:
        return None
    table = pd.concat(tables, ignore_index=True)
    return table[["model", "dataset", *(name for name in table if name not in ("model", "dataset"))]]


# --- scores under several conditions ---


def _of_conditions(findings: Findings, name: str) -> Frame:
    """One table of every model and dataset, in one frame."""
    found = _there(findings, findings.conditions, "scores under several conditions")
    parts = []
    for one in found.settings:
        table = getattr(one, name)
        parts.append(table.assign(**one.setting._asdict())[[*one.setting._fields, *table.columns]])
    return pd.concat(parts, ignore_index=True)


def targets(findings: Findings) -> Frame:
    """Mean of every metric and method for each class explained (`statistics.condition_scores`)."""
    return _of_conditions(findings, "targets")


def transformations(findings: Findings) -> Frame | None:
    """Mean of every metric and method under each transformation, with tests; None without transformations."""
    found = _of_conditions(findings, "transformations")
    return found if len(found) else None


def confidence(findings: Findings) -> Frame:
    """Correlation of every metric with the confidence, by method (`statistics.confidence`)."""
    return _of_conditions(findings, "confidence")


def rankings(findings: Findings) -> Frame | None:
    """Tests of the order of the methods under and between conditions (`statistics.orders`); None for one method."""
    found = _of_conditions(findings, "rankings")
    return found if len(found) else None


def fooled_by_condition(findings: Findings) -> Frame:
    """The controls that fool each metric under each condition (`statistics.condition_scores`)."""
    return _of_conditions(findings, "fooled")


# --- parts ---


def _parts(findings: Findings) -> PartFindings:
    return _there(findings, findings.parts, "scores of parts")


def parts(findings: Findings) -> Frame:
    """Completeness, correctness, contrastivity and score of every method (`statistics.part_scores`)."""
    return _parts(findings).table


def part_thresholds(findings: Findings) -> Frame:
    """The threshold of every method, and the value of its objective on the validation set."""
    return _parts(findings).thresholds


def part_images(findings: Findings) -> Frame:
    """The part metrics of every test image and method, at the threshold of the method, and their sums."""
    found = _parts(findings).values
    return found.merge(image_part_scores(found), on=["model", "dataset", "image", "method", "control"])
