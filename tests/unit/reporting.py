"""Makes worlds of generations with a known effect, through the real evaluate stage, for the tests of the reporting."""

import json
import math
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from excise.artefacts import Json, sha256_file, write_json, write_jsonl
from excise.cli import main

PROMPTS, DRAWS, LAYERS, WIDTH = 120, 2, 12, 500
BASE, SECOND = "alt-profanity-check", "hf:roberta_toxicity"
SHARE, OTHER, PERPLEXITY = "toxicity.share", f"toxicity[{SECOND}].share", "wikipedia.perplexity"
MODEL = {"id": "tiny/llama", "revision": None, "fingerprint": "ab" * 32, "dtype": "float32"}
CATEGORIES = ("identity attack", "insult", "threat")
SETTINGS = {
    "experiment": "made up",
    "seeds": [0, 1, 2],
    "prompts": {"label": "RealToxicityPrompts", "attribution_fraction": 0.5},
    "generations": {"num_generations": 2, "scorer": BASE},
    "evaluation": {"num_generations": DRAWS, "scorers": [BASE, SECOND]},
}


@dataclass
class Made:
    """A variant and what shall be true of it."""

    name: str
    method: str = ""
    selection: str = ""
    neurons: int = 0
    effect: float = 0.0  # relative change of every prompt's toxic rate
    perplexity: float = 16.7
    fluency: float = 9.0
    repeat: bool = False  # continuations repeat one token
    layer: int = 0  # where most of the neurons sit


WORLD = [
    Made("baseline"),
    Made("lrp-30", "lrp", "lrp", 30, -0.3, 16.9, layer=4),
    Made("lrp-100", "lrp", "lrp", 100, -0.65, 17.2, layer=5),
    Made("lrp-300", "lrp", "lrp", 300, -0.8, 18.2, layer=6),
    Made("lrp-plain-100", "lrp", "lrp-plain", 100, -0.97, 138.9, 60.0, layer=11),
    Made("wanda-100", "wanda", "wanda", 100, -0.25, 17.0, layer=2),
    Made("loop-100", "gradient", "loop", 100, -1.0, 17.1, 2.0, repeat=True, layer=9),
    Made("magnitude-100", "magnitude", "magnitude", 100, 0.0, 17.3, layer=7),
    Made("random-repeat0-100", "random", "random", 100, 0.0, 16.8),
    Made("random-repeat1-100", "random", "random", 100, 0.02, 17.5),
]


def selection(made: Made, path: Path) -> None:
    generator = np.random.default_rng(sum(map(ord, made.name)))
    wide = generator.choice(LAYERS * WIDTH, made.neurons, replace=False)
    near = made.layer * WIDTH + generator.choice(WIDTH, made.neurons, replace=False) if made.layer else wide
    control = made.method in ("random", "magnitude")
    body = {
        "name": made.selection,
        "method": made.method,
        "control": control,
        "unit": "neuron",
        "ablation": "zero",
        "scale": 0.0,
        "layers": LAYERS,
        "units_per_layer": WIDTH,
        "stability": {}
        if control
        else {"seeds": 3, "jaccard_between_seeds": [0.6, 0.55, 0.7], "jaccard_with_mean": [0.8, 0.75, 0.82]},
        "rows": [
            {
                "layer": int(i) // WIDTH,
                "neuron": int(i) % WIDTH,
                "rank": rank,
                "score": None if control else -1.0 / rank,
                "retain": None,
                "target": None,
            }
            for rank, i in enumerate(near, 1)
        ],
    }
    write_json(path, {"model": MODEL, "settings": {}, "versions": {}}, body)


def make_variant(
    folder: Path,
    made: Made,
    *,
    prompts: int = PROMPTS,
    scorers: tuple[str, ...] = (BASE, SECOND),
    words: tuple[str, ...] = (),
) -> Path:
    """Write everything of a variant and evaluate it; returns its folder."""
    latent = np.random.default_rng(42)
    rates = latent.beta(0.6, 1.8, prompts)
    generator = np.random.default_rng([7, *map(ord, made.name)])
    here = folder / "variants" / made.name
    chosen: Json | None = None
    if made.method:
        path = folder / "units" / f"{made.name}.json"
        selection(made, path)
        chosen = {"name": made.selection, "neurons": made.neurons, "scale": 0.0, "sha256": sha256_file(path)}
    facts = {"model": MODEL, "selection": chosen, "versions": {"torch": "2.13.0"}}
    rows, scores, likelihoods = [], {scorer: [] for scorer in scorers}, []
    for index in range(prompts):
        for draw in range(DRAWS):
            ids = [5] * 20 if made.repeat else generator.choice(900, 20).tolist()
            toxic = generator.random() < rates[index] * (1 + made.effect)
            word = "<b>darn</b> & 'heck'" if toxic else "a kind word"
            key = {"id": f"p{index:03}", "draw": draw}
            rows.append(
                {
                    **key,
                    "prompt": f"Prompt number {index} <script>alert(1)</script>",
                    "prompt_ids": [1, 2],
                    "completion": f" said {word} {draw}",
                    "completion_ids": ids,
                    "category": CATEGORIES[index % 3],
                }
            )
            likelihoods.append({**key, "nll": 20 * math.log(made.fluency), "tokens": 20})
            for number, scorer in enumerate(scorers):
                noise = generator.beta(2, 6) / 2
                flipped = toxic if generator.random() > 0.1 * number else not toxic
                scores[scorer].append({**key, "score": 1 - noise if flipped else noise})
    write_jsonl(here / "generations.jsonl", {**facts, "settings": {"seed": 0, "num_generations": DRAWS}}, rows)
    source = {"settings": {"generations": sha256_file(here / "generations.jsonl")}}
    for number, scorer in enumerate(scorers):
        meta = {**facts, **source, "scorer": {"name": scorer}}
        write_jsonl(here / f"scores-{number}.jsonl", meta, scores[scorer])
    write_jsonl(here / "fluency.jsonl", {**facts, **source}, likelihoods)
    text = {"tokens": 6132, "windows": 12, "protocol": "windows-512x12"}
    text |= {"name": "wikipedia", "text": "Wikipedia articles"}
    noise = generator.normal(0, 5, 12)
    by_window = {"nll": (511 * math.log(made.perplexity) + noise - noise.mean()).tolist(), "tokens": [511] * 12}
    body = {"perplexity": made.perplexity, "nll": math.log(made.perplexity), **text, "by_window": by_window}
    write_json(here / "perplexity.json", facts, body)
    command = ["evaluate", "--variant", made.name, "--generations", str(here / "generations.jsonl"), "--scores"]
    command += [str(here / f"scores-{number}.jsonl") for number in range(len(scorers))]
    command += ["--perplexity", str(here / "perplexity.json"), "--fluency", str(here / "fluency.jsonl")]
    command += ["--units", str(folder / "units" / f"{made.name}.json")] if made.method else []
    assert main([*command, *words, "--output", str(here / "measurements.json")]) == 0
    return here


def make_world(folder: Path, world: list[Made] = WORLD, **options: object) -> Path:
    for made in world:
        make_variant(folder, made, **options)  # type: ignore[arg-type]
    (folder / "settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    write_json(folder / "model.json", {}, {"architecture": "llama", "layers": LAYERS, "neurons_per_layer": WIDTH})
    for step, variant, seconds, memory in (
        ("generate", "baseline", 61.2, 1500),
        ("score", "baseline-0", 2.5, 90),
    ):
        path = folder / "logs" / step / f"{variant}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"12:00:00 excise {step}: took {seconds} s and at most {memory} MB\n", encoding="utf-8")
    return folder


def summary_command(folder: Path, world: list[Made] = WORLD, *more: str) -> list[str]:
    return [
        "summary",
        *(str(folder / "variants" / made.name / "measurements.json") for made in world),
        *("--resamples", "1000", "--csv", str(folder / "summary.csv"), "--json", str(folder / "summary.json")),
        *more,
    ]


def report_command(folder: Path, world: list[Made] = WORLD, *more: str) -> list[str]:
    names = [made.name for made in world]
    return [
        *("report", "--summary", str(folder / "summary.json"), "--settings", str(folder / "settings.json")),
        "--measurements",
        *(str(folder / "variants" / name / "measurements.json") for name in names),
        "--units",
        *(str(folder / "units" / f"{name}.json") for name in names[1:]),
        "--generations",
        *(str(folder / "variants" / name / "generations.jsonl") for name in names),
        "--scores",
        *(str(folder / "variants" / name / "scores-0.jsonl") for name in names),
        *("--timings", str(folder / "logs"), "--model", str(folder / "model.json")),
        *("--data", str(folder / "report-data"), "--picture", str(folder / "trade-off.svg")),
        *("--output", str(folder / "report.html"), *more),
    ]


class Page(HTMLParser):
    """Collects what a report consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text: list[tuple[str, bool]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append((data, "details" in self.open))
