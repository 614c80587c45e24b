"""The report on smaller encoders: what it says. How it looks stands in ``templates/encoders.html``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from excise.artefacts import Json
from excise.comparison import compare, keeps
from excise.data.collection_formats import WITH_PAIRS, WITHOUT_QUERIES
from excise.reporting.encoder_plots import kept_against_cost, reach
from excise.reporting.figures import Figure
from excise.reporting.inputs import Found
from excise.reporting.markup import Table
from excise.reporting.settings import appendix
from excise.reporting.style import series_of
from excise.reporting.summary import Column, Row, Summary
from excise.reporting.tables import NONE, number, plural
from excise.reporting.templates import render
from excise.tasks.measurement import Measured, find

ASYMMETRIC, FIDELITY = "-asymmetric", "-fidelity"

COSTS = ("cost.documents_ms", "cost.query_ms", "cost.megabytes", "cost.layer_millions")


@dataclass(frozen=True)
class Place:
    """A collection in a summary.

    Attributes:
        name: in addresses.
        label: what people call it.
        main: the metric that decides there: nDCG@10, or the cosine where nobody judged.
    """

    name: str
    label: str
    main: Column


def places(summary: Summary) -> list[Place]:
    """The collections, in the order of the measurements."""
    found: dict[str, Place] = {}
    for column in summary.of_task("retrieval"):
        name = column.measurement.removesuffix(FIDELITY).removesuffix(ASYMMETRIC)
        if name not in found:
            found[name] = Place(name, column.label.partition(", embeddings")[0], column)
    return list(found.values())


def page(found: Found, *, settings: Json, timings: Sequence[Json], made: Json, seed: int) -> tuple[str, list[Figure]]:
    """The report, and its plots.

    Args:
        found: summary and measurements.
        settings: the experiment's configuration with its defaults filled in.
        timings: rows of ``inputs.read_timings``; may be empty.
        made: provenance of the report.
        seed: of the intervals at equal time.
    """
    summary, at_least = found.summary, float(settings["retrieval"]["at_least"])
    model = (summary.meta.get("model") or {"id": "an encoder"})["id"]
    plots = figures(summary, at_least)
    rows = [("", [one["step"], str(one["jobs"]), number(one["seconds"], 1)]) for one in timings]
    text = render(
        "encoders.html",
        title=f"{settings.get('experiment', 'Experiment')}: smaller encoders from {model}",
        version=str(made.get("excise", "")),
        won=summary.verdict.winner is not None,
        answer=answer(summary, at_least),
        collections=[(place.label, collection_table(summary, place, at_least)) for place in places(summary)],
        costs=cost_table(summary),
        peers=peers_table(summary, found.measured, settings, seed),
        plots=plots,
        method=steps(settings),
        configured=configured(settings),
        timings=Table(header=("step", "jobs", "seconds in all"), rows=rows) if rows else None,
        **appendix(settings, [*found.origins, made]),
    )
    return text, plots


def kept(row: Row, address: str) -> str:
    """``98.8 [95.1, 102.7]``: per cent of the dense model's figure."""
    found = reach(row, address) if address in row.cells else None
    if found is None:
        return NONE
    middle, ends = found
    return f"{middle:.1f}" + (f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else "")


def faster(row: Row, address: str) -> float | None:
    """How many times as fast as the dense model."""
    change = row.cells[address].change
    return None if change is None or change.relative is None else 1 / (1 + change.relative)


def answer(summary: Summary, at_least: float) -> list[str]:
    """The result in a few sentences, with intervals."""
    first, *others = places(summary)
    metric, count = first.main.title.partition(",")[0], f"{first.main.items:,} {plural(first.main.item)}"
    needed = f"surely keep {100 * at_least:g} % of the dense model's {metric} on {first.label} ({count})"
    if summary.verdict.winner is None:
        best = max(summary.variants[1:], key=lambda row: (reach(row, first.main.address) or (0.0, None))[0])
        return [f"No encoder is faster and can {needed}. {best.variant} keeps {kept(best, first.main.address)} %."]
    row, dense = summary.rows[summary.verdict.winner], summary.baseline
    sizes = [[one.cells[address].figure or 0.0 for one in (row, dense)] for address in COSTS[2:]]
    said = [
        f"{row.variant} is the fastest of the encoders that {needed}: it keeps {kept(row, first.main.address)} %, "
        f"takes documents {faster(row, COSTS[0]):.2f} and queries {faster(row, COSTS[1]):.2f} times as fast, and has "
        f"{sizes[1][0]:.2f} of {sizes[1][1]:.2f} million parameters in its layers ({sizes[0][0]:.1f} of "
        f"{sizes[0][1]:.1f} MB with the embeddings of words)."
    ]
    for place in others:
        verdict = "yes" if keeps(row.change(place.main.address), at_least) else "not shown"
        said.append(
            f"On {place.label}, which no score, repair or training has seen, it keeps "
            f"{kept(row, place.main.address)} % of {place.main.title.partition(',')[0]} "
            f"(at least {100 * at_least:g} %: {verdict})."
        )
    for name in summary.verdict.tied:
        shares = [f"{kept(summary.rows[name], place.main.address)} % on {place.label}" for place in (first, *others)]
        said.append(f"As fast, as far as the rounds can tell, is {name}, which keeps {' and '.join(shares)}.")
    return said


def collection_table(summary: Summary, place: Place, at_least: float) -> Table:
    """What every encoder keeps on a collection."""
    name, main = place.name, place.main
    judged = main.measurement == name
    ranked = main.metric == "ndcg@10"
    metrics = ("ndcg@10", "recall@100", "mrr@10") if ranked else ("spearman", "pearson") if judged else ()
    columns = [(f"{name}.{metric}", f"{metric} kept, %") for metric in metrics]
    if ranked:
        columns.append((f"{name}{ASYMMETRIC}.ndcg@10", "asymmetric ndcg@10 kept, %"))
    fidelity = f"{name}{FIDELITY}.cosine"
    header = ["encoder", main.metric, *(title for _, title in columns), "cosine", f"keeps {100 * at_least:g} %"]
    rows = []
    for row in summary.variants:
        dense = row is summary.baseline
        verdict = NONE if dense else "yes" if keeps(row.change(main.address), at_least) else "not shown"
        cells = [row.variant, number(row.cells[main.address].figure, 3)]
        cells += [NONE if dense else kept(row, address) for address, _ in columns]
        cells += [number(row.cells[fidelity].figure, 3), verdict]
        rows.append((_style(row, summary), cells))
    note = (
        f"{main.items:,} {plural(main.item)}. In brackets the paired 95 % interval of the share that is kept, from "
        f"resampling {plural(main.item)}. The last column: whether its lower end is at least {100 * at_least:g} %. "
    )
    if ranked:
        note += "Asymmetric: documents by the dense model, queries by this one. "
    return Table(header=header, rows=rows, note=f"{note}Cosine: mean over texts, with the dense embedding.")


def cost_table(summary: Summary) -> Table:
    """Time and size of every encoder."""
    header = ["encoder", "query, ms", "times as fast", "32 documents, ms", "times as fast", "weights, MB"]
    rows = []
    for row in summary.variants:
        times = [(number(row.cells[one].figure, 1), number(faster(row, one))) for one in (COSTS[1], COSTS[0])]
        sizes = [number(row.cells[COSTS[2]].figure, 1), number(row.cells[COSTS[3]].figure)]
        rows.append((_style(row, summary), [row.variant, *times[0], *times[1], *sizes]))
    note = (
        "Processor time of one batch: a query of 12 tokens; 32 documents of 64 tokens. All encoders took turns in "
        f"every round ({summary.column(COSTS[0]).items} rounds, mean). Times differ between machines, ratios less."
    )
    return Table(header=[*header, "parameters in layers, millions"], rows=rows, note=note)


def _style(row: Row, summary: Summary) -> str:
    return (
        "winner" if row.variant == summary.verdict.winner else "" if row.about.kind == "candidate" else row.about.kind
    )


def peers_table(summary: Summary, measured: Mapping[str, Measured], settings: Json, seed: int) -> Table | None:
    """Dropped layers and static vectors, each against the encoder of units that takes most nearly as long.

    Both had the same training, or none. None where there is nothing to compare.
    """
    recipes = settings["retrieval"]["variants"]
    time = {row.variant: row.cells[COSTS[0]].figure or 0.0 for row in summary.variants}
    candidates = [row for row in summary.variants if row.about.kind == "candidate"]
    rows = []
    for peer in (row for row in candidates if recipes[series_of(row)]["kind"] != "units"):
        trained = bool(recipes[series_of(peer)].get("distil"))
        own = [
            row
            for row in candidates
            if recipes[series_of(row)]["kind"] == "units" and bool(recipes[series_of(row)]["distil"]) == trained
        ]
        if not own:
            continue
        closest = min(own, key=lambda row: abs(time[row.variant] - time[peer.variant]))
        nearest = next(row for row in own if row is closest or _as_fast(row, closest, measured, seed))
        cells = [peer.variant, number(time[peer.variant], 1), nearest.variant, number(time[nearest.variant], 1)]
        for place in places(summary):
            before, after = (find(measured[one.variant], place.main.address)[1] for one in (peer, nearest))
            change = compare(before, after, seed=seed)
            ends = f" [{change.interval[0]:+.3f}, {change.interval[1]:+.3f}]" if change.interval else ""
            cells.append(f"{change.difference:+.3f}{ends}")
        rows.append(("", cells))
    if not rows:
        return None
    differences = [f"{place.main.metric} more, {place.label}" for place in places(summary)]
    note = (
        "Each peer beside the encoder of units, trained alike, whose time for documents is nearest; of several that "
        "the rounds cannot tell apart, the first in the configuration. More: what that encoder has above the peer, "
        "paired, with its 95 % interval; one that holds 0 shows no difference."
    )
    return Table(header=["peer", "ms", "nearest in time", "its ms", *differences], rows=rows, note=note)


def _as_fast(row: Row, other: Row, measured: Mapping[str, Measured], seed: int) -> bool:
    """Whether the rounds of timing cannot tell two encoders apart."""
    one, two = (find(measured[each.variant], COSTS[0])[1] for each in (row, other))
    return not compare(one, two, seed=seed).apart


CAPTION = (
    "One mark per encoder, one panel per collection; up and left is good. Bars: 95 % interval of the share that is "
    "kept, over queries. Colour: how it was made smaller; grey and hollow: controls. Numbers: per cent of the units "
    "(with a budget: of the time) removed, or layers that stay; lines join the sizes of one series. Dotted: the dense "
    "model; dashed: what must be kept; ring: the fastest that surely keeps it."
)


def figures(summary: Summary, at_least: float) -> list[Figure]:
    """Kept nDCG@10 against the time of documents and size, and asymmetric nDCG@10 against the time of a query."""
    main = [place.main for place in places(summary)]
    other = [column for column in summary.of_task("retrieval") if column.address.endswith(f"{ASYMMETRIC}.ndcg@10")]
    plans = [
        ("kept-time", "What is kept, against the time of documents", main, COSTS[0]),
        ("kept-size", "What is kept, against size", main, COSTS[2]),
        ("asymmetric", "With the dense index: what is kept, against the time of a query", other, COSTS[1]),
    ]
    return [
        Figure(
            name,
            title,
            CAPTION,
            kept_against_cost,
            (summary, columns, summary.column(cost), at_least),
            ["encoder", "cost", *(f"{one.address}{end}" for one in columns for end in (" kept", " low", " high"))],
            [
                [row.variant, row.cells[cost].figure, *(number for one in columns for number in _ends(row, one))]
                for row in summary.variants
            ],
        )
        for name, title, columns, cost in plans
        if columns
    ]


def _ends(row: Row, column: Column) -> list[float | None]:
    found = reach(row, column.address)
    return [None] * 3 if found is None else [found[0], *(found[1] or (None, None))]


def steps(settings: Json) -> list[str]:
    """What was done, in sentences."""
    collections = settings["retrieval"]["collections"]
    paired = any(one["format"] in WITH_PAIRS for one in collections.values())
    ranked = any(one["format"] not in WITHOUT_QUERIES for one in collections.values())
    said = []
    for name, one in collections.items():
        role = (
            f"{one['calibration_documents']:,} documents calibrate"
            if one["calibration_documents"]
            else "it only judges"
        )
        tuned = f", with {100 * one['tuning_fraction']:g} % of the queries" if one["tuning_fraction"] else ""
        said.append(f"{one['label'] or name}: {role}{tuned}; near-duplicates are in one part.")
    return [
        *said,
        "Units were scored, removed, repaired and trained on calibration texts alone; matrices were cut, not masked, "
        "and every folder was read back before it got its name.",
        *(["Rankings are by the inner product, judged by ir-measures with trec_eval's ties."] if ranked else []),
        *(["Pairs: correlation of the cosine with the labels."] if paired else []),
    ]


def configured(settings: Json) -> Table:
    """The encoders as configured."""
    recipes = settings["retrieval"]["variants"]
    keys = list(dict.fromkeys(key for one in recipes.values() for key, value in one.items() if value is not None))

    def said(value: object) -> str:
        if isinstance(value, list):
            return ", ".join(map(str, value))
        if isinstance(value, dict):
            return ", ".join(f"{key} {one}" for key, one in value.items())
        return NONE if value is None else str(value)

    return Table(
        header=["variant", *keys],
        rows=[("", [name, *(said(one.get(key)) for key in keys)]) for name, one in recipes.items()],
        note="Encoders as configured.",
    )
