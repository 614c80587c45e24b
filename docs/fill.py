"""Write what the demo found into docs/demo, docs/trade-off.svg and README.md: run by ``make docs-numbers``."""

import json
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from excise.artefacts import read_arrays, read_json
from excise.reporting.confidence import confidence
from excise.reporting.summary import read_summary
from excise.reporting.words import against_other_methods, answer
from excise.selection import lowest, most_relevant
from excise.stages.show import table

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
BLOCK = re.compile(r"(?<=<!-- make docs-numbers -->\n).*?(?=<!-- end -->)", re.DOTALL)


def protect(run: Path, config: dict[str, Any]) -> str:
    """How the contrast alone and the protection meet, in a sentence."""
    chosen = config["variants"]["lrp"]
    name = f"neuron/lrp/contrast/{chosen['retain']}/{chosen['target']}.safetensors"
    arrays = read_arrays(run / "scores" / name)[1]
    general, count = arrays["retain"], chosen["count"][0]
    inside = int(most_relevant(general, chosen["protect"]).ravel()[lowest(arrays["difference"], count)].sum())
    ratio = float(np.abs(general).max() / np.median(np.abs(general)))
    return (
        f"In the demo the largest absolute general relevance of a neuron is {ratio:,.0f} times the median. Of the "
        f"{count} neurons with the most negative difference {inside} are among the {chosen['protect']:.0%} that are "
        "protected."
    )


def processor() -> str:
    """What the run's digits depend on: the processor, and the instructions that PyTorch uses of it."""
    facts = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", facts.read_text(), re.MULTILINE) if facts.is_file() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"made on {name} ({torch.backends.cpu.get_cpu_capability()}); another processor gives other digits"


def main(run: Path) -> None:
    """Read a finished run of the demo.

    Args:
        run: its folder, ``results/demo/MODEL``.
    """
    summary = read_summary(run / "summary.json")
    config = read_json(run.parent / "settings.json")
    selection = read_json(run / "units" / f"{config['export']}.json")
    selection["meta"] = {key: selection["meta"][key] for key in ("method", "model")}
    del selection["rows"][2:]
    files = {
        "table.txt": f"{table(summary)}\n\n{processor()}",
        "answer.txt": " ".join(filter(None, (answer(summary), against_other_methods(summary)))),
        "confidence.txt": "\n".join(f"- {sentence}" for sentence in confidence(summary, config)),
        "protect.txt": protect(run, config),
        "units.json": json.dumps(selection, indent=1, ensure_ascii=False),
    }
    for name, text in files.items():
        lines = (line.rstrip() for line in text.splitlines())
        (DOCS / "demo" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copyfile(run / "trade-off.svg", DOCS / "trade-off.svg")
    block = f"```\n{(DOCS / 'demo/table.txt').read_text(encoding='utf-8')}```\n"
    text, found = BLOCK.subn(lambda _: block, README.read_text(encoding="utf-8"))
    if found != 1:
        sys.exit("README.md: expected one block between <!-- make docs-numbers --> and <!-- end -->")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).parent)
