"""Find the heads of an encoder that carry a term of the query: by activation patching, judged on other queries.

Each pair is a relevant document with and without the query's rarest word in it. Half of the pairs ranks heads and MLPs
by the share of the score's fall that each carries; the strongest heads together are judged on the other half, beside
as many heads drawn at random.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.stages.options import add_model_arguments

    add_model_arguments(parser, model="folder of a dense encoder", spread=False)
    parser.add_argument("--documents", type=Path, required=True, help="documents, JSONL")
    parser.add_argument("--queries", type=Path, required=True, help="queries with their relevant documents, JSONL")
    parser.add_argument("--pairs", type=int, default=40, help="most pairs per half (default 40)")
    parser.add_argument("--share", type=float, default=0.1, help="share of the heads in the circuit (default 0.1)")
    parser.add_argument("--draws", type=int, default=20, help="random sets of as many heads (default 20)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of pairs, substitutes, random heads, resamples (default 0)"
    )
    parser.add_argument("--output", type=Path, required=True, help="circuit, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Make pairs, patch, choose, judge, write."""
    import logging

    from excise.artefacts import sha256_file, write_json
    from excise.data.collections import read_documents, read_queries
    from excise.errors import ExciseError
    from excise.models.encoder import load_encoder, refuse_cut
    from excise.models.loading import device_type
    from excise.provenance import provenance
    from excise.retrieval.term_circuit import find, judge
    from excise.retrieval.terms import term_pairs
    from excise.stages.options import set_threads

    if arguments.pairs < 1 or arguments.draws < 1:
        raise ExciseError("--pairs and --draws must be at least 1")
    set_threads(arguments.threads)
    encoder = load_encoder(arguments.model, dtype=arguments.dtype, device=arguments.device)
    refuse_cut(encoder, arguments.model)
    queries, documents = read_queries(arguments.queries)[1], read_documents(arguments.documents)[1]
    pairs = term_pairs(encoder, queries, documents, seed=arguments.seed)
    half = min(len(pairs) // 2, arguments.pairs)
    if half < 2:
        raise ExciseError(
            f"{len(pairs)} of {len(queries)} queries have a word in common with a relevant document that can be "
            "replaced; at least 4 are needed"
        )
    finding, judging = pairs[:half], pairs[half : 2 * half]
    circuit = find(encoder, finding, arguments.share)
    judged = judge(encoder, judging, circuit, draws=arguments.draws, seed=arguments.seed)
    settings = {
        **{name: getattr(arguments, name) for name in ("pairs", "share", "draws", "seed")},
        **{name: sha256_file(getattr(arguments, name)) for name in ("documents", "queries")},
    }
    meta = provenance(
        "term-heads",
        settings,
        packages=("torch", "transformers", "tokenizers"),
        model=encoder.info,
        device=device_type(arguments.device),
    )
    told = [
        {"half": name, "query": one.query, "document": one.document, "term": one.term, "substitute": one.substitute}
        for name, part in (("find", finding), ("judge", judging))
        for one in part
    ]
    write_json(arguments.output, meta, {**circuit.told(), "judged": judged, "pairs": told})
    logging.getLogger(__name__).info(
        "%s: together %.0f %% [%.0f, %.0f] of the fall of the score on %d other queries; as many random heads %.0f %%",
        ", ".join(circuit.names), *(100 * judged[name] for name in ("carried", "low", "high")), half,
        100 * judged["random_mean"],
    )  # fmt: skip
