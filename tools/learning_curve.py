"""Draw the learning curve of docs/results.md from the included runs, with its alt text.

Run:  make figure   (after `make reference-runs`)
"""

from __future__ import annotations

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from readme_results import RESULTS, put

from rlvr_utils import REPO, plots
from rlvr_utils.analysis import evaluation_responses, learning_curve
from rlvr_utils.experiment import finished_runs

PICTURE = REPO / "docs" / "learning_curve.svg"
RATES = ((None, "strict accuracy"), ("boxed", "accuracy among boxed responses"))


def curves() -> dict:
    """Return the curve of each rate over the training steps, with 95 % intervals over problems and seeds."""
    responses = evaluation_responses(finished_runs("mini-seed-"))
    found = {"boxed rate": learning_curve(responses, "boxed")}
    return found | {label: learning_curve(responses, "correct", given) for given, label in RATES}


def draw(found: dict, n_runs: int) -> None:
    """Draw one line per rate, each with its own marker and dash pattern."""
    plots.style()
    matplotlib.rcParams["svg.hashsalt"] = "learning curve"  # the same data give the same file
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    plots.draw_curves(
        axes, found, xlabel=f"training step ({n_runs} seeds, 95 % intervals)", ylabel="share of responses", ylim=(0, 1.02)
    )
    axes.legend(loc="lower right")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


def block(found: dict) -> str:
    """Return the figure as Markdown, with its numbers in the alt text."""
    told = ", ".join(
        f"{label} from {table['mean'].iloc[0]:.0%} to {table['mean'].iloc[-1]:.0%}" for label, table in found.items()
    )
    steps = int(next(iter(found.values()))["step"].iloc[-1])
    alt = f"Learning curve over {steps} training steps on test problems: {told}."
    return f"![{alt}]({PICTURE.name})"


if __name__ == "__main__":
    found = curves()
    draw(found, len(finished_runs("mini-seed-")))
    RESULTS.write_text(put(RESULTS.read_text(encoding="utf-8"), "figure", block(found)), encoding="utf-8")
