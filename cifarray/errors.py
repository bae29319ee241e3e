"""The errors that cifarray raises; each carries the exit code with which the CLI ends.

CifarrayError                    anything below; its text is one sentence for a person
├── InputError          exit 2   the input cannot work: change it and try again
│   ├── JobError                 a job file, a profile or a --set
│   ├── ArchiveError             a published archive that is broken, malicious or a different one
│   ├── DatasetError             a dataset that is missing or differs from its manifest
│   ├── CheckpointError          a checkpoint that is missing, damaged or of another job
│   ├── RunNotFoundError         no such run in the store
│   └── StoreAddressError        a store's URI or endpoint that is not valid
├── StoreError          exit 1   the store did not do what was asked
│   ├── KeyMissingError          the store has no object under this key
│   ├── StoreDamagedError        an object is not what was written
│   ├── StoreAwayError           it does not answer, or cannot at the moment: worth waiting for
│   │   └── StoreFullError       it has no space left: worth waiting for, as somebody may free some
│   └── StoreRefusedError        it answers with a refusal
└── WorkError           exit 1   the input was valid, but the work failed
    ├── ClusterError             a node or a Jobs API that does not start, answer or have capacity
    │   └── UntrustedError       a record names a cluster or job that the user did not name
    ├── RunFailedError           a run that ended without a result
    │   ├── DivergedError        a training whose loss is no longer a finite number
    │   ├── NoGpuError           a worker that should have a GPU but sees none
    │   └── RepeatingError       an error of the network's code or data that would repeat
    └── LeaseLostError           another attempt is in charge of this run
"""


class CifarrayError(Exception):
    """Base of all errors that cifarray raises on purpose; `str(error)` is one sentence."""

    exit_code = 1

    def __str__(self) -> str:
        """The message on one line, even if a quoted name or value contains line breaks."""
        return super().__str__().replace("\r", "\\r").replace("\n", "\\n")


class InputError(CifarrayError):
    """The input cannot work."""

    exit_code = 2


class JobError(InputError):
    """A job file, a profile or a `--set` that cannot be run."""


class ArchiveError(InputError):
    """A published archive that is broken, malicious or not the named one."""


class DatasetError(InputError):
    """A dataset that is missing from the store or differs from its manifest."""


class CheckpointError(InputError):
    """A checkpoint that is missing, damaged or of another job."""


class RunNotFoundError(InputError):
    """No such run in the store."""


class StoreAddressError(InputError):
    """A store's URI or endpoint that is not valid."""


class StoreError(CifarrayError):
    """The store did not do what was asked."""


class KeyMissingError(StoreError):
    """The store has no object under this key."""


class StoreDamagedError(StoreError):
    """An object in the store is not what was written; waiting does not help."""


class StoreAwayError(StoreError):
    """The store does not answer, or cannot at the moment: worth waiting for."""


class StoreFullError(StoreAwayError):
    """The store has no space left until somebody frees some."""


class StoreRefusedError(StoreError):
    """The store answers with a refusal; asking again gets the same answer."""


class WorkError(CifarrayError):
    """The input was valid, but the work failed."""

    exit_code = 1


class ClusterError(WorkError):
    """A node or a Jobs API that does not start, answer or have capacity."""


class UntrustedError(ClusterError):
    """A record names a cluster or a job that the user has not named."""


class RunFailedError(WorkError):
    """A run that ended without a result."""


class DivergedError(RunFailedError):
    """A training whose loss is no longer a finite number; a retry gives the same."""


class NoGpuError(RunFailedError):
    """A worker that should have a GPU but sees none; a retry gives the same."""


class RepeatingError(RunFailedError):
    """An error of the network's code or data; a retry gives the same."""

    rank: int | None = None
    """Rank of the worker that raised it, and the name of that worker's machine."""
    host: str | None = None


class LeaseLostError(WorkError):
    """Another attempt is in charge of this run."""
