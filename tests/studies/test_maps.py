"""The raw maps that a job leaves: half precision, and blank for a method that failed, whichever and wherever."""

import numpy as np
import torch

from heatproof.studies.maps import KeptMaps, arrays


def kept(*conditions: list[torch.Tensor]) -> KeptMaps:
    """Maps of two images by two methods under some conditions."""
    found = KeptMaps(["a", "b"], ["one", "other"], [str(number) for number in range(len(conditions))])
    for maps in conditions:
        found.add_raw(maps)
    return found


def test_values_times_scale_are_the_maps():
    maps = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)) * 10**seed for seed in range(2)]
    found = arrays([kept(maps, [one / 2 for one in maps])])
    back = found["values"].astype(np.float32) * found["scale"][..., None, None]
    assert back.shape == (2, 2, 2, 3, 4)  # methods, conditions, images, height, width
    np.testing.assert_allclose(back[:, 0], torch.stack(maps), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(back[:, 1], torch.stack(maps) / 2, rtol=2e-3, atol=2e-3)


def test_a_method_that_failed_is_blank_and_spoils_no_other():
    """First or last, under one condition or in one part of a job alone."""
    good, failed = torch.ones(2, 3, 4), torch.full((2, 1, 1), torch.nan)
    found = arrays([kept([failed, good], [failed, failed]), kept([good, good], [good, failed])])
    values = found["values"].astype(np.float32) * found["scale"][..., None, None]
    assert values.shape == (2, 2, 4, 3, 4)
    expected = np.array([[[0, 0, 1, 1], [0, 0, 1, 1]], [[1, 1, 1, 1], [0, 0, 0, 0]]], bool)
    np.testing.assert_array_equal(~np.isnan(values).any((3, 4)), expected)
