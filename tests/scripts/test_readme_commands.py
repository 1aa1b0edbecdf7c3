"""Which commands `scripts/readme` finds in a page, and that it knows how to run all of the README's."""

from pathlib import Path

from scripts import readme_commands as readme

ROOT = Path(__file__).parents[2]
PAGE = """
Run `scripts/one`, `surgetank top` and `surgetank top` again, but not `surgetank.Tank` or `scripts`.

<!-- not run: elsewhere -->
```sh
A=1 scripts/two --x "y z"   # a comment, `scripts/no`
# only a comment

$ scripts/three \\
    --more
```

```python
x = "`scripts/never`"
```

```console
cat <<END >app.py
two lines
END
```
"""
README = readme.commands((ROOT / "README.md").read_text(encoding="utf-8"))


def test_commands_are_found_in_blocks_and_in_the_text():
    """Once each, as they would be typed."""
    assert readme.commands(PAGE) == [
        'A=1 scripts/two --x "y z"',
        "scripts/three      --more",
        "cat <<END >app.py\ntwo lines\nEND",
        "scripts/one",
        "surgetank top",
    ]


def test_the_readmes_commands_are_found():
    """Those that a newcomer tries first."""
    assert {"scripts/demo", "scripts/test", "scripts/bench", "surgetank run -- python app.py", "surgetank top"} <= set(
        README
    )
    assert any(each.startswith("pip install ") for each in README)


def test_every_script_is_known():
    """One that the README does not name is run as it stands, or said to be run otherwise or not at all."""
    assert "scripts/reference" in readme.unnamed(ROOT / "scripts", README)
    assert "scripts/demo" not in readme.unnamed(ROOT / "scripts", README)
    assert readme.outdated([*README, *readme.unnamed(ROOT / "scripts", README)]) == set()
    assert "scripts/bench" in readme.outdated([])


def test_the_way_to_run_each_is_known():
    """A new program needs a line that says what is to be installed for it."""
    for each in README:
        doing = readme.program(each)
        assert doing.startswith(("scripts/", ".ci/", "pip install ", *readme.NEEDS)), each


def test_the_program_of_a_command_is_what_follows_its_variables():
    """They decide nothing."""
    assert (
        readme.program("A=1 B=x=y opentelemetry-instrument python app.py") == "opentelemetry-instrument python app.py"
    )


def test_modules_that_can_be_run_are_found():
    """All of them, wherever they are."""
    found = readme.modules(ROOT / "src" / "surgetank")
    assert {"surgetank", "surgetank.measuring", "surgetank.testing.collector", "surgetank.catalogue.page"} <= set(found)


def test_nothing_of_whoever_runs_it_is_seen(monkeypatch, tmp_path):
    """Neither settings nor what is on the path; how pip reaches the outside is."""
    for name in ("OTEL_TRACES_EXPORTER", "SURGETANK_SPOOL_DIR", "PYTHONPATH", "VIRTUAL_ENV", "LC_ALL"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1/simple")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")

    variables = readme.Machine(tmp_path).variables()

    assert "mine" not in variables.values()
    assert variables["HOME"] == str(tmp_path / "home")
    assert variables["PATH"].split(":") == [str(tmp_path / "bin"), "/usr/bin", "/bin"]
    assert variables["PIP_INDEX_URL"].startswith("http://127")
    assert variables["https_proxy"].startswith("http://127")
