"""Reference pages that MkDocs makes at each build from the configuration, the command line and the docstrings."""

import argparse
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import Discriminator

from excise.cli import STAGES, parser
from excise.config.experiment import Experiment
from excise.config.section import Alternative, Key, Section, alternatives, words
from excise.config.values import OneOf

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "excise",
    "config",
    "models",
    "data",
    "edits",
    "compress",
    "attribution",
    "circuits",
    "circuits.methods",
    "retrieval",
    "evaluation",
    "evaluation.scorers",
    "tasks",
    "reporting",
)
Json = dict[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that lie in docs/."""
    pages = {"configuration": configuration(), "command-line": command_line()}
    pages |= {"rules": rules(), "experiments": experiments()}
    pages |= {f"python/{package}": python(package) for package in PACKAGES}
    for name, lines in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines)))
    schema = json.dumps(Experiment.model_json_schema(), indent=1)
    files.append(File.generated(config, "reference/config.schema.json", content=schema))
    return files


# --- configuration --------------------------------------------------------------------------------------------------


def configuration() -> Iterator[str]:
    """The classes of the configuration: a section for each part of an experiment's file, a row for each key."""
    yield "# Configuration"
    yield ""
    start = (
        "Keys without a default must be given. Unknown keys are errors. To start from: `config.yaml`, the demo, or\n"
    )
    start += "one of the [ready-made experiments](experiments.md). Editors that check YAML by a JSON schema take\n"
    start += "[config.schema.json](config.schema.json)."
    yield from section(Experiment, "", f"{inspect.getdoc(Experiment)}\n\n{start}")


def section(kind: type[Section], path: str, meaning: str, *, titled: bool = True) -> Iterator[str]:
    """One block of keys: its settings as a table, then the blocks inside it."""
    if path and titled:
        yield f"\n{'#' * (2 + path.removesuffix('.NAME').count('.'))} {path}\n"
    yield meaning
    blocks = {name: list(inside(field)) for name, field in kind.model_fields.items()}
    if not all(blocks.values()):
        yield "\n| key | value | default | meaning |\n|---|---|---|---|"
    for name, field in kind.model_fields.items():
        if not blocks[name]:
            default = "" if field.is_required() else f"`{yaml_text(field.get_default(call_default_factory=True))}`"
            yield f"| `{name}` | {allowed(field)} | {default} | {one_line(field.description or '')} |"
    for name, found in blocks.items():
        said = kind.model_fields[name].description or ""
        for number, (suffix, one) in enumerate(found):
            below = f"{path}.{name}{suffix}" if path else f"{name}{suffix}"
            doc = inspect.getdoc(one.type) or ""
            if (key := discriminator(one)) is None:
                yield from section(one.type, below, said or doc)
                continue
            if number == 0:
                yield from (f"\n## {below}\n", said)
            yield f"\n**{key}: {one.tag()}**\n"
            yield from section(one.type, below, doc, titled=False)


def inside(field: Any) -> Iterator[tuple[str, Alternative]]:
    """The blocks of keys that a field holds, and what their path ends with."""
    for one in alternatives(field):
        if one.is_section():
            yield "", one
        elif one.container is dict:
            yield from ((".NAME", other) for other in alternatives(get_args(one.type)[1]) if other.is_section())


def discriminator(one: Alternative) -> str | None:
    """The key that tells a block from its siblings; None where it has none."""
    told = (mark.discriminator for mark in one.constraints if isinstance(mark, Discriminator))
    return next((mark.key for mark in told if isinstance(mark, Key)), None)


def allowed(field: Any) -> str:
    """What a value may be, in a few words."""
    return " or ".join(dict.fromkeys(kind_of_value(one) for one in alternatives(field)))


def kind_of_value(one: Alternative) -> str:
    """One type of a value, with its bounds."""
    names = [*get_args(one.type)] if one.container is Literal else []
    names += [name for mark in one.constraints if isinstance(mark, OneOf) for name in mark.names]
    if names:
        return ", ".join(f"`{yaml_text(name)}`" for name in names)
    if one.container is list:
        return f"list of {allowed(get_args(one.type)[0])}"
    bounds = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [
        f"{word} {getattr(mark, key)}" for key, word in bounds.items() for mark in one.constraints if hasattr(mark, key)
    ]
    return ", ".join([words(one).removeprefix("a "), *limits])


def yaml_text(value: object) -> str:
    """A value as it is written in YAML, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def one_line(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def experiments() -> Iterator[str]:
    """The experiments that come with the repository: the comment at the head of each, then the file."""
    yield "# Ready-made experiments\n"
    yield "Copy one, or run it as it is. Each says what the literature reports for it, and on which protocol."
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        head, _, body = text.partition("\n\n")
        lines = [line.removeprefix("#").removeprefix(" ") for line in head.splitlines()]
        words = "\n".join(f"    {line}" if line.startswith("  ") else line for line in lines)
        yield f'\n## {path.stem}\n\n{words}\n\n```yaml title="experiments/{path.name}"\n{body}```'


# --- command line ---------------------------------------------------------------------------------------------------


def command_line() -> Iterator[str]:
    """Every stage: what it does, how it is called, its options."""
    whole = parser()
    stages = next(action for action in whole._actions if isinstance(action, argparse._SubParsersAction)).choices
    yield "# Command line\n"
    yield "`excise STAGE ...` is what a rule of the workflow runs; typed by hand it writes the same bytes. The exit"
    yield "status is 0, or 1 when the input or the result is unusable, 2 for a wrong command line, 70 for an error in"
    yield "excise. Stages in the order of the workflow:\n"
    for name in STAGES:
        first = (stages[name].description or "").partition("\n")[0]
        yield f"- [`{name}`](#{name}): {first}"
    for name in STAGES:
        stage = stages[name]
        yield f"\n## {name}\n\n{stage.description}\n"
        yield "| option | meaning |\n|---|---|"
        for action in stage._actions:
            if not isinstance(action, argparse._HelpAction):
                needed = " **Required.**" if action.required else ""
                yield f"| {option(action)} | {one_line(action.help or '')}.{needed} |"


def option(action: argparse.Action) -> str:
    """``--name VALUE``, as it is typed."""
    name = action.option_strings[0] if action.option_strings else action.dest.upper()
    value = str(action.metavar or action.dest.upper()) if action.option_strings and action.nargs != 0 else ""
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    more = " ..." if action.nargs in ("+", "*") else ""
    return f"`{name}{' ' if value else ''}{value}{more}`"


# --- workflow -------------------------------------------------------------------------------------------------------


def rules() -> Iterator[str]:
    """The rules of the workflow, and which stage each of them runs."""
    yield "# Rules of the workflow\n"
    yield "What Snakemake's `--until`, `--forcerun` and `--set-resources` want to know. The files that rules read and"
    yield "write: [artefacts](../architecture.md#artefacts).\n"
    yield "| rule | stage it runs | stands in `workflow/rules/` |\n|---|---|---|"
    snakefile = (ROOT / "Snakefile").read_text(encoding="utf-8")
    for name in re.findall(r'^include: "workflow/rules/(\w+)\.smk"', snakefile, re.MULTILINE):
        text = (ROOT / f"workflow/rules/{name}.smk").read_text(encoding="utf-8")
        stages: dict[str, str] = {}
        heads = r"^(?:use rule (?P<base>\w+) as (?P<other>\w+) with|rule (?P<own>\w+)):\n(?P<body>.*?)(?=^\S|\Z)"
        for found in re.finditer(heads, text, re.DOTALL | re.MULTILINE):
            stage = re.search(r"excise ([\w-]+)", found["body"])
            rule = found["own"] or found["other"]
            stages[rule] = stage[1] if stage else stages.get(found["base"], "")
            link = f"[`{stages[rule]}`](command-line.md#{stages[rule]})" if stages[rule] else ""
            yield f"| `{rule}` | {link} | {name}.smk |"


# --- Python ---------------------------------------------------------------------------------------------------------


def python(package: str) -> Iterator[str]:
    """A page for each package: the docstrings of its modules."""
    prefix = "excise" if package == "excise" else f"excise.{package}"
    folder = ROOT / "src" / prefix.replace(".", "/")
    yield f"# {prefix}"
    modules = sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__"))
    for module in (prefix, *(f"{prefix}.{name}" for name in modules)):
        yield f"\n::: {module}\n"
