"""A study made up for the viewer, shared by its tests."""

from pathlib import Path

import pytest

from .stores import write_study


@pytest.fixture(scope="session")
def study(shared_folder) -> Path:
    """A finished study of 30 images, three of them with names that a page must escape."""
    return shared_folder("view-study", write_study)
