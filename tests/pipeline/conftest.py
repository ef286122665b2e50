"""The tiny data set, stored once for all tests."""

from pathlib import Path

import pytest

from pipeline.machine import Machine
from pipeline.preparing import open_source
from tests.pipeline.cases import prepare, settings


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `prepare` leaves it, with 60 small made scenes named `tiny`."""
    folder, config = tmp_path_factory.mktemp("prepared"), settings()
    prepare(folder, open_source("tiny", config, Machine()), config)
    return folder
