"""What the site shows and `docs/` does not hold: the architecture, the changelog, and a list of the decisions.

Owns: no state. Threads: one. Invariants: a link that works between the files works on the site; nothing is written into `docs/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parents[1]
# Files at the root of the repository that are pages of the site.
AT_ROOT: Final = {"ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md"}
DECISIONS: Final = """# Decisions

What was considered, what was chosen, and what follows from it. One page for each, in the order in which they were taken; a decision that was
overtaken says by which.

"""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made of files elsewhere."""
    for name, page in AT_ROOT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"\]\(docs/", "](", text)))
    files.append(File.generated(config, "decisions/index.md", content=DECISIONS + decisions()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Have links between files lead to the pages that are made of them."""
    for name, page in AT_ROOT.items():
        markdown = re.sub(rf"\]\((?:\.\./)+{re.escape(name)}", f"]({page}", markdown)
    return re.sub(r"\]\(((?:\.\./)?)decisions/\)", r"](\1decisions/index.md)", markdown)


def decisions() -> str:
    """Return a list of the decisions, by their headings."""
    found = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        number, title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").split(". ", 1)
        found.append(f"{number}. [{title}]({path.name})")
    return "\n".join(found) + "\n"
