"""Train a smaller encoder to give the embeddings of the dense one on calibration texts; no labels are needed.

A killed job goes on from its last checkpoint, beside the output, when the same command runs again. Several processes or
GPUs share the work of each step: ``torchrun --standalone --nproc-per-node 2 --no-python -- excise distil ...``
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.options import add_options
    from excise.config.retrieval import Training

    parser.add_argument("--model", type=Path, required=True, help="folder of the smaller encoder (excise shrink)")
    parser.add_argument("--texts", type=Path, help="calibration documents, JSONL")
    parser.add_argument("--queries", type=Path, help="calibration queries, JSONL")
    parser.add_argument(
        "--teacher", type=Path, required=True, help="embeddings of these texts by the dense model (excise embed)"
    )
    add_options(parser, Training)
    parser.add_argument("--name", help="its name in tables (default: distilled)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the texts (default 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, mps (default cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")


def run(arguments: argparse.Namespace) -> None:
    """Read, check, train, save, read back."""
    import logging
    from dataclasses import asdict, replace

    import torch

    from excise.artefacts import sha256_file
    from excise.data.collections import read_documents
    from excise.errors import ExciseError
    from excise.models.encoder import load_encoder, tokenised
    from excise.models.folders import refuse_foreign
    from excise.models.loading import resolve_device
    from excise.retrieval.distil import Training, distil
    from excise.retrieval.saving import card, described, size_info
    from excise.retrieval.saving import save as save_encoder
    from excise.retrieval.team import joined
    from excise.retrieval.texts import read_embeddings
    from excise.stages.options import set_threads
    from excise.tasks.retrieval import about_of

    terms = {"score": arguments.score, "contrastive": arguments.contrastive}
    training = Training(arguments.epochs, arguments.batch, arguments.rate, seed=arguments.seed, **terms)
    refuse_foreign(arguments.output)
    files = {name: path for name, path in (("documents", arguments.texts), ("queries", arguments.queries)) if path}
    if not files:
        raise ExciseError("give --texts or --queries, or both")
    hashes = {name: sha256_file(path) for name, path in files.items()}
    meta, vectors = read_embeddings(arguments.teacher, hashes)
    set_threads(arguments.threads)
    with joined(str(resolve_device(arguments.device))) as (team, device):
        student = load_encoder(arguments.model, device=device)
        kinds = {"documents": "document", "queries": "query"}
        ids = []
        for name, path in files.items():
            ids += tokenised(student, [row["text"] for row in read_documents(path)[1]], kinds[name])[0]
        key = {
            **asdict(training), "processes": team.size, **hashes,
            "student": student.info["fingerprint"], "teacher": meta["model"],
        }  # fmt: skip
        checkpoint = arguments.output.with_name(f".{arguments.output.name}.checkpoint.safetensors")
        targets = torch.cat([vectors[name] for name in files])
        losses = distil(student, ids, targets, training, checkpoint=checkpoint, key=key, team=team)
    if team.rank:
        return
    about = replace(about_of(student.info), series=arguments.name or "distilled")
    base = student.info.get("base", student.info)
    source = described("distil", f"{student.info['id']} distilled", base, key, asdict(about))
    what = f"trained for {training.epochs} epochs of {len(ids)} texts to give the embeddings of {meta['model']['id']}"
    lines = card(str(source["id"]), student.info, what, size_info(student), student.structure is None)
    save_encoder(student, arguments.model, arguments.output, source=source, card=lines)
    logging.getLogger(__name__).info("%s: mean loss per epoch %s", arguments.output, [round(one, 4) for one in losses])
