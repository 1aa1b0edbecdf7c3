"""The blocks of code in the documents, as their readers find them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Whose blocks other tests run: word for word, around an outage.
ELSEWHERE = {"docs/frameworks": "tests/frameworks", "docs/zero-code.md": "tests/doors"}

_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>python|sh)\n(?P<code>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    page: str
    number: int
    language: str
    code: str
    reason: str | None
    """Why it is not run; None for one that is."""

    @property
    def file(self):
        """The name of the file that it says it is, such as `shop.py`; None without one."""
        found = re.match(r"# (\w+\.py)\n", self.code)
        return found and found[1]

    def __str__(self):
        return f"{self.page}-{self.number}"


def pages():
    """Return every page by its path from the root, but for those whose blocks are run elsewhere."""
    found = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    names = [path.relative_to(ROOT).as_posix() for path in found]
    return [name for name in names if not name.startswith(tuple(ELSEWHERE))]


def blocks(page):
    """Return a page's blocks of Python and shell."""
    found = _BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
    return [
        Block(page, number, match["language"], match["code"], match["reason"]) for number, match in enumerate(found)
    ]
