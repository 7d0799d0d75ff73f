"""The study's tables as files for spreadsheets and notebooks; equal rows give equal bytes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from heatproof.files import write_atomically
from heatproof.report.findings import Findings, Setting, findings_of
from heatproof.report.frames import pairs
from heatproof.report.source import Source, open_source
from heatproof.statistics.paired import Comparison

__all__ = ["file_tables", "pairs", "statistics_table", "write_tables"]

#: Columns of tables/statistics.csv. `test` is friedman (statistic, p, w), average-rank (first; rank, and Nemenyi's
#: critical distance), wilcoxon (first against second; p_holm, effect > 0 where first is better) or
#: kendall-segmenters (w of the method rankings over segmenters, of one perturbation and severity).
STATISTICS = (
    *("model", "dataset", "layer", "segmenter", "quantity", "test", "perturbation", "severity", "first", "second"),
    *("n", "dropped", "statistic", "p", "p_holm", "effect", "w", "rank", "distance"),
)
#: What stands for every model, dataset and layer together.
TOGETHER = "(all)"


def write_tables(folder: str | os.PathLike) -> Findings:
    """Writes `tables/` of a study folder and returns what was found, to be drawn without working it out again.

    robustness.csv (a row per cell and severity, and one for all severities together), pairs.parquet (a row per
    image × method × perturbation × severity), statistics.csv (STATISTICS), and truth.csv where pictures have masks.

    Raises:
        StoreError: the folder is no study, has no rows yet, or cannot be written.
    """
    return write_all(open_source(folder))


def write_all(source: Source) -> Findings:
    """The same, of a study that is open."""
    findings = findings_of(source)
    file_tables(source.folder / "tables", findings)
    return findings


def file_tables(folder: Path, findings: Findings) -> None:
    """Writes the tables of `findings`, each whole or not at all."""
    write_csv(folder / "robustness.csv", findings.robustness)
    write_csv(folder / "statistics.csv", statistics_table(findings))
    if len(findings.truth):
        write_csv(folder / "truth.csv", findings.truth)
    table = pa.Table.from_pandas(findings.pairs, preserve_index=False)
    write_atomically(folder / "pairs.parquet", lambda file: pq.write_table(table, file, compression="zstd"))


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """The frame as text, whole or not at all."""
    text = frame.to_csv(index=False, lineterminator="\n")
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))


def statistics_table(findings: Findings) -> pd.DataFrame:
    """Every test of the study in long form, columns STATISTICS."""
    rows = [
        {**setting._asdict(), "quantity": quantity, **row}
        for setting in findings.settings
        for quantity, comparison in findings.comparisons[setting].items()
        for row in _tests(comparison)
    ]
    together = Setting(TOGETHER, TOGETHER, TOGETHER, findings.settings[0].segmenter)._asdict()
    for quantity, comparison in findings.overall.items():
        rows += [{**together, "quantity": quantity, **row} for row in _tests(comparison)]
    for row in findings.agreement.to_dict("records"):
        kept = {name: row[name] for name in ("model", "dataset", "layer", "perturbation", "severity", "w", "p")}
        rows.append({**kept, "quantity": "rm", "test": "kendall-segmenters", "n": row["segmenters"]})
    return pd.DataFrame(rows, columns=list(STATISTICS)).astype({"n": "Int64", "dropped": "Int64"})


def _tests(comparison: Comparison) -> Iterator[dict[str, Any]]:
    test = comparison.friedman
    counts = {"n": test.n, "dropped": test.dropped}
    yield {"test": "friedman", "statistic": test.statistic, "p": test.p, "w": test.w, **counts}
    for method, rank in comparison.ranks.items():
        yield {"test": "average-rank", "first": method, "rank": rank, "distance": comparison.distance, **counts}
    for pair in comparison.pairs:
        found = {name: getattr(pair, name) for name in ("first", "second", "n", "statistic", "p", "p_holm", "effect")}
        yield {"test": "wilcoxon", "dropped": test.dropped, **found}
