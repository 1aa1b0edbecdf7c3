"""FastAPI under uvicorn, as its page says: SIGTERM to the supervisor in the middle of an outage."""

import re
import textwrap

import pytest

from frameworks.stage import PAGES, WORK, application

pytestmark = pytest.mark.slow

AROUND = """
    @app.get("/work/{n}")
    async def answer(n: int):
        work(n)
        return "done"
"""


def test_fastapi_under_uvicorn_loses_nothing_to_a_sigterm_in_an_outage(stage):
    """Two processes that uvicorn starts anew, and ends by a signal that it has them send themselves again."""
    stage.write("app.py", application("fastapi", AROUND))
    stage.start("-m", "uvicorn", "app:app", "--port", str(stage.port), "--workers", "2", "--no-access-log")

    assert stage.through_an_outage() == 0

    stage.drain()
    stage.all_arrived(200)


def test_without_lifespan_the_tank_must_be_there_before_uvicorn(stage):
    """Then the handler that uvicorn puts back is ours, in each of its workers."""
    (command,) = re.findall(r"`surgetank run -- (uvicorn .*?)`", (PAGES / "fastapi.md").read_text())
    stage.write("app.py", "from fastapi import FastAPI\napp = FastAPI()\n" + WORK + textwrap.dedent(AROUND))
    program = "from surgetank.cli import main; main()"
    stage.start("-c", program, "run", "--", *command.split(), "--port", str(stage.port), "--no-access-log")

    assert stage.through_an_outage() == 0

    stage.drain()
    stage.all_arrived(200)
