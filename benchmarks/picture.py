"""The picture of the README: what a step costs by the weights left, from `results/step.json`.

python -m benchmarks.picture
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.common import RESULTS, console

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "step.png"


def main() -> None:
    """Draw `docs/images/step.png`."""
    result = json.loads((RESULTS / "step.json").read_text(encoding="utf-8"))["mlp"]
    left = [100 * row["density"] for row in result["rows"]]
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    sides = {"plain loop": "#b0413e", "fused loop": "#d98c5f", "sparse": "#1f6f8b"}
    names = {"plain loop": "PyTorch loop, Adam, masks", "fused loop": "the same, fused Adam", "sparse": "tombola"}
    for name, colour in sides.items():
        times = [row["ms"][name] for row in result["rows"]]
        axes.plot(left, times, "o-", color=colour, markersize=4)
        axes.annotate(
            names[name], (left[-1], times[-1]), xytext=(8, 0), textcoords="offset points", va="center", color=colour
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(130, left[-1] / 9)
    axes.set_xticks([100, 50, 20, 10, 5, 2, 1], [f"{tick}%" for tick in (100, 50, 20, 10, 5, 2, 1)])
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5], ["0.05", "0.1", "0.2", "0.5", "1", "2", "5"])
    axes.minorticks_off()
    axes.set_xlabel("weights left")
    axes.set_ylabel("ms per training step, one core")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    processor = result["machine"]["processor"]
    axes.set_title(f"LeNet-300-100 on MNIST, batches of 60 ({processor})", fontsize=9, loc="left")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=150)
    console.print(f"Drawn: {PICTURE}")


if __name__ == "__main__":
    main()
