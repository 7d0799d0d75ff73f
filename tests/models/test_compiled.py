"""A compiled copy gives the logits of the network, and only where nothing but logits is wanted."""

import pytest
import torch
from torch import nn

import heatproof
from heatproof.cli.plan_command import about_copy
from heatproof.errors import HeatproofWarning, ModelError
from heatproof.models import compiled
from heatproof.models.compiled import CompiledNetwork, is_cached, pass_shape, why_not, with_compiled
from heatproof.studies import compiling, run
from heatproof.studies.compiling import asked_to_compile, compile_choices, compile_chosen
from heatproof.studies.cost import Passes, counted
from heatproof.studies.loading import StudyModels
from heatproof.studies.plan import checked_plan
from heatproof.studies.planning import planned
from heatproof.studies.prediction import CompileCost
from heatproof.studies.store import connect


@pytest.fixture(scope="module")
def shapes():
    """The bundled network and its compiled copy; compiling takes some seconds."""
    model = heatproof.load_model("shapes")
    if why := why_not(model):
        pytest.skip(why)
    return model, with_compiled(model)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_logits_agree_and_only_full_passes_without_gradient_run_compiled(shapes):
    model, fast = shapes
    z = drawn(*pass_shape(model))
    with model.evaluating(), torch.no_grad(), counted(model.module) as plain, counted(fast.compiled) as compiled_ones:
        torch.testing.assert_close(fast.answers(z), model.answers(z), atol=1e-4, rtol=1e-4)
        assert (plain.forward, compiled_ones.forward) == (len(z), len(z))
        assert torch.equal(fast.answers(z[:3]), model.answers(z[:3]))  # another shape
        assert torch.equal(fast.of_normalised(z), model.of_normalised(z))  # where a layer may be read
        assert compiled_ones.forward == len(z)
        assert torch.equal(fast.answers(z[:-1]), fast.answers(z)[:-1])  # filled up, and the same
        assert compiled_ones.forward == 3 * len(z) - 1  # images that were asked for
        many = torch.cat([z, z, z[:2]])  # two full passes, and two images that run as they are
        torch.testing.assert_close(fast.answers(many), model.answers(many), atol=1e-4, rtol=1e-4)
        assert compiled_ones.forward == 5 * len(z) - 1
    with model.evaluating(), torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert not fast.compiled.takes(z)
    wanted = z.clone().requires_grad_()
    with model.evaluating():
        fast.answers(wanted)[:, 0].sum().backward()
    assert wanted.grad is not None and float(wanted.grad.abs().sum()) > 0
    assert not fast.compiled.takes(z.double())


def test_the_machine_code_is_kept_and_belongs_to_the_weights(shapes, monkeypatch):
    model, fast = shapes
    made = []
    monkeypatch.setattr(compiled, "_compile", lambda model, shape, path: made.append(path))
    assert with_compiled(model).compiled is not None and not made
    other = model.copied()
    with torch.no_grad():
        next(other.module.parameters()).add_(1.0)
    with pytest.raises(Exception):  # noqa: B017 - nothing was written, so nothing can be loaded
        with_compiled(other)
    assert len(made) == 1
    assert fast.copied().compiled is None and fast.with_module(other.module).compiled is None
    assert fast.with_classes(None).compiled is not None and model.compiled is None


def test_a_copy_with_other_logits_is_refused(shapes, monkeypatch):
    model, _ = shapes
    monkeypatch.setattr(compiled, "_loaded", lambda model, shape: lambda z: 1.01 * model.module(z))
    with model.evaluating(), pytest.raises(ModelError, match="gives other logits"):
        with_compiled(model)
    monkeypatch.setattr(compiled, "_loaded", lambda model, shape: lambda z: model.module(z) * torch.nan)
    with model.evaluating(), pytest.raises(ModelError, match="gives other logits"):
        with_compiled(model)


def test_a_damaged_copy_is_compiled_again(monkeypatch, tmp_path):
    model = heatproof.load_model("shapes")
    if why_not(model):
        pytest.skip(why_not(model))
    monkeypatch.setenv("HEATPROOF_CACHE", str(tmp_path))
    assert not is_cached(model)
    (tmp_path / "compiled").mkdir()
    name = compiled._key(model, pass_shape(model))
    (tmp_path / "compiled" / f"{name}.pt2").write_bytes(b"half")
    made = []
    monkeypatch.setattr(compiled, "_compile", lambda model, shape, path: made.append(path.exists()))
    with pytest.raises(Exception):  # noqa: B017 - as above
        with_compiled(model)
    assert made == [False]


class LooksAtValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, z):
        found = self.layer(z).mean((2, 3))
        return found if float(found.sum()) > 0 else -found


def test_what_cannot_be_compiled_is_said(monkeypatch):
    model = heatproof.wrap(LooksAtValues(), mean=0.5, std=0.5, size=32)
    if why_not(model):
        pytest.skip(why_not(model))
    with pytest.raises(ModelError, match="cannot be compiled"):
        with_compiled(model)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"no C\+\+ compiler.*--compile never"):
        with_compiled(model)
    assert "float64" in why_not(heatproof.wrap(LooksAtValues().double(), mean=0.5, std=0.5, size=32))


def plan(**more):
    settings = {"study": "score", "models": ["shapes"], "datasets": ["shapes"], "limit": 9, "methods": ["gradcam"],
                "metrics": ["insertion"], "controls": "none"}  # fmt: skip
    return checked_plan({**settings, **more})


def scores(folder):
    return connect(folder).execute("select image, metric, value from rows order by all").df()


def test_a_study_on_compiled_copies_has_the_same_scores_and_is_finished_only_so(shapes, tmp_path):
    run.run(plan(compile="always"), tmp_path / "always", workers=1)
    run.run(plan(), tmp_path / "auto", workers=1)
    always, auto = scores(tmp_path / "always"), scores(tmp_path / "auto")
    assert always[["image", "metric"]].equals(auto[["image", "metric"]])
    difference = (always["value"] - auto["value"]).abs()
    assert 0 < difference.max() < 1e-4  # compiled, and the same
    next((tmp_path / "always" / "rows").glob("*.parquet")).unlink()
    with pytest.raises(heatproof.errors.StoreError, match=r"compiled networks \(--compile\) are"):
        run.run(plan(compile="never"), tmp_path / "always", workers=1)
    run.run(plan(), tmp_path / "always", workers=1)  # as it was begun
    assert scores(tmp_path / "always").equals(always)


def test_what_is_compiled_follows_from_the_plan_and_from_what_was_begun():
    assert asked_to_compile(plan(compile="never"), None) == []
    assert asked_to_compile(plan(compile="always"), None) == ["shapes"]
    assert asked_to_compile(plan(), None) is None
    assert asked_to_compile(plan(), {"compiled": ["shapes"]}) == ["shapes"]
    assert asked_to_compile(plan(), {}) == []


def chosen(monkeypatch, passes, seconds, cached=None, images=100, **more):
    """The choice for so many passes of so many seconds; `cached`: the share that the copy in the cache saves."""
    monkeypatch.setattr(compiling, "seconds_of_pass", lambda model: seconds)
    monkeypatch.setattr(compiling, "why_not", lambda model: "")
    monkeypatch.setattr(compiling, "is_cached", lambda model: cached is not None)
    monkeypatch.setattr(compiling, "gain_of", lambda model: cached)
    models = StudyModels(plan(**more), "cpu")
    (found,) = compile_choices(models.plan, models, lambda: [Passes(plain=passes / images)], images)
    return models, found


@pytest.mark.parametrize(
    ("passes", "seconds", "cached", "because"),
    [
        (1e6, 1e-2, None, compiling.PAYS),
        (1e6, 1e-5, None, compiling.TOO_DEAR),
        (10, 0.5, None, compiling.TOO_DEAR),
        (1e4, 1e-2, None, compiling.TOO_DEAR),  # saves 12 s, and compiling takes more
        (1e4, 1e-2, 0.3, compiling.PAYS),  # saves 30 s, and the copy is there
        (1e4, 1e-3, 0.3, compiling.TOO_DEAR),
    ],
)
def test_it_is_compiled_where_that_saves_more_than_it_takes(monkeypatch, passes, seconds, cached, because):
    copies = []
    monkeypatch.setattr("heatproof.studies.loading.with_compiled", lambda model: copies.append(model) or model)
    models, found = chosen(monkeypatch, passes, seconds, cached)
    assert found.because == because and found.passes == passes
    assert found.saved == pytest.approx(passes * seconds * (cached or compiling.LEAST))
    assert found.compiling == (compiling.COMPILING if found.compiled and cached is None else 0)
    assert found.measured == (cached is not None)
    names = compile_chosen(models, [found])
    assert (names, bool(copies)) == ((["shapes"], True) if because == compiling.PAYS else ([], False))


def test_what_was_asked_for_is_chosen_whatever_it_saves(monkeypatch):
    assert chosen(monkeypatch, 1, 1e-5, compile="always")[1].because == compiling.ASKED
    assert chosen(monkeypatch, 1e6, 1.0, compile="never")[1].because == compiling.REFUSED
    assert chosen(monkeypatch, 1e6, 1.0, images=compiling.FEW - 1)[1].because == compiling.TOO_FEW
    monkeypatch.setattr(compiling, "why_not", lambda model: "it is elsewhere")
    models = StudyModels(plan(), "cpu")
    (found,) = compile_choices(models.plan, models, lambda: [], 100)
    assert (found.compiled, found.why_not) == (False, "it is elsewhere")
    monkeypatch.setattr(compiled, "why_not", lambda model: "it is elsewhere")
    models = StudyModels(plan(compile="always"), "cpu")
    with pytest.raises(ModelError, match="cannot be compiled: it is elsewhere"):
        compile_choices(models.plan, models, lambda: [], 100)


def test_a_network_that_cannot_be_compiled_runs_as_it_is_with_a_warning(monkeypatch):
    def refused(model):
        raise ModelError("shapes cannot be compiled: no. More.")

    monkeypatch.setattr("heatproof.studies.loading.with_compiled", refused)
    models, found = chosen(monkeypatch, 1e4, 1.0)
    with pytest.warns(HeatproofWarning, match="cannot be compiled: no. The network runs as it is"):
        assert compile_chosen(models, [found]) == []
    assert models(0).compiled is None


def test_a_copy_that_is_there_is_measured_for_the_plan(shapes):
    found = planned(plan(compile="always"), workers=1, measure=0.5)
    (cost,) = found.compile
    assert cost.choice.measured and cost.choice.cached and found.compiling == 0
    assert cost.compiled == pytest.approx(found.seconds) and cost.compiled <= cost.eager
    assert found.facts["compile"][0]["passes"] == 9 * 28
    assert "on a compiled copy" in about_copy(cost) and about_copy(cost).endswith("The copy is there already.")
    never = planned(plan(compile="never"), workers=1, measure=0.5)
    assert never.compile[0].eager == pytest.approx(never.seconds) and never.compile[0].compiled <= never.seconds


def test_the_plan_says_the_choice_and_why(monkeypatch):
    def told(*arguments, **more):
        found = chosen(monkeypatch, *arguments, **more)[1]
        return about_copy(CompileCost(found, 1000.0, 750.0))

    assert told(1e6, 1e-2) == (
        "shapes runs its 1,000,000 passes without gradient on a compiled copy: 12 min 30 s in place of 16 min 40 s (a "
        "compiled pass takes 0.75 of the time, as is assumed). Compiling takes up to 1 min, once."
    )
    assert told(1e4, 1e-2) == (
        "shapes has no compiled copy: it would save about 12 s of 10,000 passes without gradient. Compiling takes up "
        "to 1 min."
    )
    assert told(0, 1e-2) == "shapes has no compiled copy: no pass of the study is without gradient."
    assert "less than 1 s" in told(1e4, 1e-5, 0.3) and told(1e4, 1e-5, 0.3).endswith("Loading it takes some seconds.")
    assert "as asked (--compile never); with one it would take 12 min" in told(1e6, 1e-2, compile="never")
    assert told(1e6, 1e-2, images=3) == "shapes has no compiled copy: with fewer than 16 images none is made."


def test_the_compiled_copy_is_no_part_of_the_network(shapes):
    _, fast = shapes
    assert isinstance(fast.compiled, CompiledNetwork)
    assert all(one is not fast.compiled for one in fast.module.modules())
