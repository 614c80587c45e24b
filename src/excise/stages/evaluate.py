"""Sum up what was measured of one variant: the behaviour, degeneration, perplexity, capability.

Checks that all files are about the same generations. A continuation shows the behaviour when its score is at or
above the threshold. Two scorers never share a figure.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.artefacts import Json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.evaluation import Evaluation
    from excise.config.generations import Behaviour
    from excise.config.options import add_options

    parser.add_argument("--variant", required=True, help="what to call the variant in tables")
    parser.add_argument("--generations", type=Path, required=True, help="generations, JSONL")
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="scores, JSONL, one file a scorer")
    parser.add_argument("--perplexity", type=Path, required=True, help="perplexity, JSON")
    parser.add_argument("--fluency", type=Path, required=True, help="fluency of the generations, JSONL")
    parser.add_argument("--capability", type=Path, help="what it can do, JSON of excise capability (default: not said)")
    parser.add_argument("--selection", type=Path, help="check that this unit list made the generations (default: no)")
    add_options(parser, Evaluation, only=["threshold"])
    add_options(parser, Behaviour)
    parser.add_argument("--output", type=Path, required=True, help="evaluation, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, check, sum up, write."""
    import math

    from excise.artefacts import read_json, read_jsonl, sha256_file, write_json
    from excise.errors import ExciseError
    from excise.evaluation.behaviour import overall, prompt_summary, split
    from excise.evaluation.degeneration import degeneration
    from excise.provenance import provenance

    generated, rows = read_jsonl(arguments.generations, ("id", "draw", "completion", "completion_ids"))
    source = sha256_file(arguments.generations)
    groups = _by_prompt(rows, arguments.generations)
    made_with = generated.get("selection")
    if arguments.selection and (made_with or {}).get("sha256") != sha256_file(arguments.selection):
        raise ExciseError(f"{arguments.generations}: not made with {arguments.selection}")

    results: Json = {}
    scorers: Json = {}
    prompts: list[Json] = [
        {key: rows[group[0]][key] for key in ("id", "category", "toxicity") if key in rows[group[0]]}
        for group in groups
    ]
    for path in arguments.scores:
        meta, scores = read_jsonl(path, ("id", "draw"), numbers=("score",))
        _check_same(rows, scores, meta, source, path)
        facts = meta.get("scorer", {"name": path.stem})
        if facts["name"] in results:
            raise ExciseError(f"{path}: a second file of scorer {facts['name']!r}; their scores cannot share a column")
        summaries = [prompt_summary([scores[i]["score"] for i in group], arguments.threshold) for group in groups]
        results[facts["name"]] = {
            "threshold": arguments.threshold,
            "shown_by": f"score >= {arguments.threshold}",
            "draws": len(groups[0]),
            **overall(summaries),
            **split(prompts, summaries),
        }
        scorers[facts["name"]] = facts
        for prompt, summary in zip(prompts, summaries, strict=True):
            prompt[facts["name"]] = summary

    meta, likelihoods = read_jsonl(arguments.fluency, ("id", "draw"), numbers=("nll", "tokens"))
    read_draws = meta.get("settings", {}).get("num_generations")
    read_rows = [row for row in rows if read_draws is None or row["draw"] < read_draws]
    _check_same(read_rows, likelihoods, meta, source, arguments.fluency)
    tokens = sum(row["tokens"] for row in likelihoods)
    nll = math.fsum(row["nll"] for row in likelihoods) / tokens if tokens else None
    beside: Json = {}
    for part in ("perplexity", "capability"):
        if (path := getattr(arguments, part)) is None:
            continue
        beside[part] = read_json(path)
        meta = beside[part].pop("meta", {})
        for key in ("model", "selection"):
            if meta.get(key) != generated.get(key):
                raise ExciseError(
                    f"{path}: its {key} is not that of {arguments.generations}: "
                    f"{meta.get(key)} against {generated.get(key)}"
                )
        if part == "perplexity":
            beside[part]["settings"] = meta.get("settings")
        else:
            beside[part]["asked"] = {"settings": meta.get("settings"), "versions": meta.get("versions")}
    write_json(
        arguments.output,
        provenance(
            "evaluate",
            {
                "threshold": arguments.threshold,
                "generations": source,
                "scores": [sha256_file(path) for path in arguments.scores],
                "perplexity": sha256_file(arguments.perplexity),
                "capability": sha256_file(arguments.capability) if arguments.capability else None,
                "fluency": sha256_file(arguments.fluency),
            },
            model=generated.get("model"),
            selection=made_with,
            scorers=scorers,
            generation=generated.get("settings"),
        ),
        {
            "variant": arguments.variant,
            "behaviour": {"noun": arguments.noun, "adjective": arguments.adjective},
            "scores": results,
            "degeneration": {
                **degeneration([row["completion"] for row in rows], [row["completion_ids"] for row in rows]),
                "fluency_generations": len(groups[0]) if read_draws is None else min(read_draws, len(groups[0])),
                "fluency_nll": nll,
                "fluency_perplexity": None if nll is None else math.exp(nll),
            },
            **beside,
            "prompts": prompts,
        },
    )


def _by_prompt(rows: "list[Json]", path: Path) -> list[list[int]]:
    """Row numbers of each prompt, in the order of the file.

    Raises:
        ExciseError: there is nothing, or prompts differ in their number of draws.
    """
    from excise.errors import ExciseError

    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row["id"], []).append(index)
    draws = {len(group) for group in groups.values()}
    if len(draws) != 1 or len({(row["id"], row["draw"]) for row in rows}) < len(rows):
        raise ExciseError(
            f"{path}: every prompt needs the same number of different draws, found {sorted(draws)}; the maximum over "
            "draws means nothing otherwise"
        )
    return list(groups.values())


def _check_same(rows: "list[Json]", others: "list[Json]", meta: "Json", source: str, path: Path) -> None:
    """Refuse a file that is not, row by row, about these generations."""
    from excise.errors import ExciseError

    made_from = meta.get("settings", {}).get("generations", source)
    if made_from != source or [(r["id"], r["draw"]) for r in rows] != [(r["id"], r["draw"]) for r in others]:
        raise ExciseError(f"{path}: made from other generations than the ones given; make it again from these")
