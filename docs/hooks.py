"""Reference pages that MkDocs makes at each build from the schema, the command line and the docstrings."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from excise.cli import STAGES, parser

ROOT = Path(__file__).parent.parent
PACKAGES = (
    *(
        "excise",
        "models",
        "data",
        "edits",
        "compress",
        "attribution",
        "circuits",
        "evaluation",
        "evaluation.scorers",
        "reporting",
    ),
)
Json = dict[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that lie in docs/."""
    pages = {"configuration": configuration(), "command-line": command_line()}
    pages |= {"rules": rules(), "experiments": experiments()}
    pages |= {f"python/{package}": python(package) for package in PACKAGES}
    for name, lines in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines)))
    return files


# --- configuration --------------------------------------------------------------------------------------------------


def configuration() -> Iterator[str]:
    """The schema: a section for each part of an experiment's file, a row for each key."""
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
    yield "# Configuration"
    yield ""
    yield schema["description"]
    yield "Keys without a default must be given. Unknown keys are errors. To start from: `config.yaml`, the demo, or"
    yield "one of the [ready-made experiments](experiments.md)."
    yield from section(schema, schema, "")


def resolved(node: Json, schema: Json) -> Json:
    """A node with its ``$ref`` replaced; keys beside the reference win."""
    target: Any = schema if "$ref" in node else {}
    for part in node.get("$ref", "").removeprefix("#/").split("/"):
        target = target[part] if part else target
    return {**target, **node}


def section(node: Json, schema: Json, path: str) -> Iterator[str]:
    """One object: its keys as a table, then the objects inside it."""
    if path:
        yield f"\n{'#' * (2 + path.removesuffix('.NAME').count('.'))} {path}\n"
        yield node.get("description", "")
    required = node.get("required", [])
    properties = {k: resolved(v, schema) for k, v in node.get("properties", {}).items() if isinstance(v, dict)}
    inside = {key: child for key, child in properties.items() if child.get("type") == "object"}
    if properties.keys() - inside.keys():
        yield "\n| key | value | default | meaning |\n|---|---|---|---|"
    for key, child in properties.items():
        if key not in inside:
            default = "" if key in required else f"`{yaml_text(child.get('default'))}`"
            yield f"| `{key}` | {allowed(child, schema)} | {default} | {one_line(child.get('description', ''))} |"
    for choice in node.get("allOf", ()):
        kind = choice["if"]["properties"]["kind"]["const"]
        yield f"\n**kind: {kind}**"
        yield from section(resolved(choice["then"], schema), schema, "")
    for key, child in inside.items():
        dotted = f"{path}.{key}" if path else key
        entry = child.get("additionalProperties")
        if isinstance(entry, dict):
            entry = resolved(entry, schema)
            heading = {**entry, "description": f"{child['description']} {entry.get('description', '')}"}
            if child.get("default"):
                heading["description"] += f"\n\nDefault: `{yaml_text(child['default'])}`"
            yield from section(heading, schema, f"{dotted}.NAME")
        else:
            yield from section(child, schema, dotted)


def allowed(node: Json, schema: Json) -> str:
    """What a value may be, in a few words."""
    if "enum" in node:
        return ", ".join(f"`{yaml_text(value)}`" for value in node["enum"])
    if "items" in node:
        optional = "" if node["type"] == "array" else " or null"
        return f"list of {allowed(resolved(node['items'], schema), schema)}{optional}"
    types = node["type"] if isinstance(node["type"], list) else [node["type"]]
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {node[key]}" for key, word in bounds.items() if key in node]
    if (word := node.get("pattern", "")[1:-1]).isalpha():  # "^all$": the one string that is allowed
        types = [f"`{word}`" if name == "string" else name for name in types]
    return " or ".join(types) + (f", {', '.join(limits)}" if limits else "")


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
