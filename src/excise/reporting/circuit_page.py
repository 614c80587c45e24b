"""The report of a task's circuit: what it says. How it looks stands in ``templates/circuit.html``."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from excise.artefacts import Json
from excise.circuits.agreement import auroc
from excise.circuits.faithfulness import difference
from excise.errors import ExciseError
from excise.reporting.circuit_figures import figures
from excise.reporting.figures import Figure
from excise.reporting.markup import Table
from excise.reporting.settings import appendix
from excise.reporting.tables import NONE, exact_percent, number, percent
from excise.reporting.templates import render

SHOWN = 20
"""Strongest nodes and edges in tables."""

SIZES = (0.001, 0.005, 0.01, 0.05, 0.1)
"""Shares of the edges whose faithfulness stands in the table."""


@dataclass(frozen=True)
class Study:
    """Everything a report shows.

    Attributes:
        name: of the task in the configuration.
        pairs: provenance of both halves, the finding one first.
        nodes: what ``excise patch`` wrote.
        curves: what ``excise faithfulness --edges`` wrote, one per method; the first is the one that chose the circuit.
        circuits: what ``excise circuit`` wrote, one per size.
        judged: what ``excise faithfulness --circuit`` wrote, in the same order.
        heads: what ``excise remove-heads`` wrote, or None.
        acdc: what ``excise remove-edges`` left, and what ``excise faithfulness --circuit`` says of it; or None.
        known: names of heads that are known to carry the task.
        settings: the whole configuration.
    """

    name: str
    pairs: Sequence[Json]
    nodes: Json
    curves: Sequence[Json]
    circuits: Sequence[Json]
    judged: Sequence[Json]
    heads: Json | None
    acdc: tuple[Json, Json] | None
    known: Sequence[str]
    settings: Json


def page(study: Study, made: Json) -> tuple[str, list[Figure]]:
    """The report, and its plots.

    Args:
        study: what to show.
        made: provenance of the report.

    Raises:
        ExciseError: a known head is none of the model's.
    """
    plots = figures(study.nodes, study.curves, study.circuits[0])
    origins = [*study.pairs, *(one["meta"] for one in (study.nodes, *study.curves, *study.circuits, *study.judged))]
    origins += [study.heads["meta"]] if study.heads else []
    origins += [one["meta"] for one in study.acdc or ()]
    model = study.nodes["meta"]["model"]["id"]
    text = render(
        "circuit.html",
        title=f"{study.settings.get('experiment', 'Experiment')}: the circuit of {study.name} in {model}",
        task=study.name,
        version=str(made.get("excise", "")),
        answer=answer(study),
        model_does=_model_does(study.pairs),
        circuits=_circuits(study),
        methods=_methods(study.curves),
        stability=_stability(study.circuits[0]),
        edges=_edges(study.circuits[0]),
        nodes=_nodes(study.nodes),
        agreement=_agreement(study),
        acdc=_acdc(study) if study.acdc else None,
        removal=_removal(study.heads) if study.heads else None,
        kept=study.heads["kept"] if study.heads else [],
        plots={plot.name: plot for plot in plots},
        **appendix(study.settings, [*origins, made]),
    )
    return text, plots


def answer(study: Study) -> list[str]:
    """What was found, in a sentence or two."""
    circuit, judged = study.circuits[0], study.judged[0]
    here, without, size = judged["circuit"], judged["complement"], circuit["meta"]["settings"]["size"]
    found, held_out = (judged["meta"][key]["pairs"] for key in ("found_on", "pairs"))
    said = [
        f"{exact_percent(size)} of the edges ({here['edges']:,} of {circuit['edges_in_graph']:,}, chosen by "
        f"{circuit['meta']['method']} on {found} pairs) carry {_share(here)} of {study.name} on {held_out} other "
        f"pairs; without them {_share(without)} is left."
    ]
    others = [one for one in study.curves[1:] if one["meta"]["method"] != "random"]
    if others:
        said.append(f"Over all sizes (CMD): {'; '.join(_against(study.curves[0], one) for one in others)}.")
    if study.heads is not None and (held := study.heads["judged"]) is not None:
        objective = study.heads["meta"]["settings"]["objective"]
        said.append(
            f"{len(study.heads['kept'])} of {study.heads['heads']} heads are left when all are removed that cost "
            f"little; on held-out pairs the model then has a {objective.replace('-', ' ')} of "
            f"{number(held[f'circuit.{objective}'])} instead of {number(held[f'model.{objective}'])}, and is right in "
            f"{percent(held['circuit.accuracy'], 0)}."
        )
    return said


def _share(row: Json) -> str:
    low, high = row["interval"]
    return f"{percent(row['faithfulness'], 0)} [{percent(low, 0)}, {percent(high, 0)}]"


def _values(curve: Json, rank: str) -> tuple[NDArray[np.float64], ...]:
    values = curve["values"]
    return tuple(np.asarray(values[name]) for name in (rank, "full", "empty"))


def compared(first: Json, other: Json, area: str) -> tuple[float, float, float]:
    """An area of a method minus that of the first, with its paired interval."""
    rank = "signed" if area.startswith("cpr") else "absolute"
    if first["values"]["ids"] != other["values"]["ids"]:
        raise ExciseError(f"{other['meta']['method']}: judged on other pairs than {first['meta']['method']}")
    rows, full, empty = _values(first, rank)
    fractions, seed = first["fractions"], first["meta"]["settings"]["seed"]
    return difference(fractions, _values(other, rank)[0], rows, full, empty, seed=seed)[area]


def _against(first: Json, other: Json) -> str:
    value, low, high = compared(first, other, "cmd")
    names = other["meta"]["method"], first["meta"]["method"]
    relation = "is not shown to differ from" if low <= 0 <= high else "is worse than" if value > 0 else "is better than"
    return f"{names[0]} {relation} {names[1]} ({number(value, 3)} [{number(low, 3)}, {number(high, 3)}])"


def _model_does(pairs: Sequence[Json]) -> Table:
    rows = []
    for meta in pairs:
        known = meta["measured"]
        cells = [str(known["pairs"]), percent(known["accuracy"], 0), number(known["clean"]), number(known["corrupted"])]
        rows.append(("", [meta["half"], *cells]))
    note = (
        "Right: share of clean prompts after which the right answer is likelier than the wrong one. Logit "
        "difference: mean log odds of the clean prompt's answers."
    )
    header = ["half", "pairs", "right", "logit difference, clean", "logit difference, corrupted"]
    return Table(header=header, rows=rows, note=note)


def _circuits(study: Study) -> Table:
    rows = []
    for circuit, judged in zip(study.circuits, study.judged, strict=True):
        size, sizes = circuit["meta"]["settings"]["size"], circuit["sizes"]
        cells = [exact_percent(size), f"{sizes['edges']:,}", str(sizes["nodes"])]
        cells += [_share(judged["circuit"]), _share(judged["complement"])]
        cells += [number(circuit["stability"][f"{name}_mean"]) for name in ("bootstrap", "templates")]
        rows.append(("", cells))
    note = (
        f"Circuits chosen by {study.circuits[0]['meta']['method']}. Edges and nodes: after those are left out that "
        "lead nowhere or come from nowhere. Carried: faithfulness with its 95 % interval over the judging pairs. "
        "Overlap: mean Jaccard of the same size's edges between bootstrap resamples of the finding pairs, and "
        "between templates."
    )
    header = ["edges", "connected", "nodes", "carried", "carried by all others"]
    return Table(header=[*header, "overlap, resamples", "overlap, templates"], rows=rows, note=note)


def _methods(curves: Sequence[Json]) -> Table:
    shares = [share for share in SIZES if share in curves[0]["fractions"]]
    rows = []
    for place, one in enumerate(curves):
        signed, absolute = (one["rankings"][rank] for rank in ("signed", "absolute"))
        cells = [
            one["meta"]["method"],
            _area(absolute, "cmd", 3),
            _area(absolute, "cmd_log", 3),
            _area(signed, "cpr", 2),
        ]
        value, low, high = compared(curves[0], one, "cmd")
        cells.append(f"{number(value, 3)} [{number(low, 3)}, {number(high, 3)}]" if place else NONE)
        at = dict(zip(one["fractions"], absolute["faithfulness"], strict=True))
        cells += [number(at[share]) for share in shares]
        empty = [exact_percent(s) for s, n in zip(one["fractions"], signed["edges"], strict=True) if not n]
        cells.append(f"signed, {empty[0]} to {empty[-1]}" if empty else "")
        rows.append(("control" if one["meta"]["method"] in ("random", "weight-magnitude") else "", cells))
    header = ["method", "CMD (0 best)", "CMD, log axis", "CPR (signed)", f"CMD minus {curves[0]['meta']['method']}'s"]
    header += [f"f at {exact_percent(share)}" for share in shares]
    note = (
        "Areas with 95 % intervals over the judging pairs; differences of pairs. f: faithfulness of the best edges "
        "by absolute score. Empty: sizes at which no path leads from the input to the logits, so that the circuit "
        "does nothing. Never read CPR alone: leaving out what works against the answer raises it above 1."
    )
    return Table(header=[*header, "empty"], rows=rows, prose=("empty",), note=note)


def _area(ranking: Json, name: str, digits: int) -> str:
    low, high = ranking["area_intervals"][name]
    return f"{number(ranking['areas'][name], digits)} [{number(low, digits)}, {number(high, digits)}]"


def _stability(circuit: Json) -> list[str]:
    found = circuit["stability"]
    said = []
    if found["bootstrap_mean"] is not None:
        said.append(
            "Which edges are in it depends on the pairs: bootstrap resamples share "
            f"{percent(found['bootstrap_mean'], 0)} of them (Jaccard, mean over every two)."
        )
    if found["templates_mean"] is not None:
        said.append(f"Two templates share {percent(found['templates_mean'], 0)}, in the mean.")
    return said


def _edges(circuit: Json) -> Table:
    rows = [("", [row["edge"], number(row["score"], 3)]) for row in circuit["edges"][:SHOWN]]
    return Table(header=["edge", f"score by {circuit['meta']['method']}"], rows=rows)


def _nodes(nodes: Json) -> Table:
    methods = list(nodes["agreement"])
    ordered = sorted(nodes["nodes"][1:], key=lambda row: -abs(row["exact"]))[:SHOWN]
    rows = []
    for row in ordered:
        cells = [row["name"], f"{number(row['exact'])} ± {number(row['standard_error'])}"]
        rows.append(("", [*cells, *(number(row[method]) for method in methods)]))
    note = (
        f"The {len(ordered)} strongest of {len(nodes['nodes']) - 1}; ± standard error over the finding pairs. Cheap "
        "scores: sums over outgoing edges."
    )
    return Table(header=["node", "exact", *methods], rows=rows, note=note)


def _agreement(study: Study) -> Table:
    header = [
        "method",
        "r, all",
        "r without the strongest",
        "r, heads",
        "r, MLPs",
        "rank r, all",
        "20 strongest in both",
    ]
    rows = []
    for method, groups in study.nodes["agreement"].items():
        everything = groups["all"]
        cells = [method, number(everything["r"]), number(everything["r_without_strongest"])]
        cells += [number(groups[name]["r"]) for name in ("heads", "mlps")]
        cells += [number(everything["rho"]), percent(everything["best"], 0)]
        rows.append(("", cells))
    note = (
        "Correlation with the exact effects, over the finding pairs. One node may make a correlation, so it stands "
        "without it too."
    )
    if study.known:
        header.append("AUROC, known heads")
        areas = known_heads(study)
        for _, cells in rows:
            cells.append(number(areas[cells[0]]))
        rows.append(("", ["exact", *[NONE] * 6, number(areas["exact"])]))
        note += f" AUROC: how well absolute scores of heads tell the {len(study.known)} known ones from the others."
    return Table(header=header, rows=rows, note=note)


def known_heads(study: Study) -> dict[str, float]:
    """AUROC of the known heads among all, by the exact effects and by every method.

    Raises:
        ExciseError: a known head is none of the model's, or all heads are known.
    """
    heads = [row for row in study.nodes["nodes"] if row["node"].startswith("a")]
    if missing := set(study.known) - {row["name"] for row in heads}:
        raise ExciseError(f"known_heads: {min(missing)} is no head of {study.nodes['meta']['model']['id']}")
    known = np.array([row["name"] in study.known for row in heads])
    if known.all():
        raise ExciseError("known_heads: all heads of the model; there is nothing to tell them from")
    methods = ["exact", *study.nodes["agreement"]]
    return {method: auroc(np.array([row[method] for row in heads]), known) for method in methods}


def _acdc(study: Study) -> Table:
    """What removing edges left, beside the best edges of the scores that it began with."""
    assert study.acdc is not None  # noqa: S101 (the caller asked)
    circuit, judged = study.acdc
    settings, found, began = circuit["meta"]["settings"], circuit["objective"], circuit["meta"]["scores"]["method"]
    rows = [
        (
            "",
            [
                "left by ACDC",
                f"{circuit['sizes']['edges']:,}",
                str(circuit["sizes"]["nodes"]),
                number(found["circuit"], 3),
                _share(judged["circuit"]),
                _share(judged["complement"]),
            ],
        )
    ]
    for one, held in zip(study.circuits, study.judged, strict=True):
        cells = [f"{began}, best {exact_percent(one['meta']['settings']['size'])}", f"{one['sizes']['edges']:,}"]
        shares = [_share(held["circuit"]), _share(held["complement"])]
        rows.append(("", [*cells, str(one["sizes"]["nodes"]), NONE, *shares]))
    objective = settings["objective"]
    note = (
        f"Began with the best {circuit['asked']:,} edges by {began} (objective {number(found['candidates'], 3)} of "
        f"{objective} on the finding pairs; the model's is {number(found['model'], 3)}, without any edge "
        f"{number(found['no edge'], 3)}), of which {circuit['tried']:,} were tried, from the logits down. An edge went "
        f"if that cost less than {settings['threshold']:g}. Carried: on the judging pairs."
    )
    header = ["circuit", "edges", "nodes", f"{objective}, finding pairs", "carried", "carried by all others"]
    return Table(header=header, rows=rows, note=note)


def _removal(heads: Json) -> Table:
    settings, held = heads["meta"]["settings"], heads["judged"] or {}
    objective = settings["objective"]
    rows = [
        ("", ["finding", number(heads["initial"]), number(heads["final"]), number(heads["all_removed"]), NONE, NONE])
    ]
    if held:
        cells = [number(held[f"model.{objective}"]), number(held[f"circuit.{objective}"]), NONE]
        accuracy = [percent(held[f"{name}.accuracy"], 0) for name in ("model", "circuit")]
        rows.append(("", ["judging", *cells, *accuracy]))
    note = (
        f"{len(heads['kept'])} of {heads['heads']} heads are kept: {settings['form']}, threshold "
        f"{settings['threshold']:g} of {objective}. A removed head writes what the ablation ({settings['ablation']}) "
        "says."
    )
    header = ["pairs", "model", "kept heads only", "no heads", "right, model", "right, kept heads only"]
    return Table(header=header, rows=rows, note=note)
