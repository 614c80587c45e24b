"""Settings become options of a stage, and a rule passes them: what a configuration says arrives as it was."""

import argparse
import shlex
from typing import Annotated, Literal

import pytest
from pydantic import Field

from excise.config.evaluation import Protocol, Tasks
from excise.config.experiment import Experiment
from excise.config.generations import Sampling
from excise.config.inputs import TextSource
from excise.config.options import TYPED, add_options, options, section
from excise.config.section import Section, alternatives
from excise.config.variants import Units
from excise.errors import ExciseError


class Everything(Section):
    """A setting of each kind."""

    number: int = Field(3, ge=1, le=9, description="How many.")
    share: float | None = Field(None, gt=0, description="A share.")
    kind: Literal["small", "large"] = Field("small", description="Which.")
    names: list[str] = Field([], description="Names, 100 % of them.")
    either: Annotated[int, Field(ge=1)] | Literal["all"] = Field("all", description="A number or all.")
    flag: bool = Field(False, description="Whether.")
    needed: str = Field(description="Must be given.")


def parsed(*words, section=Everything, **keywords):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, section, **keywords)
    given = vars(parser.parse_args(words))
    given.pop(TYPED, None)
    return given


def test_defaults_are_those_of_the_configuration():
    assert parsed("--needed", "x") == Everything(needed="x").model_dump()
    assert parsed(section=Sampling) == Sampling().model_dump()
    assert parsed(section=Protocol) == Protocol().model_dump()


@pytest.mark.parametrize(
    "section",
    [
        Everything(number=9, share=0.25, kind="large", names=["a b", "c'd"], either=7, flag=True, needed="-x $HOME"),
        Sampling(greedy=True, batch_size=1),
        Protocol(separator=" ", windows=3, protocol="sliding"),
        TextSource(source="a 'b'.txt", label='x "y"', lines=True, limit=2),
        Tasks(tasks=["mmlu=5", "arc"], limit=3),
    ],
    ids=lambda section: type(section).__name__,
)
def test_what_a_rule_passes_is_what_the_stage_reads(section):
    words = shlex.split(options(section.model_dump(), type(section)))
    given = parsed(*words, section=type(section))
    assert given == section.model_dump()


def test_what_was_typed_counts_as_given_though_it_is_the_default():
    parser = argparse.ArgumentParser()
    add_options(parser, Sampling)
    assert section(parser.parse_args(["--greedy"]), Sampling).num_generations == 1
    with pytest.raises(ExciseError, match="num_generations 25 must be 1"):
        section(parser.parse_args(["--greedy", "--num-generations", "25"]), Sampling)


def test_none_and_false_and_empty_lists_are_left_out():
    assert options({"a_b": None, "c": False, "d": [], "e": 0, "f": True}) == "--e 0 --f"
    assert options({"a": -1, "b": ["-x"]}) == "--a=-1 --b=-x"
    assert options({"a": 1, "b": 2, "c": 3}, without=["a"]) == "--b 2 --c 3"
    assert options({"a": 1, "b": 2}, only=["b"]) == "--b 2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--number", "0"], "'0' is less than the minimum of 1"),
        (["--number", "x"], "'x' is not a whole number"),
        (["--share", "0"], "'0' is less than or equal to the minimum of 0"),
        (["--kind", "smal"], "'smal' is not one of small, large. Did you mean 'small'?"),
        (["--either", "every"], "'every' is not a whole number or 'all'"),
        (["--either", "0"], "'0' is less than the minimum of 1"),
    ],
)
def test_the_command_line_refuses_what_a_configuration_must_not_have(words, message):
    with pytest.raises(argparse.ArgumentError) as error:
        parsed(*words, "--needed", "x")
    assert message in str(error.value)


def test_what_a_configuration_must_set_must_be_typed(capsys):
    with pytest.raises(SystemExit):
        parsed()
    assert "the following arguments are required: --needed" in capsys.readouterr().err


def test_a_stage_takes_some_of_the_settings():
    assert parsed("--number", "2", only=["number"]) == {"number": 2}
    assert parsed(only=["needed"], optional=["needed"]) == {"needed": None}
    assert "number" not in parsed("--needed", "x", without=["number"])
    with pytest.raises(ValueError, match="Everything has no field numbr"):
        parsed(only=["numbr"])


def test_help_says_meaning_and_default():
    parser = argparse.ArgumentParser(prog="stage")
    add_options(parser, Everything)
    said = " ".join(parser.format_help().split())
    assert "How many (default 3)" in said
    assert "A share --" in said
    assert "Names, 100 % of them" in said
    assert "--kind {small,large} Which (default small)" in said


def sections(section):
    yield section
    for field in section.model_fields.values():
        for alternative in alternatives(field):
            inside = [alternative.type]
            if alternative.container in (dict, list):
                inside = [one.type for one in alternatives(alternative.type.__args__[-1])]
            for one in inside:
                if isinstance(one, type) and issubclass(one, Section):
                    yield from sections(one)


def test_every_setting_is_described():
    found = {section.__name__: section for section in sections(Experiment)}
    assert {"Picked", "Windows", "File", "Units", "Perplexity", "Model", "ScorerOptions"} <= found.keys()
    for kind in found.values():
        assert kind.__doc__
        for name, field in kind.model_fields.items():
            inside = any(one.is_section() for one in alternatives(field))
            assert inside or (field.description or "").endswith("."), f"{kind.__name__}.{name}"


def test_options_of_a_union_take_both_kinds():
    assert parsed("--scale=-0.5", section=Units, only=["scale"]) == {"scale": -0.5}
    assert parsed("--scale", "expertise", section=Units, only=["scale"]) == {"scale": "expertise"}
