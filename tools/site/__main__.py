"""Build the site, then check it. Exit status 1, and a line for each problem, if anything is wrong."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.site.build import build

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder of the site (default: site)")
    out = parser.parse_args().out.resolve()
    problems = build(ROOT, out)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(problems)} problems" if problems else f"The site is {out / 'index.html'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
