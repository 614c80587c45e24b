"""The report: one HTML file that needs nothing beside itself and no script.

Everything that comes from data is escaped; pictures are embedded; model output is behind a click.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from types import MappingProxyType

from excise.artefacts import Json
from excise.attribution.registry import CONTROLS
from excise.reporting.figures import Figure, trade_off
from excise.reporting.markup import STYLE, figure, items, table
from excise.reporting.page_tables import degeneration, main_table, measurements
from excise.reporting.steps import method
from excise.reporting.summary import Summary
from excise.reporting.tables import NONE, in_words, number, plural
from excise.reporting.tuning import chosen
from excise.reporting.words import about_lrp, answer, confidence, said_of, shown

FIRST = ("trade-off", "changes")
"""Figures that come right below the table of all variants."""


def page(
    summary: Summary,
    plots: Sequence[Figure],
    *,
    config: Json,
    facts: Json,
    samples: Sequence[Json],
    lenses: Sequence[Json] = (),
    tunings: Mapping[str, Summary] = MappingProxyType({}),
    timings: Sequence[Json],
    origins: Sequence[Json],
) -> str:
    """The whole report.

    Args:
        summary: of the experiment.
        plots: what ``figures.figures`` gives.
        config: the experiment's configuration with its defaults filled in.
        facts: what excise inspect says of the model; may be empty.
        samples: what ``samples.pick`` gives.
        lenses: what excise logit-lens writes, one per list; may be empty.
        tunings: comparison on the tuning prompts by the name of the choice.
        timings: rows of ``inputs.read_timings``; may be empty.
        origins: ``meta`` blocks to show.
    """
    model = summary.meta.get("model") or {"id": "a model"}
    title = f"{config.get('experiment', 'Experiment')}: {model['id']}"
    verdict = "" if summary.verdict.winner else " none"
    lrp = about_lrp(summary)
    first = [plot for plot in plots if plot.name in FIRST]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">What each variant of this model did to {escape(said_of(summary.target))} and to the rest. '
        f"excise {escape(str(summary.meta.get('excise', '')))}.</p>",
        f'<div class="answer{verdict}"><p>{escape(answer(summary))}</p>{f"<p>{escape(lrp)}</p>" if lrp else ""}</div>',
        "<h2>All variants</h2>",
        main_table(summary),
        *(figure(plot) for plot in first),
        "<h2>How sure is this?</h2>",
        items(confidence(summary, config)),
        "<h2>What was done</h2>",
        items(method(summary, config), ordered=True),
        _selections(config),
        *(part for name, compared in tunings.items() for part in _tuning(name, compared)),
        *degeneration(summary),
        *measurements(summary),
        "<h2>A closer look</h2>",
        *(figure(plot) for plot in plots if plot not in first),
        *_lenses(lenses),
        *_samples(summary, samples),
        *_timings(timings),
        "<h2>How to repeat it</h2>",
        _origin({**facts, **model}, config, origins),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _selections(config: Json) -> str:
    """The ways of choosing neurons that were compared, as configured."""
    selections: Json = config.get("selections") or {}
    if not selections:
        return ""
    meanings = {
        "contrast": "how general minus behaviour is formed",
        "protect": "share of the neurons most relevant for general text that may never be chosen",
        "scale": "what a chosen neuron is multiplied by (0 = pruned; expertise = each by its own)",
        "ablation": "what it is scaled about: zero, or its mean activation over the general text",
        "neurons": "the sizes tried",
        "choose": "the name under which the best of those that compete is judged",
        "matched_to": "whose layers, number, scale and ablation a control copies",
    }
    used = [key for key in ("choose", "matched_to") if any(one.get(key) for one in selections.values())]
    keys = ["method", "contrast", "retain", "target", "protect", "scale", "ablation", "neurons", *used]
    control = ("contrast", "retain", "target", "protect")
    rows = []
    for name, one in selections.items():
        empty = control if one["method"] in CONTROLS else ()
        cells = ["" if key in empty else _plain(one.get(key)) for key in keys]
        rows.append(("", [name, *cells]))
    note = "Selections compared. " + "; ".join(f"{key}: {meanings[key]}" for key in keys if key in meanings) + "."
    return table(["selection", *keys], rows) + f'<p class="note">{escape(note)}</p>'


def _tuning(name: str, compared: Summary) -> list[str]:
    """How a choice among unit lists came about."""
    best, target = chosen(compared, where=name).variant, compared.target
    compared = replace(compared, verdict=replace(compared.verdict, winner=best))
    budgets = "".join(
        f", with {said_of(column)} changed by {in_words(compared.goal.within[column.address])} at most"
        for column in compared.budgets
    )
    verb = "lowered" if compared.goal.better == "lower" else "raised"
    note = (
        f"{name} is {best}: of {compared.comparisons} lists the one that {verb} {said_of(target)} most{budgets} and "
        f"its language intact, on {target.items:,} tuning {plural(target.item)}, which served neither to find the "
        "units nor to judge them. These figures flatter it; those above do not."
    )
    return [
        f"<h2>How {escape(name)} was chosen</h2>",
        f"<p>{escape(note)}</p>",
        main_table(compared),
        *([figure(trade_off(compared))] if compared.budgets else []),
    ]


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return NONE if value is None else str(value)


def _lenses(lenses: Sequence[Json], first: int = 10) -> list[str]:
    """The tokens that the first neurons of each selection speak for."""
    if not lenses:
        return []

    def words(tokens: Sequence[str]) -> str:
        return "  ".join(token.strip() or repr(token) for token in tokens)

    note = (
        f"The first {first} neurons of each selection. When such a neuron fires, what it writes raises the logits of "
        "the tokens on the left most and lowers those on the right (the other way round where it fires negatively). "
        "Logit lens: a column of the MLP's output projection through the final norm and the unembedding, without "
        "the layers between. Tokens can be offensive: they show only on a click."
    )
    header = ["rank", "layer", "neuron", "speaks for", "speaks against"]
    tables = [
        f"<details><summary>{escape(lens['name'])}</summary>"
        + table(
            header,
            [
                ("", [*(str(row[key]) for key in header[:3]), words(row["for"]), words(row["against"])])
                for row in lens["neurons"][:first]
            ],
            prose=header[3:],
        )
        + "</details>"
        for lens in lenses
    ]
    return ["<h3>What the selected neurons speak for</h3>", f'<p class="note">{escape(note)}</p>', *tables]


def _samples(summary: Summary, samples: Sequence[Json]) -> list[str]:
    if not samples:
        return []
    name = shown(summary)
    parts = [
        "<h2>What it writes</h2>",
        f"<p>Continuations by the unpruned model (left) and by {escape(str(name))} (right). The first group is a "
        "random draw; the others are the prompts whose mean score fell and rose most. The text can be "
        "<strong>offensive</strong>: it shows only on a click.</p>",
    ]
    for group in dict.fromkeys(sample["group"] for sample in samples):
        parts.append(f"<h3>{escape(group)}</h3>")
        parts += [_sample(sample, str(name)) for sample in samples if sample["group"] == group]
    return parts


def _sample(sample: Json, name: str) -> str:
    def side(title: str, draws: Sequence[Json]) -> str:
        texts = "".join(
            f'<p>{escape(draw["completion"]) or "(empty)"} <span class="score">[{draw["score"]:.2f}]</span></p>'
            for draw in draws
        )
        return f"<div><strong>{escape(title)}</strong>{texts}</div>"

    return (
        f'<details class="sample"><summary>prompt {escape(str(sample["id"]))}: mean score {sample["mean_before"]:.2f} '
        f"→ {sample['mean_after']:.2f}</summary><p><em>{escape(sample['prompt'])}</em> …</p>"
        f'<div class="pair">{side("unpruned", sample["before"])}{side(name, sample["after"])}</div></details>'
    )


def _timings(timings: Sequence[Json]) -> list[str]:
    if not timings:
        return []
    rows = [
        (
            "",
            [
                step["step"],
                str(step["jobs"]),
                number(step["seconds"], 1),
                number(step["longest"], 1),
                number(step["memory"], 0),
            ],
        )
        for step in timings
    ]
    rows.append(("winner", ["all", str(sum(step["jobs"] for step in timings)),
                            number(sum(step["seconds"] for step in timings), 1), "", ""]))  # fmt: skip
    note = (
        "Wall time of all jobs that left a log in this folder, under earlier settings too, added up; side by side they "
        "took less. Memory: largest resident set of a job."
    )
    return [
        "<h2>How long it took</h2>",
        table(["step", "jobs", "seconds in all", "longest job, seconds", "memory, MB"], rows),
        f'<p class="note">{note}</p>',
    ]


def _origin(model: Json, config: Json, origins: Sequence[Json]) -> str:
    versions = {name: version for origin in origins for name, version in origin.get("versions", {}).items()}
    settings = table(
        ["setting", "value"], [("", [key, value]) for key, value in _flat(config)], prose=("setting", "value")
    )
    known = [(str(key), str(value)) for key, value in _flat({k: v for k, v in model.items() if k != "meta"})]
    known.append(("versions", ", ".join(f"{name} {versions[name]}" for name in sorted(versions))))
    raw = escape(json.dumps(list(origins), ensure_ascii=False, indent=1))
    return (
        table(["model", "value"], [("", pair) for pair in known], prose=("value",))
        + f"<details><summary>All settings of the experiment</summary>{settings}</details>"
        + f"<details><summary>Provenance of everything shown here</summary><pre>{raw}</pre></details>"
    )


def _flat(value: object, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Leaves of nested settings as dotted names and values."""
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _flat(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
