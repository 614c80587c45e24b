"""Do methods of edge scores keep their order when the pairs are drawn again? Areas over several draws, with intervals.

    python -m benchmarks.draws --model MODEL --task ioi --folder DRAWS

For each seed pairs are made, a half finds and the other judges; each method scores the edges of the first and is judged
on the second (files that are there already are kept). Printed: CMD (0 is best) and CPR of each draw, their means, and
the difference of the mean from the first method's, with a 95 % interval from resampling the judging pairs within each
draw. METHOD:STEPS sets the steps of a method.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from excise.artefacts import read_json
from excise.circuits.faithfulness import RESAMPLES, areas, faithfulness, interval

SHOWN = (("cmd", "absolute", 3), ("cmd_log", "absolute", 3), ("cpr", "signed", 2))
"""Areas, of which ranking, and their decimals."""


def excise(*arguments: object) -> None:
    """Run a command of excise."""
    subprocess.run([Path(sys.executable).with_name("excise"), *map(str, arguments)], check=True)


def made(model: Path, task: str, pairs: int, seed: int, method: str, folder: Path) -> Path:
    """The curve of a method on one draw of pairs."""
    draw = folder / str(seed)
    draw.mkdir(parents=True, exist_ok=True)
    find, judge = draw / "find.jsonl", draw / "judge.jsonl"
    if not judge.exists():
        one = ("--model", model, "--task", task, "--pairs", pairs, "--seed", seed)
        excise("pairs", *one, "--find", find, "--judge", judge)
    name, _, steps = method.partition(":")
    scores, curve = draw / f"{method.replace(':', '-')}.safetensors", draw / f"{method.replace(':', '-')}.json"
    if not curve.exists():
        more = ("--steps", steps) if steps else ()
        excise("edges", "--method", name, "--model", model, "--pairs", find, *more, "--output", scores)
        excise("faithfulness", "--model", model, "--pairs", judge, "--edges", scores, "--output", curve)
    return curve


def resampled(path: Path, generator: np.random.Generator) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Each area of a curve, and in resamples of its pairs."""
    body = read_json(path)
    values = body["values"]
    full, empty = np.array(values["full"]), np.array(values["empty"])
    draws = generator.integers(full.size, size=(RESAMPLES, full.size))
    found = {}
    for area, rank, _ in SHOWN:
        rows = np.array(values[rank])
        one = areas(body["fractions"], faithfulness(rows, full, empty))[area]
        many = areas(body["fractions"], faithfulness(rows[:, draws], full[draws], empty[draws]).T)[area]
        found[area] = float(one), many
    return found


def main() -> None:
    """Make what is missing, and print a row per method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--task", default="ioi")
    parser.add_argument("--pairs", type=int, default=16, help="in each half")
    parser.add_argument("--methods", nargs="+", default=["eap-ig", "relp-ig", "relp-ig:3", "relp-qk"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, required=True, help="where pairs, scores and curves are kept")
    arguments = parser.parse_args()
    found = {}
    for method in arguments.methods:
        for seed in arguments.seeds:
            path = made(arguments.model, arguments.task, arguments.pairs, seed, method, arguments.folder)
            found[method, seed] = resampled(path, np.random.default_rng([0, seed]))  # the same pairs for all methods
    first = arguments.methods[0]
    columns = [f"{area} {what}" for area, _, _ in SHOWN for what in ("of each draw", "mean", f"minus {first}'s")]
    print(f"| {arguments.task} | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    for method in arguments.methods:
        cells = [method]
        for area, _, digits in SHOWN:
            ours, base = ([found[one, seed][area] for seed in arguments.seeds] for one in (method, first))
            mean = float(np.mean([value for value, _ in ours]))
            apart = np.mean([mine - its for (_, mine), (_, its) in zip(ours, base, strict=True)], axis=0)
            low, high = interval(apart)
            moved = mean - float(np.mean([value for value, _ in base]))
            cells += [" ".join(f"{value:.{digits}f}" for value, _ in ours), f"{mean:.{digits}f}"]
            cells.append("" if method == first else f"{moved:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
