"""A stage for each test."""

import pytest

from frameworks.stage import Stage
from servers.grpc_collector import GrpcCollector


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def grpc_stage(tmp_path):
    """The same, with gRPC between application and collector."""
    stage = Stage(tmp_path, GrpcCollector())
    yield stage
    stage.close()
