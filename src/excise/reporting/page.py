"""The report: one HTML file that needs nothing beside itself and no script.

Everything that comes from data is escaped; pictures are embedded; model output is behind a click.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from types import MappingProxyType

from excise.artefacts import Json
from excise.attribution.registry import CONTROLS
from excise.reporting import capability
from excise.reporting.figures import Figure, trade_off
from excise.reporting.markup import STYLE, figure, items, table
from excise.reporting.style import rule
from excise.reporting.summary import adjective, baseline_row, noun
from excise.reporting.tables import NONE, counted, exact_percent, interval, number, p_value, percent, points
from excise.reporting.tuning import chosen
from excise.reporting.words import about_lrp, answer, confidence, method, shown


def page(
    summary: Json,
    plots: Sequence[Figure],
    *,
    config: Json,
    facts: Json,
    samples: Sequence[Json],
    lenses: Sequence[Json] = (),
    tunings: Mapping[str, Json] = MappingProxyType({}),
    timings: Sequence[Json],
    origins: Sequence[Json],
) -> str:
    """The whole report.

    Args:
        summary: body and meta of ``summary.json``.
        plots: what ``figures.figures`` gives.
        config: the experiment's configuration with its defaults filled in.
        facts: what excise inspect says of the model; may be empty.
        samples: what ``samples.pick`` gives.
        lenses: what excise logit-lens writes, one a selection; may be empty.
        tunings: comparison on the tuning prompts by the name of the choice.
        timings: rows of ``inputs.read_timings``; may be empty.
        origins: ``meta`` blocks to show.
    """
    model = summary["meta"]["model"]
    title = f"{config.get('experiment', 'Experiment')}: {model['id']}"
    verdict = "" if summary["verdict"]["winner"] else " none"
    lrp = about_lrp(summary)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">What pruning a few neurons did to the {escape(noun(summary))} and to the language of this '
        f"model. excise {escape(summary['meta']['excise'])}.</p>",
        f'<div class="answer{verdict}"><p>{escape(answer(summary))}</p>{f"<p>{escape(lrp)}</p>" if lrp else ""}</div>',
        "<h2>All variants</h2>",
        _main_table(summary),
        *(figure(plot) for plot in plots[:2]),
        "<h2>How sure is this?</h2>",
        items(confidence(summary, config)),
        "<h2>What was done</h2>",
        items(method(summary, config), ordered=True),
        _selections(config),
        *(part for name, compared in tunings.items() for part in _tuning(name, compared)),
        "<h2>Is it still language?</h2>",
        _degeneration_table(summary),
        *_capability(summary),
        f"<h2>{escape(noun(summary).capitalize())} by scorer</h2>",
        f'<p class="note">{escape(_scores(summary))}</p>',
        *(_scorer_table(summary, scorer) for scorer in summary["scorers"]),
        "<h2>A closer look</h2>",
        *(figure(plot) for plot in plots[2:]),
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


def _tuning(name: str, compared: Json) -> list[str]:
    """How a choice among unit lists came about."""
    best = chosen(compared, where=name)["variant"]
    compared = {**compared, "verdict": {**compared["verdict"], "winner": best}}
    budget = exact_percent(compared["limits"]["max_perplexity_increase"], signed=True)
    note = (
        f"{name} is {best}: of {compared['comparisons']} lists the one that lowered the {adjective(compared)} share "
        f"most, with perplexity up by at most {budget} and its language intact, on {compared['prompts']:,} tuning "
        "prompts, which served neither to find the neurons nor to judge them. These figures flatter it; those above "
        "do not."
    )
    return [
        f"<h2>How {escape(name)} was chosen</h2>",
        f"<p>{escape(note)}</p>",
        _main_table(compared),
        figure(trade_off(compared)),
    ]


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return NONE if value is None else str(value)


def _class(summary: Json, row: Json) -> str:
    if row["variant"] == summary["verdict"]["winner"]:
        return "winner"
    return "broken" if row["flag"] else str(row["kind"])


def _mark(summary: Json, row: Json) -> str:
    if row["variant"] == summary["verdict"]["winner"]:
        return "best within budget"
    words = [row["flag"]] if row["flag"] else []
    words += ["control"] if row["kind"] == "control" else []
    words += ["over budget"] if not row["within_budget"] and not row["flag"] else []
    return ", ".join(words)


def _with_interval(change: float, ends: Sequence[float] | None) -> str:
    return points(change) + (f" ({interval(ends)})" if ends else "")


def _main_table(summary: Json) -> str:
    scorer = summary["primary"]
    text = summary["perplexity"]
    header = ["variant", "neurons", f"perplexity ({text['text']}, {text['protocol']})", "rise, % (95 % interval)"]
    header += [
        f"{adjective(summary)} share ({rule(summary, scorer)})",
        "change, points (95 % interval)",
        "relative",
        "p (Holm)",
        "note",
    ]
    rows = []
    for row in summary["variants"]:
        cells = [row["variant"] if row["change"] else f"{row['variant']} (unpruned)"]
        cells.append(f"{row['neurons']:,} ({percent(row['share_of_neurons'], 2)})" if row["neurons"] else NONE)
        cells.append(number(row["perplexity"]))
        price = _with_interval(row["perplexity_change"], row["perplexity_interval"])
        cells.append(price if row["change"] else NONE)
        cells.append(percent(row["scores"][scorer]["share"]))
        if row["change"]:
            change = row["change"][scorer]
            cells += [_with_interval(change["difference"], change["interval"])]
            cells += [percent(change["relative"], 0, signed=True), p_value(change["p_holm"])]
        else:
            cells += [NONE] * 3
        rows.append((_class(summary, row), [*cells, _mark(summary, row)]))
    note = (
        f"Bold: the winner. Grey: controls. A broken variant's {adjective(summary)} share proves nothing. "
        f"Intervals: of perplexity paired over {text['windows']:,} windows of text, of the share paired bootstrap over "
        f"{summary['prompts']:,} prompts, each for its variant alone. p: paired permutation test, corrected for "
        f"{counted(summary['comparisons'], 'candidate')} (Holm)."
    )
    return table(header, rows, prose=("note",)) + f'<p class="note">{escape(note)}</p>'


def _scorer_table(summary: Json, scorer: str) -> str:
    header = ["variant", "mean score", "expected maximum", "probability", f"{adjective(summary)} share"]
    header += ["change, points", "95 % interval", "p (Holm)"]
    rows = []
    for row in summary["variants"]:
        figures, change = row["scores"][scorer], row["change"].get(scorer)
        cells = [row["variant"], number(figures["mean"], 3), number(figures["expected_maximum"], 3)]
        cells += [percent(figures["probability"]), percent(figures["share"])]
        cells += (
            [points(change["difference"]), interval(change["interval"]), p_value(change["p_holm"])]
            if change
            else [NONE] * 3
        )
        rows.append((_class(summary, row), cells))
    primary = " (decides)" if scorer == summary["primary"] else ""
    return f"<h3>{escape(rule(summary, scorer))}{primary}</h3>" + table(header, rows)


def _scores(summary: Json) -> str:
    kind = adjective(summary)
    return (
        "Mean score: over all continuations. Expected maximum: mean over prompts of the highest score among the draws. "
        f"Probability: share of prompts with a {kind} draw. {kind.capitalize()} share: share of {kind} continuations. "
        "Scores of different scorers are not comparable, so each has a table of its own."
    )


_DEGENERATION = {
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "distinct_3": "distinct-3",
    "rur": "RUR",
    "repetitive_share": "repetitive",
    "empty_share": "empty",
    "mean_tokens": "tokens",
    "fluency_perplexity": "perplexity of the generations",
}


_DIGITS = {"mean_tokens": 1, "fluency_perplexity": 2}


def _degeneration_table(summary: Json) -> str:
    base = baseline_row(summary)["degeneration"]
    keys = [key for key in _DEGENERATION if key in base]
    rows = []
    for row in summary["variants"]:
        values = row["degeneration"]
        cells = [
            percent(values[key]) if key.endswith("share") else number(values[key], _DIGITS.get(key, 3)) for key in keys
        ]
        rows.append((_class(summary, row), [row["variant"], *cells, row["flag"] or "yes"]))
    draws = max(scorer["draws"] for scorer in summary["scorers"].values())
    read = base.get("fluency_generations", draws)
    first = "" if read == draws else f", of the first {counted(read, 'answer')} to each"
    note = (
        "distinct-n: different n-grams over all n-grams of the generations; RUR: different tokens over tokens, mean; "
        "repetitive: RUR at or below 0.5; perplexity of the generations: under the unpruned model, given the "
        f"prompt{first}. Very low is repetition, very high is not language."
    )
    header = ["variant", *(_DEGENERATION[key] for key in keys), "language?"]
    return table(header, rows) + f'<p class="note">{escape(note)}</p>'


def _capability(summary: Json) -> list[str]:
    """How the variants do on the tasks of lm-evaluation-harness, where any were asked for."""
    titles = [capability.title(row) for row in baseline_row(summary)["capability"]]
    if not titles:
        return []
    rows = [(_class(summary, row), [row["variant"], *capability.cells(row)]) for row in summary["variants"]]
    note = f'<p class="note">{escape(capability.note(summary))}</p>'
    return ["<h2>What can it still do?</h2>", table(["variant", *titles], rows), note]


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


def _samples(summary: Json, samples: Sequence[Json]) -> list[str]:
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
