"""What ``params/studies/NAME.yaml`` may hold, as models; docs/studies.md describes it."""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from . import paths
from .parameters import MODELS, Number, Section, UsageError


class Range(Section):
    """Numbers from `low` to `high`; whole ones where both are."""

    low: int | Number
    high: int | Number
    log: bool = False

    @model_validator(mode="after")
    def _spans(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            said = "low must be below high, and above 0 where log is true"
            raise ValueError(f"low = {self.low}, high = {self.high}: {said}")
        return self


class Sample(Section):
    """So many settings, drawn from values or a range of each factor."""

    settings: int = Field(ge=1)
    over: dict[str, list[Any] | Range] = Field(min_length=1)

    def allows(self, values: dict[str, Any]) -> bool:
        """Tell whether a setting with these values can be drawn."""
        return all(
            value in asked if isinstance(asked, list) else asked.low <= value <= asked.high
            for asked, value in ((self.over[name], value) for name, value in values.items())
        )


class StudyFile(Section):
    """The content of a study's file."""

    question: str = Field(min_length=1)
    profile: str = "default"
    models: list[str] = Field(list(MODELS), min_length=1)
    set: dict[str, Any] = Field({})
    seeds: int = Field(1, ge=1)
    folds: int = Field(0, ge=0, le=20)
    settings: dict[str, dict[str, Any]] | None = None
    grid: dict[str, list[Any]] | None = None
    random: Sample | None = None
    search: Sample | None = None

    @model_validator(mode="after")
    def _asks(self) -> Self:
        kinds = [kind for kind in ("settings", "grid", "random", "search")
                 if getattr(self, kind) is not None]  # fmt: skip
        if len(kinds) > 1:
            raise ValueError(f"{' and '.join(kinds)}: only one can be; take the other out")
        factors = self.sample.over if self.sample else self.grid if kinds else {"": [0]}
        if self.settings == {} or factors == {} or [] in (factors or {}).values():
            raise ValueError(f"{kinds[0]}: nothing to try; give every factor a value")
        if unknown := sorted({*self.models} - {*MODELS}):
            raise ValueError(f"models: {unknown[0]} is none; they are {', '.join(MODELS)}")
        return self

    @property
    def sample(self) -> Sample | None:
        """What is drawn while the study goes on."""
        return self.random or self.search


def shown(file: Path) -> str:
    """Return what messages call a file: from the project's root where it lies in it."""
    return str(file.relative_to(paths.ROOT) if file.is_relative_to(paths.ROOT) else file)


def read(file: Path) -> StudyFile:
    """Read a study's file; raises UsageError where it is not as it must be."""
    where = shown(file)
    try:
        return StudyFile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        like = "give a file like those in params/studies"
        said = f"cannot be read ({error.strerror}); {like}"
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        said = f"not valid YAML ({error}); mend that line"
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        wrong = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]
        said = f"{place}{wrong}; see docs/studies.md"
    raise UsageError(f"{where}: {said}")
