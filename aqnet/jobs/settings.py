"""A setting of a profile: its value, what kind of value it is, and the reason for it."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from aqnet.config import Config

__all__ = ["Asked", "Count", "Positive", "Required", "Setting", "Share", "Text", "Word"]

T = TypeVar("T")
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3)]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]  # a name: `p1`, `ml`
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Setting(Config, Generic[T]):
    """A value, and why it is that value.

    Attributes
    ----------
    value
    kind : str
        `fact` of the cluster, `choice` of this project, or `workaround` for a fault elsewhere.
    reason : str
    source : str or None
        Where a fact is written down.
    still_needed : str or None
        Of a workaround: how to find out whether it still is.
    """

    value: T
    kind: Literal["fact", "choice", "workaround"]
    reason: Text
    source: Text | None = None
    still_needed: Text | None = None

    @model_validator(mode="after")
    def _complete(self) -> Setting:
        if (self.kind == "workaround") != (self.still_needed is not None):
            raise ValueError("`still_needed` goes with kind workaround, and only with it")
        if self.kind == "fact" and self.source is None:
            raise ValueError("a fact names its source")
        return self


class Required(Config):
    """In the place of a setting: the user has to give the value."""

    required: Literal[True]  # marks it
    reason: Text  # why nobody else can know


def _form(content: object) -> str:
    asked = "required" in content if isinstance(content, dict) else isinstance(content, Required)
    return "required" if asked else "setting"


class Asked:
    """`Asked[T]` is the type of a setting with a value of type T, or of the demand for one."""

    def __class_getitem__(cls, kind: object) -> object:
        """Pydantic's own generic alias of a tagged union would lose the type variable."""
        setting, required = (
            Annotated[Setting[kind], Tag("setting")],
            Annotated[Required, Tag("required")],
        )
        return Annotated[setting | required, Discriminator(_form)]
