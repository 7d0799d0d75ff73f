"""The house's rules, read from the source: floors, no torch where none is needed, size, docstrings, seeds."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "heatproof"

#: Room → floor. The modules of floor 0 are one room: the ground on which everything stands.
FLOORS = {
    **dict.fromkeys(
        (
            "addresses",
            "archives",
            "class_names",
            "errors",
            "registry",
            "spelling",
            "seeds",
            "tensors",
            "windows",
            "pixels",
            "geometry",
            "targets",
            "explained_output",
            "quantities",
            "traps",
            "transfers",
            "flags",
            "files",
            "plugins",
            "bytecode",
            "code_fingerprint",
            "memo",
            "progress",
            "passes",
            "rounding",
            "locks",
            "ambient",
            "quiet",
            "paper_table",
            "display_names",
            "bibliography",
            "lazy_plots",
        ),
        0,
    ),
    **dict.fromkeys(
        ("segments", "perturbations", "transformations", "masking", "models", "data", "statistics", "imputation"), 1
    ),
    **dict.fromkeys(("attributions", "activation_statistics", "metrics", "training"), 2),
    "engine": 3,
    "studies": 4,
    "report": 5,
    "panels": 6,
    "auditing": 7,
    "loggers": 7,
    "running": 6,
    "compat": 6,
    "demo": 7,
    "plot": 7,
    "view": 7,
    "live": 8,
    "cli": 9,
}
#: What drawing needs no network for may not import one, not even through something else.
WITHOUT_TORCH = ("report", "view", "statistics", "plot")
#: The only rooms that `report` reads from: the store, the table of studies, the numbers, and the ground.
READ_BY_REPORTS = (
    *("report", "statistics", "studies.store", "studies.study"),
    *("addresses", "archives", "class_names", "errors", "files", "flags", "registry", "seeds", "spelling"),
    *("paper_table", "display_names", "bibliography"),
)
#: `view` reads the same, and of the panels what draws one map and holds one image.
READ_BY_VIEW = (*READ_BY_REPORTS, "view", "panels.explained_image", "panels.panel")
HEAVY = ("torch", "torchvision", "timm", "transformers", "skimage", "scipy", "pandas", "matplotlib", "duckdb")
LONGEST = 500

MODULES = sorted(SOURCE.rglob("*.py"))


def dotted(path: Path) -> str:
    """`models/capture.py` → `models.capture`; a package by its own name, the root as the empty text."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def inner_imports(module: ast.Module, known: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a module imports from heatproof, at its top or inside a function."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import. Write it in full."
            if node.module == "heatproof":
                yield from ((node.lineno, alias.name) for alias in node.names if alias.name in known)
                lazy = [a.name for a in node.names if a.name not in known and not a.name.startswith("__")]
                yield from ((node.lineno, "(public names)") for _ in lazy)
            elif node.module and node.module.startswith("heatproof."):
                base = node.module.removeprefix("heatproof.")
                deeper = [f"{base}.{alias.name}" for alias in node.names]
                yield from ((node.lineno, name if name in known else base) for name in deeper)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("heatproof.")]
            yield from ((node.lineno, name.removeprefix("heatproof.")) for name in names)
        elif _is_public_name(node):
            yield node.lineno, "(public names)"  # heatproof.load_model: the lazy names import upwards


def _is_public_name(node: ast.AST) -> bool:
    """Whether a node reads `heatproof.name`."""
    of_root = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "heatproof"
    return of_root and not node.attr.startswith("__")


KNOWN = frozenset(dotted(path) for path in MODULES)


def broken_rules(name: str, module: ast.Module) -> list[str]:
    """One sentence for each import that goes up, or sideways."""
    room = name.partition(".")[0]
    found = []
    for line, target in inner_imports(module, KNOWN):
        other = target.partition(".")[0]
        if other == room or (FLOORS.get(other) == 0 == FLOORS[room]):
            continue
        if other not in FLOORS:
            found.append(f"{name}, line {line}: imports {target}, which is on no floor")
        elif FLOORS[other] >= FLOORS[room]:
            found.append(f"{name} (floor {FLOORS[room]}), line {line}: imports {target} (floor {FLOORS[other]})")
    return found


def test_every_room_has_a_floor():
    rooms = {name.partition(".")[0] for name in KNOWN} - {""}
    assert rooms <= set(FLOORS), f"Give {sorted(rooms - set(FLOORS))} a floor here and in CONTRIBUTING.md."


def test_only_own_room_or_lower_floors_are_imported():
    broken = [text for path in MODULES if dotted(path) for text in broken_rules(dotted(path), tree(path))]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("metrics.stability", "from heatproof.attributions import cam"),  # a sibling
        ("models.capture", "def f():\n    from heatproof.engine import Batch"),  # up, inside a function
        ("data.folder", "from heatproof import segments"),  # a sibling, as a name of the root
        ("studies.run", "import heatproof.cli"),
        ("errors", "import heatproof\nheatproof.load_model('shapes')"),  # up, through the lazy names
        ("engine", "from heatproof import explain"),
    ],
)
def test_the_rule_sees_what_it_forbids(name, source):
    assert len(broken_rules(name, ast.parse(source))) == 1


def test_plots_are_reached_from_below_in_one_place():
    """`maps.plot()` and the like go through `lazy_plots`, so that no module depends on the room above it."""
    named = [
        dotted(path)
        for path in MODULES
        if dotted(path).partition(".")[0] not in ("", "plot")
        and any(isinstance(node, ast.Constant) and node.value == "heatproof.plot" for node in ast.walk(tree(path)))
    ]
    assert named == ["lazy_plots"]


def test_the_rule_lets_pass_what_it_allows():
    source = "import heatproof\nfrom heatproof import targets\nfrom heatproof.errors import InvalidInput\n"
    source += "from heatproof.models.capture import captured\nheatproof.__version__\n"
    assert broken_rules("engine", ast.parse(source)) == []


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another, each sorted: those of which every one leads back to every other."""
    reached = {name: _reached(name, imports) for name in imports}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached.get(other, ())))
        for name in imports
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def _reached(name: str, imports: dict[str, set[str]]) -> set[str]:
    """All modules that importing `name` leads to; `name` itself where it leads back."""
    found: set[str] = set()
    left = list(imports[name])
    while left:
        other = left.pop()
        if other not in found:
            found.add(other)
            left += imports.get(other, ())
    return found


def all_imports(sources: dict[str, ast.Module], known: frozenset[str]) -> dict[str, set[str]]:
    """Module → the modules it imports: at its top, inside functions, and for type checkers alone."""
    return {
        name: {target for _, target in inner_imports(module, known) if target in known}
        for name, module in sources.items()
    }


def test_no_modules_import_one_another():
    """Also inside a room, inside a function and under TYPE_CHECKING: who needs the other's types needs the other."""
    found = circles(all_imports({dotted(path): tree(path) for path in MODULES if dotted(path)}, KNOWN))
    assert not found, "These import one another: " + "; ".join(", ".join(group) for group in found)


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ({"a": "from heatproof.b import f", "b": "def g():\n    from heatproof.a import g"}, [["a", "b"]]),
        (
            {
                "a": "if TYPE_CHECKING:\n    from heatproof.b import T",
                "b": "import heatproof.c",
                "c": "import heatproof.a",
            },
            [["a", "b", "c"]],
        ),
        ({"a": "from heatproof.a import f", "b": "import heatproof.a"}, [["a"]]),
        ({"a": "from heatproof import b", "b": "from heatproof import a", "c": "import heatproof.b"}, [["a", "b"]]),
        ({"a": "import heatproof.b", "b": "import heatproof.c", "c": "import os", "d": "import heatproof.b"}, []),
    ],
)
def test_the_rule_sees_circles(planted, found):
    sources = {name: ast.parse(source) for name, source in planted.items()}
    assert circles(all_imports(sources, frozenset(planted))) == found


@pytest.mark.parametrize(("room", "read"), [("report", READ_BY_REPORTS), ("view", READ_BY_VIEW)])
def test_reports_read_the_store_and_the_statistics_only(room, read):
    found = [
        f"{dotted(path)}, line {line}: {target}"
        for path in MODULES
        if dotted(path).partition(".")[0] == room
        for line, target in inner_imports(tree(path), KNOWN)
        if not any(target == allowed or target.startswith(f"{allowed}.") for allowed in read)
    ]
    assert not found, "\n".join(found)


def loaded_after(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after `code`."""
    code += f"\nimport sys; print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_the_probe_sees_torch():
    assert "torch" in loaded_after("import heatproof; heatproof.explain")


def test_importing_heatproof_loads_nothing_heavy():
    assert loaded_after("import heatproof, heatproof.cli; dir(heatproof); heatproof.__version__") == set()


def test_help_loads_nothing_heavy():
    code = """
from heatproof.cli import main
for words in ("--help", "run --help", "explain --help", "report --help", "query --help", "list --help", "--version"):
    try:
        main(words.split())
    except SystemExit as done:
        assert not done.code
"""
    assert loaded_after(code) == set()


def test_the_list_of_commands_imports_none_of_them():
    code = """
from heatproof.cli import main
for words in ("--help", "--version", "nothing"):
    try:
        main(words.split())
    except SystemExit:
        pass
import sys; print('others:', *[name for name in sys.modules if name.startswith(('heatproof.', 'numpy', 'pyarrow'))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.rpartition("others:")[2].split()) == {
        "heatproof.cli", "heatproof.cli.commands", "heatproof.errors"
    }  # fmt: skip


def test_no_torch_behind_the_rooms_that_need_none():
    """All in one process; where torch is loaded, each room alone says which of them loads it."""
    rooms = {room: [f"heatproof.{name}" for name in sorted(KNOWN) if name.partition(".")[0] == room]
             for room in WITHOUT_TORCH}  # fmt: skip
    assert all(rooms.values()), "a room of WITHOUT_TORCH is not there"
    if "torch" in loaded_after("import " + ", ".join(name for names in rooms.values() for name in names)):
        loading = [room for room, names in rooms.items() if "torch" in loaded_after("import " + ", ".join(names))]
        pytest.fail(f"These load torch: {loading or 'all of them together'}")


def test_panels_are_drawn_without_torch():
    drawn = ("explained_image", "panel", "show_page")
    assert loaded_after("\n".join(f"import heatproof.panels.{name}" for name in drawn)) == {"matplotlib"}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_stays_readable(path):
    lines = path.read_text("utf-8").count("\n")
    assert lines <= LONGEST, f"{dotted(path)} has {lines} lines: look for the second idea in it."


def undocumented(module: ast.Module) -> list[str]:
    """Public functions and classes of a module without a docstring, and the module itself."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    named = [node for node in module.body if isinstance(node, functions) and not node.name.startswith("_")]
    return [getattr(node, "name", "the module") for node in (module, *named) if not ast.get_docstring(node)]


def test_everything_public_has_a_docstring():
    found = [f"{dotted(path) or 'heatproof'}: {name}" for path in MODULES for name in undocumented(tree(path))]
    assert not found, "\n".join(found)
    assert undocumented(ast.parse('"""A module."""\ndef f(): ...\ndef _g(): ...')) == ["f"]


#: Calls that make a result depend on the hour, or on who drew numbers before.
GLOBAL_STATE = {
    "torch": ("manual_seed", "seed", "cuda.manual_seed", "cuda.manual_seed_all", "random.manual_seed"),
    "numpy.random": ("seed", "rand", "randn", "randint", "random", "normal", "uniform", "choice", "shuffle"),
    "random": ("seed", "random", "choice", "randint", "shuffle", "uniform", "sample"),
    "time": ("time", "time_ns", "localtime", "gmtime", "strftime", "ctime"),
    "datetime": ("datetime.now", "datetime.today", "datetime.utcnow", "date.today"),
}
FORBIDDEN = frozenset(f"{module}.{name}" for module, names in GLOBAL_STATE.items() for name in names)
PRINT = "builtins.print"


def calls(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of every call of an imported (or built-in) function."""
    names = {"print": PRINT}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                names[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            base, _, rest = ast.unparse(node.func).partition(".")
            if base in names:
                yield node.lineno, ".".join(filter(None, (names[base], rest)))


def test_no_global_seeds_no_clock_no_print():
    found = [
        f"{dotted(path)}, line {line}: {name}"
        for path in MODULES
        for line, name in calls(tree(path))
        if name in FORBIDDEN or (name == PRINT and dotted(path).partition(".")[0] != "cli")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch\ntorch.manual_seed(0)", "torch.manual_seed"),
        ("import numpy as np\nnp.random.seed(0)", "numpy.random.seed"),
        ("from random import seed as s\ns(0)", "random.seed"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("def f():\n    print('x')", "builtins.print"),
    ],
)
def test_the_search_sees_what_it_forbids(source, name):
    assert [found for _, found in calls(ast.parse(source))] == [name]
    assert name in {*FORBIDDEN, PRINT}


def test_a_generator_of_ones_own_is_allowed():
    names = [name for _, name in calls(ast.parse("import torch\ntorch.Generator().manual_seed(0)"))]
    assert not set(names) & set(FORBIDDEN)


#: What sets something of the whole process, or makes other objects wait → what to use.
OF_THE_PROCESS = {
    "catch_warnings": "heatproof.quiet.ignored_warnings",
    "sdpa_kernel": "heatproof.models.attention.UnfusedAttention",
    "functools import cached_property": "heatproof.memo.cached_property",
    "functools.cached_property": "heatproof.memo.cached_property",
    "fork_rng": "heatproof.seeds.seeded, or locks.GENERATORS",
}
ALLOWED = {
    "quiet": "catch_warnings",
    "seeds": "fork_rng",
    "attributions.superpixels": "fork_rng",
    "code_fingerprint": "functools.cached_property",  # it looks for them in code of the user's
}


def test_nothing_is_set_for_the_whole_process():
    """Threads would meet it; `report`, `statistics` and `memo` apart, which need no torch or are the other way."""
    for path in MODULES:
        name = dotted(path)
        if name.partition(".")[0] in ("report", "statistics", "memo"):
            continue
        lines = [line.partition("#")[0] for line in path.read_text("utf-8").splitlines() if "`" not in line]
        for word, instead in OF_THE_PROCESS.items():
            assert ALLOWED.get(name) == word or not any(word in line for line in lines), f"{name}: take {instead}."
