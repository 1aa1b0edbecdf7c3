"""FastAPI under uvicorn, as its page says: SIGTERM to the supervisor in the middle of an outage."""

import pytest

from frameworks.stage import application

pytestmark = pytest.mark.slow


def test_fastapi_under_uvicorn_loses_nothing_to_a_sigterm_in_an_outage(stage):
    """Two processes that uvicorn starts anew, and ends by a signal that it has them send themselves again."""
    around = """
        @app.get("/work/{n}")
        async def answer(n: int):
            work(n)
            return "done"
    """
    stage.write("app.py", application("fastapi", around))
    stage.start("-m", "uvicorn", "app:app", "--port", str(stage.port), "--workers", "2", "--no-access-log")

    assert stage.through_an_outage() == 0

    stage.drain()
    stage.all_arrived(200)
