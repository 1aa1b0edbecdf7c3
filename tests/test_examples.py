"""What the documents show runs: each block of Python, and the shell's lines of a page from top to bottom."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from examples import ELSEWHERE, ROOT, blocks, pages
from surgetank.spool.encryption import Cipher
from surgetank.testing.collector import Collector

ALL = [block for page in pages() for block in blocks(page)]
PYTHON = [block for block in ALL if block.language == "python" and block.reason is None]
SHELL = sorted({block.page for block in ALL if block.language == "sh" and block.reason is None})

# What a probe asks an application of the page "Health", once while its tank lives and once when it was shut down.
PROBES = {
    "fastapi": """
import asyncio
def ask():
    said = []
    async def receive(): return {"type": "http.request"}
    async def send(message): said.append(message)
    scope = {"type": "http", "method": "GET", "path": "/ready", "raw_path": b"/ready", "query_string": b"", "headers": [],
             "http_version": "1.1", "scheme": "http", "root_path": "", "client": None, "server": None}
    asyncio.run(app(scope, receive, send))
    return said[0]["status"]
""",
    "flask": """
def ask(): return app.test_client().get("/ready").status_code
""",
    "django": """
import django
from django.conf import settings
settings.configure(ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], SECRET_KEY="tests")
django.setup()
from django.test import Client
def ask(): return Client().get("/ready").status_code
""",
}
_TWICE = """
assert ask() == 200
tank.shutdown()
assert ask() == 503
"""


def variables(folder, endpoint):
    """Return an environment in which nothing is left behind but in the folder."""
    ours = ("OTEL_", "SURGETANK_")
    others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **others,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SURGETANK_STATUS_DIR": str(folder / "status"),
        "XDG_STATE_HOME": str(folder / "state"),
    }


def run(arguments, folder, endpoint):
    """Run a program in the folder; returns what it said."""
    environment = variables(folder, endpoint)
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_block_of_python_runs(block, tmp_path):
    """Each in a process of its own, against a collector; what is a web application is asked too."""
    probes = [probe for name, probe in PROBES.items() if f"from {name}" in block.code]
    if probes:
        pytest.importorskip(next(name for name in PROBES if f"from {name}" in block.code))
    with Collector() as collector:
        code = block.code.replace("http://localhost:4318", collector.endpoint)
        (tmp_path / "example.py").write_text(code + "".join(probe + _TWICE for probe in probes))
        run([sys.executable, "example.py"], tmp_path, collector.endpoint)


@pytest.mark.slow
@pytest.mark.parametrize("page", SHELL)
def test_a_pages_shell_lines_run(page, tmp_path):
    """From top to bottom in one shell, with the files that the page shows, on a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shown = blocks(page)
    for block in shown:
        if block.file:
            (tmp_path / block.file).write_text(block.code)
    lines = "".join(block.code for block in shown if block.language == "sh" and block.reason is None)
    said = run(["sh", "-eu", "-c", lines.replace("4318", port)], tmp_path, f"http://127.0.0.1:{port}")

    if page == "docs/start.md":
        # What the dead process had left, and that nothing of it is left now.
        assert re.search(r"dead\s+spans\s+normal\s+\d+\s+\d+\s+1,000", said)
        assert re.search(r"spans\s+1,000\s+1,000\s+0\s+0\s+0", said)
    if page == "docs/operations.md":
        Cipher((tmp_path / "surgetank.keys").read_text())


def test_there_are_examples():
    """Or the tests above would say nothing."""
    assert {"README.md", "docs/start.md", "docs/metrics.md", "docs/health.md"} <= {block.page for block in PYTHON}
    assert sum(any(f"from {name}" in block.code for name in PROBES) for block in PYTHON) == len(PROBES)
    assert {"docs/start.md", "docs/operations.md"} <= set(SHELL)


def test_what_is_run_elsewhere_is_there():
    """Pages and tests."""
    for page, tests in ELSEWHERE.items():
        assert (ROOT / page).exists()
        assert (ROOT / tests).is_dir()
