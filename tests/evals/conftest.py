from __future__ import annotations

import pytest

from tests.in_process import InProcess


@pytest.fixture
def runner() -> InProcess:
    return InProcess()
