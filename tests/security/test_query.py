"""`heatproof query` reads the rows of a study and no other file, unless it is told to."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heatproof import cli
from heatproof.studies.rows import SCHEMA

ROWS = {"metric": ["road", "road"], "value": [0.25, 0.75], "reference": [True, True]}
TABLE = pa.table({one.name: pa.array(ROWS.get(one.name, [None, None]), one.type) for one in SCHEMA}, schema=SCHEMA)


@pytest.fixture
def folder(tmp_path):
    """A folder whose name needs quoting in SQL and has DuckDB's wildcards."""
    found = tmp_path / "it's [a] *"
    (found / "rows").mkdir(parents=True)
    for name in ("a", "b"):
        pq.write_table(TABLE, found / "rows" / f"{name}.parquet")
    return found


def asked(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["query", *map(str, words), "--format", "csv"])
    told = capsys.readouterr()
    return int(stopped.value.code or 0), told.out, told.err


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n, avg(value) AS m FROM rows",
        "WITH a AS (FROM rows) SELECT count(*) AS n, avg(value) AS m FROM a",
        "CREATE TABLE mine AS FROM rows; SELECT count(*) AS n, avg(value) AS m FROM mine",
    ],
)
def test_rows_are_read(capsys, folder, monkeypatch, sql):
    assert asked(capsys, folder, sql)[:2] == (0, "n,m\n4,0.5\n")
    monkeypatch.chdir(folder.parent)
    assert asked(capsys, folder.name, sql)[:2] == (0, "n,m\n4,0.5\n")


def test_rows_are_described_and_turned(capsys, folder):
    assert asked(capsys, folder, "DESCRIBE rows")[0] == 0
    assert asked(capsys, folder, "PIVOT rows ON metric USING sum(value)")[0] == 0
    assert asked(capsys, folder, "EXPLAIN SELECT * FROM rows")[0] == 0


@pytest.mark.parametrize(
    "sql",
    [
        "COPY rows TO '{out}'",
        "COPY rows TO '{shard}' (FORMAT parquet, USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY rows TO '{shard}' (FORMAT parquet, USE_TMP_FILE false)",
        "PREPARE p AS COPY rows TO '{shard}' (USE_TMP_FILE false); EXECUTE p",
        "EXPORT DATABASE '{out}'",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM glob('{folder}/*')",
        "ATTACH '{out}' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
        "CREATE MACRO m() AS TABLE FROM read_csv('{secret}'); FROM m()",
        "SELECT * FROM read_parquet('https://example.org/a.parquet')",
    ],
)
def test_no_other_file_is_reached(capsys, folder, sql):
    secret, out = folder.parent / "secret.csv", folder.parent / "out"
    secret.write_text("word\nopen sesame\n")
    before = {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}
    shard = folder / "rows" / "a.parquet"
    names = {"secret": secret, "out": out, "shard": shard, "folder": folder.parent}
    code, told, err = asked(capsys, folder, sql.format(**{k: str(v).replace("'", "''") for k, v in names.items()}))
    assert code == 2 and "sesame" not in told and err.startswith("error: The query ")
    assert {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()} == before


def test_names_of_python_are_no_tables(capsys, folder):
    rows_of_python = pa.table({"word": ["sesame"]})  # DuckDB would find it in the frames of the caller
    code, told, _ = asked(capsys, folder, "SELECT * FROM rows_of_python")
    assert code == 2 and not told and len(rows_of_python) == 1


def test_a_flag_allows_it(capsys, folder):
    out = folder.parent / "out.csv"
    code, _, err = asked(capsys, folder, f"COPY rows TO '{out}'")
    assert code == 2 and "--allow-files allows it" in err and not out.exists()
    assert asked(capsys, folder, f"COPY (SELECT value FROM rows) TO '{out}'", "--allow-files")[0] == 0
    assert out.read_text().split() == ["value", "0.25", "0.75", "0.25", "0.75"]
    assert asked(capsys, folder, f"SELECT count(*) AS n FROM read_csv('{out}')", "--allow-files")[1] == "n\n4\n"
