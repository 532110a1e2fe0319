"""Hidden channels: what one or several layers write and a single layer reads, so that some of them can be left out."""

from pydantic import BaseModel, ConfigDict


class Hidden(BaseModel):
    """Channels between layers, each of which nothing but its own column of the reader ever sees.

    Attributes:
        reader: the layer that reads them as its input channels.
        writers: the layers whose output channels they are.
        between: depthwise convolutions and batch norms that they pass on their way, each channel by itself.
        channels: how many there are.
        params, bytes: of the batch norms between, for each channel; other costs belong to sites.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reader: str
    writers: tuple[str, ...]
    between: tuple[str, ...] = ()
    channels: int
    params: int = 0
    bytes: int = 0

    @property
    def layers(self) -> tuple[str, ...]:
        """All that gets narrower."""
        return (*self.writers, *self.between, self.reader)


class Narrowed(BaseModel):
    """Hidden channels of which only some are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: Hidden
    kept: tuple[int, ...]

    @property
    def removed(self) -> int:
        return self.hidden.channels - len(self.kept)
