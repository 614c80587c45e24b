"""The report: one HTML file that needs nothing beside itself and no script.

What it says is put together here, how it looks stands in ``templates/report.html``. Everything that comes from data is
escaped there; pictures are embedded; model output is behind a click.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from excise.artefacts import Json
from excise.attribution.registry import CONTROLS
from excise.reporting.confidence import confidence
from excise.reporting.figures import Figure, trade_off
from excise.reporting.markup import Table
from excise.reporting.page_tables import findings_table, main_table, peers_table, task_sections
from excise.reporting.settings import appendix, flat
from excise.reporting.steps import method
from excise.reporting.summary import Summary
from excise.reporting.tables import NONE, in_words, number, plural
from excise.reporting.templates import render
from excise.reporting.tuning import chosen
from excise.reporting.words import against_other_methods, answer, said_of, shown

FIRST = ("trade-off", "changes")
"""Figures that come right below the table of all variants."""

LENS_ROWS = 10
"""Neurons of a list whose tokens are shown."""


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
    return render(
        "report.html",
        title=f"{config.get('experiment', 'Experiment')}: {model['id']}",
        version=str(summary.meta.get("excise", "")),
        target=said_of(summary.target),
        won=summary.verdict.winner is not None,
        answer=[sentence for sentence in (answer(summary), against_other_methods(summary)) if sentence],
        main=main_table(summary),
        peers=peers_table(summary),
        findings=findings_table(summary),
        first=[plot for plot in plots if plot.name in FIRST],
        confidence=confidence(summary, config),
        method=method(summary, config),
        configured=_configured(config),
        choices=[_choice(name, compared) for name, compared in tunings.items()],
        tasks=task_sections(summary),
        closer=[plot for plot in plots if plot.name not in FIRST],
        lens_rows=LENS_ROWS,
        lenses=[(str(lens["name"]), _lens(lens)) for lens in lenses],
        shown=str(shown(summary)),
        samples=_grouped(samples),
        timings=_timings(timings) if timings else None,
        model=_model({**facts, **model}, origins),
        **appendix(config, origins),
    )


MEANINGS = {
    "contrast": "how retain minus target is formed",
    "protect": "share of the units most relevant for what shall be kept that may never be chosen",
    "scale": "what a chosen unit is multiplied by (0 = pruned; expertise = each by its own)",
    "ablation": "what it is scaled about: zero, or its mean activation over the retain reference",
    "budget": "rise of perplexity that the scales may cost",
    "count": "the sizes tried",
    "choose": "the name under which the best of those that compete is judged",
    "findings": "how often the list was found, each time from references of its own",
    "matched_to": "whose layers, number, scale and ablation a control copies",
}
"""Keys of a variant in the configuration, where their names do not say all."""


def _configured(config: Json) -> list[Table]:
    """The variants as configured, a table for each kind of edit, with the keys that some of them has set."""
    kinds: dict[str, dict[str, Json]] = {}
    for name, one in (config.get("variants") or {}).items():
        kinds.setdefault(one.get("edit", "units"), {})[name] = one
    tables = []
    for entries in kinds.values():
        used = [key for key in next(iter(entries.values())) if any(one.get(key) for one in entries.values())]
        keys = [key for key in used if key != "edit"]
        rows = []
        for name, one in entries.items():
            empty = ("contrast", "retain", "target", "protect") if one.get("method") in CONTROLS else ()
            rows.append(("", [name, *("" if key in empty else _plain(one.get(key)) for key in keys)]))
        said = "; ".join(f"{key}: {MEANINGS[key]}" for key in keys if key in MEANINGS)
        note = f"Variants as configured.{f' {said}.' if said else ''}"
        tables.append(Table(header=["variant", *keys], rows=rows, note=note))
    return tables


def _choice(name: str, compared: Summary) -> dict[str, Any]:
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
    plots = [trade_off(compared)] if compared.budgets else []
    return {"name": name, "note": note, "table": main_table(compared), "plots": plots}


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items() if one not in (None, False, " "))
    return NONE if value is None else str(value)


def _lens(lens: Json) -> Table:
    """The tokens that the first neurons of a list speak for."""

    def words(tokens: Sequence[str]) -> str:
        return "  ".join(token.strip() or repr(token) for token in tokens)

    header = ["rank", "layer", "neuron", "speaks for", "speaks against"]
    rows = [
        ("", [*(str(row[key]) for key in header[:3]), words(row["for"]), words(row["against"])])
        for row in lens["neurons"][:LENS_ROWS]
    ]
    return Table(header=header, rows=rows, prose=header[3:])


def _grouped(samples: Sequence[Json]) -> list[tuple[str, list[Json]]]:
    """Samples by group, in their order."""
    groups: dict[str, list[Json]] = {}
    for sample in samples:
        groups.setdefault(sample["group"], []).append(sample)
    return list(groups.items())


def _timings(timings: Sequence[Json]) -> Table:
    """What each step took, and all of them together."""
    rows: list[tuple[str, Sequence[str]]] = []
    for step in timings:
        times = (number(step["seconds"], 1), number(step["longest"], 1), number(step["memory"], 0))
        rows.append(("", [step["step"], str(step["jobs"]), *times]))
    jobs, seconds = (sum(step[key] for step in timings) for key in ("jobs", "seconds"))
    rows.append(("winner", ["all", str(jobs), number(seconds, 1), "", ""]))
    note = (
        "Wall time of all jobs that left a log in this folder, under earlier settings too, added up; side by side they "
        "took less. Memory: largest resident set of a job."
    )
    header = ["step", "jobs", "seconds in all", "longest job, seconds", "memory, MB"]
    return Table(header=header, rows=rows, note=note)


def _model(model: Json, origins: Sequence[Json]) -> Table:
    """What the model is, and what it was worked on with."""
    versions = {name: version for origin in origins for name, version in origin.get("versions", {}).items()}
    known = [(str(key), str(value)) for key, value in flat({k: v for k, v in model.items() if k != "meta"})]
    known.append(("versions", ", ".join(f"{name} {versions[name]}" for name in sorted(versions))))
    return Table(header=("model", "value"), rows=[("", pair) for pair in known], prose=("value",))
