"""A CLIP or SigLIP model with prompts is a classifier: the whole model's logits, for every method."""

import numpy as np
import pytest
import torch

import heatproof
import heatproof.pixels
from heatproof.errors import HeatproofWarning, InvalidInput, ModelError

from .. import nets

transformers = pytest.importorskip("transformers")

SIDE = 32
PROMPTS = ["a cat", "a brown dog", "a tree"]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**TOWER, "vocab_size": 100, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0}  # fmt: skip
VISION = {**TOWER, "image_size": SIDE, "patch_size": 8}


class Tokenizer:
    """One token for each letter, in the call style of transformers; remembers how it was asked to pad."""

    padding: object = None

    def __call__(self, texts, padding, truncation, max_length, return_tensors):
        self.padding = padding
        rows = [[1, *(3 + ord(letter) % 90 for letter in text[: max_length - 2]), 2] for text in texts]
        length = max_length if padding == "max_length" else max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "token_type_ids": ids * 0}


class Processor:
    """Both in one, as `AutoProcessor` gives them."""

    def __init__(self):
        self.tokenizer = Tokenizer()
        self.image_processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_mean=[0.4, 0.5, 0.6],
            image_std=[0.2, 0.25, 0.3],
        )


def clip() -> torch.nn.Module:
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    return nets.seeded(lambda: transformers.CLIPModel(config))


def siglip() -> torch.nn.Module:
    config = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
    net = nets.seeded(lambda: transformers.SiglipModel(config))
    with torch.no_grad():
        net.logit_bias.fill_(-2.5)
        net.logit_scale.fill_(2.0)
    return net


def made(net: torch.nn.Module, **more) -> heatproof.Model:
    return heatproof.zero_shot(net, Tokenizer(), PROMPTS, mean=0.4, std=0.3, **more)


@pytest.mark.parametrize(("make", "padding"), [(clip, True), (siglip, "max_length")])
def test_its_logits_are_those_of_the_whole_model(make, padding):
    net, tokenizer, x = make(), Tokenizer(), nets.images(3, SIDE)
    model = heatproof.zero_shot(net, tokenizer, PROMPTS, mean=0.4, std=0.3)
    assert tokenizer.padding == padding and model.classes == PROMPTS
    tokens = tokenizer(PROMPTS, padding, True, 16, "pt")
    with torch.no_grad():
        expected = net(
            pixel_values=(x - 0.4) / 0.3, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).logits_per_image
        torch.testing.assert_close(model.logits(x), expected, rtol=1e-4, atol=1e-4)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("make", [clip, siglip])
def test_it_may_be_made_under_autocast(make):
    plain = heatproof.zero_shot(make(), Tokenizer(), PROMPTS, size=SIDE, mean=0.5, std=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        found = heatproof.zero_shot(make(), Tokenizer(), PROMPTS, size=SIDE, mean=0.5, std=0.5)
    x = nets.images(2, SIDE)
    with torch.no_grad(), found.evaluating(), plain.evaluating():
        assert torch.equal(found.logits(x), plain.logits(x))


def test_probabilities_are_those_that_the_family_was_trained_with():
    logits = torch.tensor([[1.0, -1.0, 0.5]])
    torch.testing.assert_close(made(clip()).probabilities(logits), logits.double().softmax(1))
    torch.testing.assert_close(made(siglip()).probabilities(logits), logits.double().sigmoid())
    torch.testing.assert_close(made(siglip(), multi_label=False).probabilities(logits), logits.double().softmax(1))


@pytest.mark.parametrize("make", [clip, siglip])
def test_every_kind_of_method_explains_the_image(make):
    model = made(make())
    assert all(name.startswith("vision_model") for name in model.layers.stages)
    methods = ["gradcam", "refine:layercam", "ablationcam", "attention-rollout", "chefer", "rise[masks=50]", "gradient"]
    one, two = (heatproof.explain(model, nets.images(2, SIDE, seed=seed), methods, target=1) for seed in (1, 2))
    for method in methods:
        assert float((one[method] - two[method]).abs().max()) > 0.05, method


def test_preprocessing_is_the_processors_or_what_is_stated():
    processor = Processor()
    for model in (
        heatproof.zero_shot(clip(), processor, PROMPTS),
        heatproof.zero_shot(clip(), Tokenizer(), PROMPTS, processor=processor.image_processor),
    ):
        assert model.mean == pytest.approx((0.4, 0.5, 0.6)) and model.std == pytest.approx((0.2, 0.25, 0.3))
        assert model.geometry.size == (SIDE, SIDE) and model.geometry.resize == SIDE
    stated = heatproof.zero_shot(clip(), processor, PROMPTS, mean=0.1, interpolation="nearest")
    assert stated.mean == (0.1, 0.1, 0.1) and stated.std == pytest.approx((0.2, 0.25, 0.3))
    assert stated.geometry.interpolation == "nearest"


def test_deep_images_and_crops_are_read_as_stated():
    stated = {"window": (0, 4095), "alpha_background": "black", "crop": 1.0}
    geometry = heatproof.zero_shot(clip(), Processor(), PROMPTS, **stated).geometry
    assert (geometry.window, geometry.background) == ((0, 4095), "black")
    twelve = np.full((SIDE, SIDE), 4095, np.uint16)
    assert float(geometry.image(heatproof.pixels.from_array(twelve)).min()) == 1.0
    assert heatproof.wrap(nets.seeded(nets.Plain), size=SIDE, crop=1.0).geometry.resize == geometry.resize


def test_an_assumed_preprocessing_is_a_warning_that_says_what_to_set():
    with pytest.warns(HeatproofWarning, match=r"mean 0.4815, 0.4578, 0.4082, std 0.2686.* assumed. Set mean, std to"):
        model = heatproof.zero_shot(clip(), Tokenizer(), PROMPTS)
    assert model.mean[0] == 0.48145466 and model.geometry.size == (SIDE, SIDE)
    with pytest.warns(HeatproofWarning, match="resized: std 0.5 is assumed. Set std to"):
        model = heatproof.zero_shot(siglip(), Tokenizer(), PROMPTS, mean=0.5)
    assert model.std == (0.5, 0.5, 0.5) and model.geometry.resize is None


def test_the_model_given_is_left_as_it_was():
    net = clip().train()
    before, state = nets.traces(net), torch.random.get_rng_state()
    made(net)
    assert nets.traces(net) == before and torch.equal(torch.random.get_rng_state(), state)


def test_new_weights_reach_the_prompts():
    """In a test of randomised weights the head is a layer, and no text tower is left that changes nothing."""
    from heatproof.models.randomisation import layers_with_weights

    names = layers_with_weights(made(clip()).module)
    assert names[-1] == "head" and not any("text" in name for name in names)


@pytest.mark.parametrize("prompts", ["a cat", ["a cat"], ["a cat", "a cat"], ["a cat", 3], []])
def test_prompts_must_be_at_least_two_texts(prompts):
    with pytest.raises(InvalidInput, match="at least two texts, each once"):
        heatproof.zero_shot(clip(), Tokenizer(), prompts, mean=0.5, std=0.5)


def test_what_cannot_be_a_zero_shot_classifier_is_an_error():
    with pytest.raises(ModelError, match=r"Expected a CLIPModel or SiglipModel.*Got CLIPVisionModel"):
        heatproof.zero_shot(clip().vision_model, Tokenizer(), PROMPTS, mean=0.5, std=0.5)
    with pytest.raises(ModelError, match=r"images of 48 × 48.*set `size`"):
        made(clip(), size=48)

    class Wide(Tokenizer):
        def __call__(self, *arguments, **named):
            return {"input_ids": super().__call__(*arguments, **named)["input_ids"] + 100}

    with pytest.raises(ModelError, match="its own tokenizer"):
        heatproof.zero_shot(clip(), Wide(), PROMPTS, mean=0.5, std=0.5)
