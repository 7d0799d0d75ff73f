"""`heatproof query` and `heatproof list`: tables for people, CSV or JSON for programs."""

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from heatproof.addresses import is_address
from heatproof.cli.options import Results
from heatproof.errors import InvalidInput


def query(
    folder: Results,
    sql: Annotated[str, typer.Argument(help="DuckDB SQL; the table is `rows`.")],
    format: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    allow_files: Annotated[
        bool,
        typer.Option("--allow-files", help="Let the SQL read and write files, attach databases and load extensions."),
    ] = False,
) -> None:
    """Ask a study's rows anything, in SQL."""
    import duckdb

    from heatproof.studies.store import Store, connect

    if format not in ("table", "csv", "json"):
        raise InvalidInput(f"--format must be table, csv or json. Got {format!r}.")
    try:
        connection = connect(folder)
        jobs, done = (Store(folder).plan() or {}).get("jobs"), len(Store(folder).done())
        if isinstance(jobs, int) and done < jobs:
            print(f"note: {jobs - done} of {jobs} jobs are missing: the rows are those of the others.", file=sys.stderr)
        if not allow_files:
            _close_to_files(connection, folder, sql)
        found = connection.execute(sql)
        columns = [column[0] for column in found.description or ()]
        if format == "csv":
            return _print_csv(columns, found)
        rows = found.fetchall()
    except duckdb.Error as error:
        hint = " --allow-files allows it." if isinstance(error, duckdb.PermissionException) else ""
        raise InvalidInput(f"The query cannot be run. {str(error).strip()}{hint}") from None
    if format == "json":
        found_rows = [{c: _plain(v) for c, v in zip(columns, row, strict=True)} for row in rows]
        print(json.dumps(found_rows, indent=1, ensure_ascii=False, default=str))
    else:
        print_table(columns, [[_cell(value) for value in row] for row in rows])


def _print_csv(columns: list[str], found: Any) -> None:
    """Prints an answer as CSV, some rows at a time: it may be all rows of a study."""
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    while rows := found.fetchmany(10_000):
        writer.writerows(rows)


def _close_to_files(connection: Any, folder: Any, sql: str) -> None:
    """From now on the connection reads the row files of the study and nothing else, whatever the SQL says.

    Raises:
        InvalidInput: a statement that writes files; the row files may be read, and so DuckDB would write over one.
    """
    import duckdb

    from heatproof.studies.store import shards

    kinds = duckdb.StatementType
    writes = {kinds.COPY, kinds.EXPORT, kinds.COPY_DATABASE, kinds.PREPARE, kinds.EXECUTE}
    for statement in duckdb.extract_statements(sql):
        hidden = statement.type == kinds.EXPLAIN and re.search(r"\bcopy\b", statement.query, re.IGNORECASE)
        if statement.type in writes or hidden:
            raise InvalidInput(
                "The query writes files. --allow-files allows it; --format csv prints the answer as CSV."
            )
    # DuckDB would list the folders above, to find what such a name matches; the rows of an address lie elsewhere.
    if is_address(folder) or set(str(folder.resolve())) & set("*?["):
        connection.execute("CREATE TABLE kept AS FROM rows; DROP VIEW rows; ALTER TABLE kept RENAME TO rows")
    near = [] if is_address(folder) else shards(folder)
    files = ", ".join("'" + str(path.resolve()).replace("'", "''") + "'" for path in near)
    connection.execute(f"SET allowed_paths = [{files}]")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def list_(
    what: Annotated[str, typer.Argument(help="methods, metrics, perturbations, segmenters, studies or models.")],
    as_json: Annotated[bool, typer.Option("--json", help="An array of objects.")] = False,
    like: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
) -> None:
    """List what there is by name."""
    lists: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "methods": _methods,
        "metrics": _metrics,
        "perturbations": _perturbations,
        "segmenters": _segmenters,
        "studies": _studies,
        "models": _models,
    }
    if what not in lists:
        from heatproof.registry import unknown

        raise unknown("list", what, lists)
    entries = [entry for entry in lists[what]() if not like or like.lower() in entry["name"].lower()]
    if as_json:
        print(json.dumps(entries, indent=1, ensure_ascii=False, default=str))
        return
    if what == "metrics":
        _print_metrics(entries, like or "")
        return
    columns = ["name", "summary", "options", "source"]
    print_table(columns, [[_cell(entry.get(column, "")) for column in columns] for entry in entries])


def _methods() -> list[dict[str, Any]]:
    from heatproof.attributions import ATTRIBUTIONS

    return [entry.described() for entry in ATTRIBUTIONS.values()]


def _metrics() -> list[dict[str, Any]]:
    from heatproof.metrics import FAMILIES, METRICS

    entries = [{**entry.described(), **_metric_facts(entry)} for entry in METRICS.values()]
    return sorted(entries, key=lambda entry: list(FAMILIES).index(entry["family"]))


def _metric_facts(entry: Any) -> dict[str, Any]:
    """Parts of a composite, and the value of a degenerate map: a number, `NaN`, or null where the formula decides.

    Also what the metric is of a network of values: `same`, `units`, or why it is refused.
    """
    degenerate = entry.traits["degenerate"]
    stated = "NaN" if degenerate is not None and math.isnan(degenerate) else degenerate
    return {
        "parts": dict(entry.traits.get("parts", {})),
        "degenerate": stated,
        "values": entry.traits.get("values", "same"),
    }


def _print_metrics(entries: Sequence[dict[str, Any]], like: str) -> None:
    """Prints metrics by family, with an arrow for the better direction, then the composites of pairs."""
    from heatproof.metrics import FAMILIES
    from heatproof.metrics.composites import PAIR_COMPOSITES

    columns = ["", "name", "range", "network passes", "summary", "options", "source"]
    cells = {
        entry["name"]: ["↑" if entry["better"] == "high" else "↓", entry["name"], interval(*entry["range"]),
                        entry["passes"], entry["summary"], _cell(entry["options"]), entry["source"]]
        for entry in entries
    }  # fmt: skip
    widths = [max(map(len, column)) for column in zip(columns, *cells.values(), strict=True)]
    for family, asks in FAMILIES.items():
        rows = [cells[entry["name"]] for entry in entries if entry["family"] == family]
        if rows:
            print(f"{family}: {asks}")
            print_table(columns, rows, widths)
            print()
    composites = {name: one for name, one in PAIR_COMPOSITES.items() if like.lower() in name}
    rows = [["↑", name, interval(*one.range), one.summary] for name, one in composites.items()]
    if rows:
        print("composites of pairs: one value for a method under a perturbation; see tables/robustness.csv of a study")
        print_table(["", "name", "range", "summary"], rows)
        print()
    print("↑ higher is better, ↓ lower is better. Also python:module:function, and quantus:NAME where it is installed.")


def interval(low: float | None, high: float | None) -> str:
    """`[0, 1]`, `[0, ∞)`."""
    start = "(−∞" if low is None else f"[{low:g}"
    return f"{start}, {'∞)' if high is None else f'{high:g}]'}"


def _perturbations() -> list[dict[str, Any]]:
    from heatproof.perturbations import PERTURBATIONS

    return [entry.described() for entry in PERTURBATIONS.values()]


def _segmenters() -> list[dict[str, Any]]:
    from heatproof.segments import SEGMENTERS

    return [entry.described() for entry in SEGMENTERS.values()]


def _studies() -> list[dict[str, Any]]:
    from heatproof.studies.study import all_studies

    return [
        {"name": one.name, "summary": one.summary, "needs": ["models", "datasets"], "options": _settings(one.settings),
         "source": one.source}
        for one in all_studies()
    ]  # fmt: skip


def _settings(plan: Any) -> dict[str, Any]:
    """The settings of a study that have a default."""
    from heatproof.perturbations import default_kinds

    options = {name: field.get_default(call_default_factory=True) for name, field in plan.model_fields.items()
               if not field.is_required() and name != "study"}  # fmt: skip
    return {**options, "perturbations": default_kinds()} if "perturbations" in options else options


def _models() -> list[dict[str, Any]]:
    from heatproof.models.available import available

    return available()


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> None:
    """Prints a table; `widths` are the column widths that several tables share."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, header_style="bold", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    console = Console()
    if not console.is_terminal:  # piped: as wide as the content, so that nothing is cut
        widths = widths or [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for column, width in zip(table.columns, widths, strict=True):
            column.min_width = width
        console = Console(width=max(80, sum(width + 2 for width in widths)))
    console.print(table)
