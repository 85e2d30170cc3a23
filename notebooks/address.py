"""Writes where the project is on the internet: into settings and badges alike, or out of both.

    make notebooks REPOSITORY=https://github.com/someone/image2cad TAG=v0.2.0
    make notebooks REPOSITORY= TAG=

The settings are REPOSITORY and TAG of the scripts that fetch the project; badges stand behind the
marks `<!-- colab: NOTEBOOK -->`, if the address is one of GitHub, from which Colab opens notebooks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"(<!-- colab: (\w+) -->).*")
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
COLAB = "https://colab.research.google.com/github"
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def main(address: str, tag: str) -> int:
    """Write both into every script and page of the checkout that has a place for them."""
    if re.search(r"[\s\"\\]", address + tag):
        print("error: an address or tag with spaces, quotes or backslashes", file=sys.stderr)
        return 2
    owner = GITHUB.fullmatch(address)
    start = f"{COLAB}/{owner[1]}/blob/{tag or 'main'}/notebooks" if owner else ""

    def badge(mark: re.Match[str]) -> str:
        if not start:
            return mark[1]
        return f"{mark[1]} [![Open in Colab]({BADGE})]({start}/{mark[2]}.ipynb)"

    for file in [*ROOT.glob("*.py"), ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = file.read_text(encoding="utf-8")
        new = MARK.sub(badge, text)
        for name, value in (("REPOSITORY", address), ("TAG", tag)):
            new = re.sub(rf'^({name} = )"[^"]*"', rf'\g<1>"{value}"', new, flags=re.MULTILINE)
        if new != text:
            file.write_text(new, encoding="utf-8")
            print(f"written: {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
