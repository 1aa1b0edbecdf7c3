"""The page "Troubleshooting" quotes every line that surgetank logs, and none that it does not."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SOURCE = ROOT / "src" / "surgetank"

_QUOTED = re.compile(r"^`([^`]+)`\n:   ", re.MULTILINE)
_LEVELS = ("info", "warning", "error", "exception", "log")


def template(node):
    """Return a string's text with `…` in the place of what is filled in; None for what is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = re.sub(r"%[-#0-9.]*[sdrf]", "…", node.value)
    elif isinstance(node, ast.JoinedStr):
        text = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    else:
        return None
    return re.sub("…+", "…", text)


def lines_of(path):
    """Return what a module logs from level INFO up."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {
        target.id: template(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and is_log(node.func):
            # What comes before it names the variable.
            arguments = node.args[-len(node.args) + 2 :] if "say_once" in ast.unparse(node.func) else node.args
            told = [template(each) or (isinstance(each, ast.Name) and named.get(each.id)) for each in arguments]
            yield from [line for line in told if line][:1]


def is_log(function):
    """Whether calling it logs something."""
    name = getattr(function, "attr", getattr(function, "id", ""))
    if name in ("say", "say_once"):
        return True
    return name in _LEVELS and (isinstance(function, ast.Attribute) and "ogger" in ast.unparse(function.value))


def logged():
    """Return every line of the package's, but for those of the fakes for tests."""
    modules = [path for path in SOURCE.rglob("*.py") if "testing" not in path.parts]
    return {line for path in modules for line in lines_of(path)}


def test_every_quoted_line_is_logged():
    """Word for word, with `…` for what is filled in."""
    quoted = _QUOTED.findall(PAGE)

    assert len(quoted) > 25
    assert sorted(set(quoted) - logged()) == []


def test_every_logged_line_is_quoted():
    """So that whoever sees one finds what to do."""
    assert sorted(logged() - set(_QUOTED.findall(PAGE))) == []
