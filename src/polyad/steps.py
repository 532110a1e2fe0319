"""What was done to a module before its layers could be sites, as a value that a plan carries."""

from pydantic import BaseModel, ConfigDict


class Step(BaseModel):
    """One expansion; enough to do it again without an example.

    Attributes:
        kind: a registered expansion ("attention").
        parts: sizes of the outputs that a split parts.
        scope: the module in which any replaced layer calls for the expansion; by default the module itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    parts: tuple[int, ...] = ()
    scope: str | None = None
