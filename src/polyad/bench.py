"""Where latencies were measured, and what they were: values that a plan carries."""

from pydantic import BaseModel, ConfigDict


class Bench(BaseModel):
    """What runs the network, on what, on how many threads and samples at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str
    version: str
    machine: str
    threads: int
    batch: int = 1

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.runtime}, {threads}, batch {self.batch} ({self.version}; {self.machine})"


class Round(BaseModel):
    """One solution under a limit of latency: nanoseconds that the table predicts, and that the network took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted: int
    measured: int


class Timed(BaseModel):
    """What was measured for one plan: nanoseconds of the original network, and of each solution in turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bench: Bench
    before: int
    rounds: tuple[Round, ...] = ()

    def lines(self, predicted: int) -> list[str]:
        """For people.

        Args:
            predicted: nanoseconds of the plan, by the table.
        """
        share = predicted / self.before
        first = f"latency on {self.bench}: {self.before / 1e6:.3f} ms dense, predicted {share:.1%} kept"
        return [
            first,
            *(
                f"  round {at}: predicted {one.predicted / self.before:.1%}, measured {one.measured / self.before:.1%}"
                for at, one in enumerate(self.rounds, 1)
            ),
        ]
