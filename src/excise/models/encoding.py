"""Text to token ids: the one place where it is done, with all that has to be true of the result.

Control tokens are looked at as ids, never trusted: what a tokenizer puts before a text, what of a text it reads as a
control token, and what ends a generation.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excise.artefacts import Json
from excise.errors import ExciseError
from excise.models.families import architecture
from excise.models.loading import load_config, load_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder:
    """A model's tokenizer, and what is settled about its control tokens.

    Attributes:
        tokenizer: as transformers gives it.
        name: what messages call the model.
        vocabulary: rows of the model's embedding.
        first: ids that go before every text.
        window_first: the id that every window of a text begins with, in place of the token there, so that windows
            keep their places and lengths; None where the family does without.
        ends: ids that end a generation, sorted.
    """

    tokenizer: Any
    name: str
    vocabulary: int
    first: tuple[int, ...]
    window_first: int | None
    ends: tuple[int, ...]

    def prompt(self, text: str, where: str, *, first: bool = True) -> list[int]:
        """The ids of a text that the model is to continue, or of a continuation.

        It begins with what the tokenizer puts there, once, also where the text has it already. What the tokenizer puts
        at the end is left off. Control tokens in the text are read as such if the model's chat template has them.

        Args:
            text: the prompt.
            where: what messages call it.
            first: False for a continuation: nothing is put before it.

        Raises:
            ExciseError: another control token is written in the text, or an id is beyond the model's embedding.
        """
        ids = self._ids(text)
        twice = first and self.first and tuple(ids[: len(self.first)]) == self.first
        body = ids[len(self.first) :] if twice else ids
        written = control_ids(self.tokenizer) & set(body) - set(self._ids(text, as_text=True))
        if odd := sorted(written - _chat_ids(self.tokenizer)):
            raise ExciseError(
                f"{where}: {self.tokenizer.convert_ids_to_tokens(odd[0])!r} in the middle of it is a control token of "
                "this model, not text. Remove it: what a prompt begins with is put there by the tokenizer"
            )
        return [*(self.first if first else ()), *body]

    def text(self, text: str, *, first: bool = True) -> list[int]:
        """The ids of a text to be read: names of control tokens in it are letters like others.

        Args:
            text: the text.
            first: begin with what the tokenizer puts there.

        Raises:
            ExciseError: an id is beyond the model's embedding.
        """
        return [*(self.first if first else ()), *self._ids(text, as_text=True)]

    def _ids(self, text: str, *, as_text: bool = False) -> list[int]:
        """The bare ids of a text."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False, split_special_tokens=as_text)[
            "input_ids"
        ]
        if ids and max(ids) >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise ExciseError(
                f"{self.name}: its tokenizer gives ids beyond its vocabulary ({token!r} is {max(ids)}, the embedding "
                f"has {self.vocabulary} rows); they do not belong together"
            )
        return ids

    def facts(self) -> Json:
        """What an artefact says of the control tokens."""
        names = self.tokenizer.convert_ids_to_tokens
        return {
            "first": names(list(self.first)),
            "windows_begin_with": None if self.window_first is None else names(self.window_first),
            "end_a_generation": names(list(self.ends)),
        }


def load_encoder(folder: str | Path) -> Encoder:
    """The encoder of a model folder; says what had to be settled.

    Raises:
        ExciseError: there is no tokenizer, it has no token to begin with though the family needs one, or nothing ends
            a generation.
    """
    tokenizer, config = load_tokenizer(folder), load_config(folder)
    if drops := getattr(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), "dropout", None):
        raise ExciseError(
            f"{folder}: its tokenizer cuts a text differently each time (dropout {drops:g} in tokenizer.json, for "
            "training). Set it to null there"
        )
    first = _first(tokenizer)
    window_first = None
    if architecture(config).bos:
        window_first = tokenizer.bos_token_id
        if window_first is None:
            raise ExciseError(
                f"{folder}: {config.model_type} needs a token at the beginning (bos_token), and its tokenizer has "
                "none: put the model's own tokenizer_config.json there"
            )
        if first != (window_first,):
            logger.warning("%s: its tokenizer does not begin a text with %s; excise does", folder, tokenizer.bos_token)
            first = (window_first,)
    ends = _ends(tokenizer, _configured_ends(folder, config), str(folder))
    return Encoder(tokenizer, str(folder), config.vocab_size, first, window_first, ends)


def control_ids(tokenizer: Any) -> set[int]:
    """Ids of all tokens that the tokenizer calls special."""
    added = {int(id_) for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | {int(id_) for id_ in tokenizer.all_special_ids}


def _chat_ids(tokenizer: Any) -> set[int]:
    """Ids of the control tokens that the chat template writes."""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    named = {str(tokenizer.convert_ids_to_tokens(id_)): id_ for id_ in control_ids(tokenizer)}
    found = {id_ for name, id_ in named.items() if name in template}
    for word in ("bos_token", "eos_token"):
        if word in template and getattr(tokenizer, f"{word}_id") is not None:
            found.add(getattr(tokenizer, f"{word}_id"))
    return found


def _first(tokenizer: Any) -> tuple[int, ...]:
    """What the tokenizer puts before every text by itself."""
    whole, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return tuple(whole[:start])
    return ()


def _configured_ends(folder: str | Path, config: Any) -> list[int]:
    """What generation_config.json, or else config.json, says ends a generation."""
    from transformers import GenerationConfig

    found = None
    if (Path(folder) / "generation_config.json").is_file():
        try:
            found = GenerationConfig.from_pretrained(str(folder), local_files_only=True).eos_token_id
        except (ValueError, OSError, TypeError) as error:
            raise ExciseError(f"{folder}/generation_config.json: {error}") from error
    found = getattr(config, "eos_token_id", None) if found is None else found
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def _ends(tokenizer: Any, configured: Sequence[int], name: str) -> tuple[int, ...]:
    """What ends a generation: what the model's files say, as far as it is a control token, and the tokenizer's own.

    Raises:
        ExciseError: nothing does.
    """
    control, own = control_ids(tokenizer), tokenizer.eos_token_id
    ends = {id_ for id_ in configured if id_ in control} | ({own} if own is not None else set())
    words = [f"{tokenizer.convert_ids_to_tokens(id_)!r} ({id_})" for id_ in configured if id_ not in control]
    if not ends:
        raise ExciseError(
            f"{name}: nothing ends a generation: generation_config.json and config.json name no eos_token_id that is a "
            f"control token of the tokenizer{f' ({words[0]} is none)' if words else ''}, and the tokenizer has no "
            "eos_token. Name it in tokenizer_config.json (eos_token)"
        )
    if words:
        logger.warning("%s: eos_token_id %s is no control token of the tokenizer and ends nothing", name, words[0])
    elif own is not None and own not in configured:
        said = "names no eos_token_id" if not configured else "has another eos_token_id"
        logger.warning("%s: its configuration %s; %s of the tokenizer ends a generation too", name, said, own)
    return tuple(sorted(ends))
