"""Fixtures of all tests: one thread for torch, the folder of shared models and pictures."""

import importlib.util
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure():
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared():
    """The folder with trained models and real pictures beside the repository."""
    if not (SHARED / "models" / "manifest.json").is_file():
        pytest.skip("the folder of shared models is not there")
    return SHARED
