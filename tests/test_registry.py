"""Names, spellings, contracts and options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatproof.errors import HeatproofError, InvalidInput, UnknownName
from heatproof.quantities import QUANTITIES
from heatproof.registry import Registry, fold, nearest, unknown


@pytest.fixture
def registry() -> Registry:
    made = Registry("method")

    @made.register("gradcam++", aliases=["gradcamplusplus", "gradcampp"], source="a paper, eq. 1", form="cam")
    def first(activations, gradients, *, compat=False, eps=1e-6, sign="plus", rows=3, other=None):
        """The first line.

        More.
        """
        return activations * gradients, compat, eps

    @made.register("random")
    def second(x, generator):
        """Draws."""

    return made


@pytest.mark.parametrize(
    "spelling",
    ["gradcam++", "GradCAM++", "Grad-CAM++", "GradCAMPlusPlus", "grad_cam_plus_plus", "gradcampp", "Grad-CAM-pp",
     "grad cam ++"],
)  # fmt: skip
def test_spellings_that_users_know(registry, spelling):
    assert registry[spelling].name == "gradcam++"
    assert spelling in registry
    assert registry.parse(f"{spelling}[compat=true]")[1] == {"compat": True}


def test_a_name_that_only_ends_like_plus_plus_is_left_alone():
    assert fold("app") == "app" and fold("k-pp") == "kpp" and fold("HiRes_CAM") == "hirescam"


@given(st.text(alphabet="aB-_ +p", max_size=8))
def test_folding_twice_changes_nothing(name):
    assert fold(fold(name)) == fold(name)


def test_the_contract_is_read_from_the_signature(registry):
    entry = registry["gradcam++"]
    assert entry.needs == ("activations", "gradients")
    assert entry.options == {"compat": False, "eps": 1e-6, "sign": "plus", "rows": 3, "other": None}
    assert entry.summary == "The first line."
    assert entry.traits == {"form": "cam"}
    assert entry.function(2, 3, compat=True) == (6, True, 1e-6)
    assert entry.described() == {
        "name": "gradcam++", "needs": ["activations", "gradients"], "options": entry.options, "form": "cam",
        "source": "a paper, eq. 1", "summary": "The first line.", "aliases": ["gradcamplusplus", "gradcampp"],
    }  # fmt: skip


def test_a_registry_is_a_mapping_in_order(registry):
    assert list(registry) == ["gradcam++", "random"] and len(registry) == 2
    assert "gradcam" not in registry and 3 not in registry


@pytest.mark.parametrize("taken", ["gradcam++", "GradCamPP", "random", "RANDOM"])
def test_a_name_twice_is_an_error_and_changes_nothing(registry, taken):
    with pytest.raises(InvalidInput, match="is taken by"):
        registry.register(taken)(lambda x: x)
    with pytest.raises(InvalidInput, match="is taken by"):
        registry.register("new", aliases=[taken])(lambda x: x)
    assert list(registry) == ["gradcam++", "random"] and "new" not in registry


def test_a_removed_name_is_free_with_its_aliases(registry):
    registry.remove("gradcampp")
    assert "gradcam++" not in registry and "gradcamplusplus" not in registry
    registry.register("gradcampp")(lambda x: x)
    assert registry["GradCAM++"].name == "gradcampp"


def test_an_unknown_quantity_is_an_error_when_it_is_registered(registry):
    def wants(activation):
        """Asks for what does not exist."""

    with pytest.raises(UnknownName, match=r"quantity \(asked for by method 'new'\).*'activation'.*'activations'"):
        registry.register("new")(wants)
    assert "new" not in registry


def test_a_registry_hands_over_only_what_it_can_supply(registry):
    """`mask` is in the vocabulary, but not in this one's."""
    assert "mask" in QUANTITIES
    with pytest.raises(UnknownName, match="'mask'"):
        registry.register("new")(lambda mask: mask)
    with pytest.raises(KeyError):
        Registry("no such kind")


@pytest.mark.parametrize("function", [lambda *x: x, lambda **x: x, lambda x, *gradients: x, lambda x, **options: x])
def test_starred_parameters_are_no_contract(registry, function):
    with pytest.raises(UnknownName):
        registry.register("new")(function)


def test_an_option_needs_a_default(registry):
    def wants(x, *, sigma):
        """Has no default."""

    with pytest.raises(InvalidInput, match="Option `sigma` of method 'new' must have a default"):
        registry.register("new")(wants)


@pytest.mark.parametrize(
    ("spelling", "options"),
    [
        ("gradcam++", {}),
        ("gradcam++[]", {}),
        (" gradcam++ [ eps = 1 , rows=2.5] ", {"eps": 1, "rows": 2.5}),
        ("gradcam++[sign=minus,compat=no]", {"sign": "minus", "compat": False}),
        ("gradcam++[other=null]", {"other": None}),
        ("gradcam++[other=[1]]", {"other": [1]}),
        ("gradcam++[eps]", None),
        ("gradcam++[eps=1]x", None),
        ("[eps=1]", None),
        ("", None),
    ],
)
def test_parsing(registry, spelling, options):
    if options is None:
        with pytest.raises(InvalidInput, match="Expected"):
            registry.parse(spelling)
    else:
        entry, found = registry.parse(spelling)
        assert (entry.name, found) == ("gradcam++", options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"compat": "maybe"}, "`compat` of 'gradcam..' must be true or false. Got 'maybe'"),
        ({"compat": 1}, "must be true or false. Got 1"),
        ({"eps": "small"}, "must be a number"),
        ({"eps": True}, "must be a number"),
        ({"rows": None}, "must be a number"),
        ({"sign": 3}, "must be text"),
    ],
)
def test_an_option_of_another_kind_is_an_error(registry, options, says):
    with pytest.raises(InvalidInput, match=says):
        registry["gradcam++"].checked_options(options)


def test_options_are_filled_in(registry):
    entry = registry["gradcam++"]
    assert entry.checked_options({"eps": 2, "other": [1]}) == {**entry.options, "eps": 2, "other": [1]}
    assert entry.options["eps"] == 1e-6
    with pytest.raises(UnknownName, match=r"No option of 'gradcam\+\+' is called 'epps'\. Did you mean 'eps'"):
        entry.checked_options({"epps": 1})
    with pytest.raises(UnknownName, match="it has none"):
        registry["random"].checked_options({"eps": 1})


def test_unknown_names_say_what_to_type(registry):
    with pytest.raises(UnknownName, match=r"No method is called 'grad-cam\+'. Did you mean 'gradcam\+\+'"):
        registry["grad-cam+"]
    with pytest.raises(KeyError) as caught:
        registry["zzz"]
    assert str(caught.value) == "No method is called 'zzz'. Known: gradcam++, random."
    assert isinstance(caught.value, HeatproofError)
    assert str(unknown("thing", "q", [f"name{i:03}" for i in range(50)])).endswith("name039, ….")


def test_the_nearest_names_come_first():
    assert nearest("ressnet18", ["vgg11", "resnet50", "resnet18"])[0] == "resnet18"
    assert nearest("zzz", ["vgg11"]) == []
