"""Spellings: taken apart and put together again without loss."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatproof.attributions.method_request import parsed
from heatproof.errors import InvalidInput
from heatproof.metrics.metric_request import parsed_metric
from heatproof.segments import SEGMENTERS
from heatproof.spelling import Spelling, format, head, listed, parse, scalar, value_text

NAMES = st.text(st.characters(exclude_characters="@[]"), min_size=1, max_size=12).map(str.strip).filter(bool)
INDICES = st.lists(st.integers(-20, 20).map(lambda i: f"[{i}]"), max_size=2).map("".join)
LAYERS = st.tuples(st.from_regex(r"\A[a-z_][a-z0-9_]*(\.[a-z0-9_]+){0,2}\Z"), INDICES).map("".join)
KEYS = st.from_regex(r"\A[a-z_][a-z0-9_]{0,6}\Z")
TEXTS = st.one_of(
    st.text(max_size=12),
    st.text('ab=,[]{}"\\\':# \n.@+-1e', max_size=12),
    st.sampled_from(
        ["", "true", "no", "null", "~", "1e-6", ".5", "0x1f", "12:30", "2020-01-01", "2020-13-45", "*a", "&a b", "- a",
         "a: b", "a #b", "grid[side=4]", "20 50", "[1, 2]", '"', "'a", "\\", "é", "😀", "\ud800", "\x85", "\u2028"]
    ),
)  # fmt: skip
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False))
VALUES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.lists(st.one_of(NUMBERS, TEXTS), max_size=3))


def same(one, other) -> bool:
    """Equal, and of one type (True is not 1, 1 is not 1.0)."""
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(NAMES, st.lists(LAYERS, max_size=3), st.dictionaries(KEYS, VALUES, max_size=4))
def test_parse_is_the_inverse_of_format(name, layers, options):
    text = format(name, options, layers)
    found = parse(text)
    assert (found.name, found.layers) == (name, tuple(layers))
    assert found.options.keys() == options.keys()
    assert all(same(found.options[key], value) for key, value in options.items()), text
    assert format(found.name, found.options, found.layers) == text, "one spelling for one thing"
    assert head(text) == format(name, {}, layers)


@given(st.lists(st.tuples(KEYS, st.lists(LAYERS, max_size=2), st.dictionaries(KEYS, VALUES, max_size=2)), max_size=4))
def test_a_list_is_cut_between_spellings_only(parts):
    spelled = [format(name, options, layers) for name, layers, options in parts]
    assert listed(",".join(spelled)) == spelled
    assert listed(" , ".join(spelled)) == spelled


@given(VALUES)
def test_a_value_is_read_as_it_was(value):
    assert same(scalar(value_text(value)), value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gradcam", Spelling("gradcam")),
        (" gradcam++ [ eps = 1 , rows=2.5] ", Spelling("gradcam++", (), {"eps": 1, "rows": 2.5})),
        ("gradcam[]", Spelling("gradcam")),
        ("gradcam@layer3", Spelling("gradcam", ("layer3",))),
        ("gradcam@features[7][-1]", Spelling("gradcam", ("features[7][-1]",))),
        ("gradcam@features[7].conv[k=[7]]", Spelling("gradcam", ("features[7].conv",), {"k": [7]})),
        ("refine:layercam@layer2 + layer4[operator=geometric]",
         Spelling("refine:layercam", ("layer2", "layer4"), {"operator": "geometric"})),
        ("lime[segmenter=grid[side=4],samples=9]", Spelling("lime", (), {"segmenter": "grid[side=4]", "samples": 9})),
        ("a[x=[1, 2],y=[b, c]]", Spelling("a", (), {"x": [1, 2], "y": ["b", "c"]})),
        ('a[x="1",y="p,q]"]', Spelling("a", (), {"x": "1", "y": "p,q]"})),
        ("a[x=it's,y=5\" wide]", Spelling("a", (), {"x": "it's", "y": '5" wide'})),
        ("a[x=1e-6,y=-2E3,z=.5]", Spelling("a", (), {"x": 1e-6, "y": -2000.0, "z": 0.5})),
        ("a[x=no,y=,z=null]", Spelling("a", (), {"x": False, "y": None, "z": None})),
        ("python:my.module:fn[power=2]", Spelling("python:my.module:fn", (), {"power": 2})),
    ],
)  # fmt: skip
def test_what_is_read(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "  ", "[a=1]", "@layer", "a@", "a[", "a]", "a[x]", "a[x=1]y", "a[x=1]@layer", "a[x=1][y=2]", "a[x=[1]",
     "a[x=1]]", 'a[x="1]', "a@[x=1]", "a[x=1}]"],
)  # fmt: skip
def test_what_is_no_spelling(text):
    with pytest.raises(InvalidInput, match="Expected"):
        parse(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (None, "null"), (0.2, "0.2"), (50, "50"), ("50", '"50"'), ("20 50", "20 50"),
     ("abs-max", "abs-max"), ((1, 0.5), "[1, 0.5]"), (1e-6, "1e-06"), (math.inf, ".inf"),
     ("grid[side=4]", "grid[side=4]"), ("a,b", '"a,b"')],
)  # fmt: skip
def test_how_values_are_written(value, text):
    assert value_text(value) == text


def test_not_a_number_is_read_as_it_was():
    assert math.isnan(scalar(value_text(math.nan)))


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("refine:gradcam++@layer2+features[7][-1]", {"compat": True, "operator": "geometric"}),
        ("lime", {"segmenter": "grid[side=4]"}),
        ("integrated-gradients", {"steps": 7}),
        ("eigencam", {"sign": "raw"}),
    ],
)
def test_a_methods_name_asks_for_it_again(text, options):
    request = parsed(text, options)
    again = parsed(request.name)
    assert again.name == request.name != text
    assert (again.entry, again.layers, again.operator) == (request.entry, request.layers, request.operator)
    assert again.options == request.options


@pytest.mark.parametrize(
    ("options", "key"),
    [({"kept": (50,)}, "road[kept=50]"), ({"kept": "50"}, "road[kept=50]"), ({"kept": (20, 50)}, "road[kept=20 50]"),
     ({"noise": 1e-6, "ties": "block"}, "road[noise=1e-06,ties=block]")],
)  # fmt: skip
def test_a_metrics_key_asks_for_it_again(options, key):
    request = parsed_metric("road", options)
    assert request.key == key
    assert parsed_metric(key).options == request.options


def test_what_has_no_layer_says_so():
    with pytest.raises(InvalidInput, match=r"A metric has no layer. Got 'road@layer3'. Leave `@layer3` out"):
        parsed_metric("road@layer3")
    with pytest.raises(InvalidInput, match="A segmenter has no layer"):
        SEGMENTERS.parse("grid@layer3")


def test_names_with_apostrophes_are_cut_at_commas():
    assert listed("maps:O'Neil,gradcam@a[0],road[x=[1,2],y=3],") == [
        "maps:O'Neil", "gradcam@a[0]", "road[x=[1,2],y=3]",
    ]  # fmt: skip
    assert head("maps:a b") == "maps:a b" and head("road[x=1]") == "road" and head("a[") == "a["
