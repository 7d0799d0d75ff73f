"""The tables of a score study as files; equal rows give equal bytes."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from heatproof.files import write_atomically
from heatproof.report.scores.findings import Findings, findings_of
from heatproof.report.source import Source
from heatproof.report.tables import write_csv
from heatproof.statistics.paired import is_worse
from heatproof.statistics.scores import Judged

#: Columns of tables/fooled.csv: a row per metric. `top` and `fooled_by` are names with a semicolon between.
FOOLED = ("model", "dataset", "metric", "family", "better", "n", "best", "top", "fooled", "fooled_by", "tested")
#: Columns of tables/statistics.csv: Wilcoxon's test of the best real method against every other, by metric.
STATISTICS = (
    *("model", "dataset", "metric", "first", "second", "control", "n", "ties"),
    *("statistic", "p", "p_holm", "effect", "worse"),
)


def write_tables(source: Source) -> Findings:
    """Writes `tables/`: scores.csv, pictures.parquet, fooled.csv, statistics.csv, and curves.csv and agreement.csv."""
    findings = findings_of(source)
    folder = source.folder / "tables"
    write_csv(folder / "scores.csv", findings.table)
    write_csv(folder / "fooled.csv", pd.DataFrame(list(_fooled(findings)), columns=list(FOOLED)))
    write_csv(folder / "statistics.csv", pd.DataFrame(list(_tests(findings)), columns=list(STATISTICS)))
    if len(findings.curves):
        write_csv(folder / "curves.csv", findings.curves)
    agreement = list(_agreement(findings))
    if agreement:
        write_csv(folder / "agreement.csv", pd.DataFrame(agreement))
    table = pa.Table.from_pandas(findings.scores, preserve_index=False)
    write_atomically(folder / "pictures.parquet", lambda file: pq.write_table(table, file, compression="zstd"))
    return findings


def _judgements(findings: Findings) -> Iterator[Judged]:
    for one in findings.told:
        yield from one.judged.values()


def _fooled(findings: Findings) -> Iterator[Mapping[str, Any]]:
    for one in _judgements(findings):
        where = {"model": one.model, "dataset": one.dataset, "metric": one.metric, "n": one.n, "best": one.best}
        where |= {"family": findings.family(one.metric), "better": one.better, "top": "; ".join(one.top)}
        yield where | {"fooled": bool(one.fooled), "fooled_by": "; ".join(one.fooled), "tested": one.exposed}


def _tests(findings: Findings) -> Iterator[Mapping[str, Any]]:
    for one in _judgements(findings):
        for name, test in one.tests.items():
            line = {"model": one.model, "dataset": one.dataset, "metric": one.metric, "control": name in one.controls}
            line |= {field: getattr(test, field) for field in ("first", "second", "n", "ties", "statistic", "p")}
            yield line | {"p_holm": test.p_holm, "effect": test.effect, "worse": is_worse(test, one.level)}


def _agreement(findings: Findings) -> Iterator[Mapping[str, Any]]:
    for one in findings.told:
        for metric, row in one.agreement.iterrows():
            yield {**one.setting._asdict(), "metric": metric, **row}
