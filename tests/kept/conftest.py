"""Each kept folder is analysed once, for all tests of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.kept.found import Found, analyse

Analysed = Callable[[str], Found]


@pytest.fixture(scope="session")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Analysed:
    scratch = tmp_path_factory.mktemp("kept")
    return cache(lambda name: analyse(name, scratch))
