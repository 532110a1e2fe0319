"""Errors: one base class, so that `except PolyadError` catches every request that cannot be met.

Each message says what was expected, what came and what to do. The command line prints it alone and leaves with code 2.
"""


class PolyadError(Exception):
    """A request that cannot be met."""


class ModelError(PolyadError):
    """A network that cannot be built, loaded or compressed."""


class DataError(PolyadError):
    """Data that cannot be opened or does not fit the network."""


class BudgetError(PolyadError):
    """A budget that cannot be read or reached."""


class FormError(PolyadError):
    """A form that cannot carry a layer, or a rank it does not have."""


class PlanError(PolyadError):
    """A plan that cannot be read or does not fit the network."""


class CheckpointError(PolyadError):
    """A folder that cannot be written or read back."""


class ExportError(PolyadError):
    """A network that cannot be written for, or run by, another runtime."""


class NumericalError(PolyadError):
    """Weights or inputs that are not finite."""


class UnknownNameError(PolyadError):
    """A name that no registry entry carries."""


def notes_of(error: BaseException | None) -> list[str]:
    """What was added to an error, or to those that it comes from, on its way up."""
    found: list[str] = []
    while error is not None:
        found += getattr(error, "__notes__", ())
        error = error.__cause__ or error.__context__
    return found
