"""The atlas and a few phantom heads, shared by the training tests."""

import pytest
import torch

from training.cli import cache_dir
from training.phantom.atlas_in import Atlas, load_atlas
from training.recipe import SliceSet
from training.slices_out import SliceTable, draw_slices

SMALL = SliceSet(first_seed=5_000_000, heads=4, slices_per_head=4, lesion_share=0.75, difficulty=(0.0, 0.4))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Training promises to need one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def atlas() -> Atlas:
    """Built once a machine (ten seconds), kept in the user's cache."""
    return load_atlas(cache_dir())


@pytest.fixture(scope="session")
def small_table(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> SliceTable:
    """Sixteen slices of four heads, drawn now."""
    return draw_slices(SMALL, atlas, tmp_path_factory.mktemp("slices"))
