"""The Hugging Face hub: files, snapshots and data sets by repository and revision, and errors that say what to do.

The hub's own settings hold: HF_HOME (where downloads are kept), HF_TOKEN (who asks), HF_HUB_OFFLINE (use only what is
there). The token is never logged or written.
"""

import contextlib
import errno
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from excise.errors import ExciseError
from excise.models.files import INDEX, SIDE_FILES, indexed

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def explained(
    repository: str, *, revision: str | None = None, repo_type: str = "model", inside: str = ""
) -> Iterator[None]:
    """Turn what the hub's client raises into messages for people.

    Raises:
        ExciseError: instead of the client's exceptions.
    """
    from huggingface_hub import errors

    for client in ("huggingface_hub", "httpx", "httpx2"):  # requests and retries are not news; the error below is
        logging.getLogger(client).setLevel(logging.ERROR)
    # The HTTP client's own base class: what is left of it below is "no connection", "timed out" and the like.
    unreachable = cast(type[Exception], errors.HfHubHTTPError.__bases__[0])
    what = f"hub:{repository}" + (f" at revision {revision}" if revision else "")
    page = f"{'datasets/' if repo_type == 'dataset' else ''}{repository}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ExciseError(
            f"{what}: access is gated. Accept the licence on its page on the hub ({page}), make a token with read "
            "access and set HF_TOKEN to it; then run the same command again."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ExciseError(
            f"{what}: there is no such commit, tag or branch. Look at the page's history ({page})."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ExciseError(
            f"{what}: there is no such {repo_type} on the hub, or it is private, and no folder {repository!r} here. "
            "Check the spelling; for a private one set HF_TOKEN to a token that may read it."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        raise _unreachable(what) from error
    except errors.EntryNotFoundError as error:
        raise ExciseError(f"{what}: the repository has no file {inside!r}; its page ({page}) lists them") from error
    except (errors.HFValidationError, errors.HfHubHTTPError) as error:
        raise ExciseError(
            f"{what}: the hub refused: {_first_line(error)} For 401 or 403 set HF_TOKEN to a token that may read it."
        ) from error
    except unreachable as error:
        raise _unreachable(what) from error
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise _unwritable(what, error) from error


UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)
"""Numbers of errors that say that a folder cannot be written."""


def _unwritable(what: str, error: OSError) -> ExciseError:
    from huggingface_hub import constants

    place = error.filename or constants.HF_HOME
    return ExciseError(
        f"{what}: the cache cannot be written ({error.strerror}: {place}). Name a folder that can: export "
        "HF_HOME=FOLDER (HF_DATASETS_CACHE for the rows of data sets alone)."
    )


def _unreachable(what: str) -> ExciseError:
    from huggingface_hub import constants

    state = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "no network, or the hub is down"
    return ExciseError(
        f"{what}: no such folder here, nothing in the cache of the hub, and the hub was not reached ({state}). Run "
        "this stage once where there is a network (a login node) with the same HF_HOME, or give a local path as the "
        "source."
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def download_file(repository: str, inside: str, *, revision: str | None, repo_type: str) -> tuple[Path, str]:
    """One file of a repository.

    Returns:
        Its path in the hub's cache, and the commit it is from.

    Raises:
        ExciseError: it cannot be had.
    """
    from huggingface_hub import hf_hub_download

    with explained(repository, revision=revision, repo_type=repo_type, inside=inside):
        path = Path(hf_hub_download(repository, inside, revision=revision, repo_type=repo_type))
    return path, _commit(path)


def download_snapshot(
    repository: str, *, revision: str | None, repo_type: str, patterns: Iterable[str]
) -> tuple[Path, str]:
    """The files of a repository that match ``patterns``, where ``*`` stands for no ``/``; offline, what of it is there.

    Returns:
        The snapshot folder in the hub's cache, and its commit.

    Raises:
        ExciseError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    levels: dict[int, list[str]] = {}  # the hub's own * stands for / too: one request a level of folders
    for pattern in patterns:
        levels.setdefault(pattern.count("/"), []).append(pattern)
    commit = revision
    with explained(repository, revision=revision, repo_type=repo_type):
        for level, allowed in sorted(levels.items()):
            path = snapshot_download(
                repository,
                revision=commit,
                repo_type=repo_type,
                allow_patterns=allowed,
                ignore_patterns=["/".join(["*"] * (level + 2))],
            )
            commit = _commit(Path(path) / "x")
    return Path(path), str(commit)


def download_model(repository: str, *, revision: str | None, weights_only: bool = False) -> tuple[Path, str]:
    """The files of a model: first what is small, then the weights that its index names, or the single file.

    Args:
        repository: ``OWNER/NAME``.
        revision: commit, tag or branch.
        weights_only: leave out what is beside the weights.

    Returns:
        The snapshot folder in the hub's cache, and its commit.

    Raises:
        ExciseError: it cannot be downloaded, or its index is no index.
    """
    small = [INDEX] if weights_only else [INDEX, *SIDE_FILES]
    folder, commit = download_snapshot(repository, revision=revision, repo_type="model", patterns=small)
    weights = indexed(folder, f"hub:{repository}")
    return download_snapshot(repository, revision=commit, repo_type="model", patterns=weights)


def _commit(path: Path) -> str:
    """The hub's cache keeps a file as ``.../snapshots/COMMIT/PATH``."""
    parts = path.parts
    return parts[len(parts) - parts[::-1].index("snapshots")]


def dataset_rows(
    repository: str, *, subset: str | None, split: str, revision: str | None, limit: int | None = None
) -> tuple[Iterator[dict[str, Any]], str]:
    """The rows of a data set on the hub, in their order.

    Args:
        repository: ``OWNER/NAME``.
        subset: the data set's configuration, where it has several.
        split: for example ``test``.
        revision: commit, tag or branch; None is the newest.
        limit: stop after so many rows; the data set is then streamed, not downloaded whole.

    Returns:
        The rows, and the commit they are from.

    Raises:
        ExciseError: it cannot be had.
    """
    from huggingface_hub import constants

    # Also notes in the cache which commit the revision is, so that the same request works without the hub later.
    folder, commit = download_snapshot(repository, revision=revision, repo_type="dataset", patterns=["README.md"])
    if constants.HF_HUB_OFFLINE:
        return folder_rows(folder, subset=subset, split=split, limit=limit, name=f"hub:{repository}"), commit
    return _rows(repository, f"hub:{repository}", subset, split, limit, revision=commit), commit


def folder_rows(
    folder: Path, *, subset: str | None, split: str, limit: int | None = None, name: str | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a data set in a local folder (parquet, JSON lines, ... as the hub lays them out)."""
    return _rows(str(folder), name or folder.name, subset, split, limit)


def _rows(
    path: str, name: str, subset: str | None, split: str, limit: int | None, **options: Any
) -> Iterator[dict[str, Any]]:
    import datasets
    from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError

    datasets.disable_progress_bars()
    where = f"{name}" + (f", subset {subset}" if subset else "") + f", split {split}"
    with explained(name.removeprefix("hub:"), repo_type="dataset"):
        try:
            data = datasets.load_dataset(path, subset, split=split, streaming=limit is not None, **options)
        except (
            ValueError,
            FileNotFoundError,
            DatasetGenerationError,
            DatasetNotFoundError,
            DataFilesNotFoundError,
        ) as error:
            # A missing subset, a split that is not there, or broken files: the message lists what there is.
            said = " ".join(f"{error} {error.__cause__ or ''}".split())[:600]
            gated = " Accept its licence on its page on the hub and set HF_TOKEN." if "gated" in said else ""
            raise ExciseError(f"{where}: {said}{gated}") from error
        for number, row in enumerate(data):
            if limit is not None and number >= limit:
                return
            yield dict(row)
