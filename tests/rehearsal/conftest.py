from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rehearsal.rehearser import Rehearser


@pytest.fixture(scope="session")
def rehearser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearser]:
    found = Rehearser(tmp_path_factory.mktemp("home"))
    yield found
    found.close()
