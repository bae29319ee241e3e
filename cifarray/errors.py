"""The errors that cifarray raises; each carries the exit code with which the CLI ends.

CifarrayError                    anything below; its text is one sentence for a person
├── InputError          exit 2   what was typed or given cannot work: change it and try again
│   ├── JobError                 a job file, a profile or a --set
│   ├── ArchiveError             a published archive that is broken, malicious or another one
│   ├── DatasetError             a dataset that is missing or is not what its manifest says
│   ├── CheckpointError          a checkpoint that is missing, damaged or of another job
│   ├── RunNotFoundError         no such run in the store
│   └── StoreAddressError        a store's URI or endpoint that names none
├── StoreError          exit 1   a store that did not do what was asked
│   ├── KeyMissingError          the store has no object under this key
│   ├── StoreDamagedError        it holds an object that is not what was written
│   ├── StoreAwayError           it does not answer, or cannot now: worth waiting for
│   │   └── StoreFullError       it has no space left: worth waiting for, since somebody makes some
│   └── StoreRefusedError        it answers, and says no
└── WorkError           exit 1   the input was fine, the work failed
    ├── ClusterError             a node or a Jobs API that does not start, answer or have capacity
    │   └── UntrustedError       a record that leads to a cluster or job which the user did not name
    ├── RunFailedError           a run that ended without a result
    │   ├── DivergedError        a training whose loss is no number any more
    │   ├── NoGpuError           a worker that was promised a GPU and sees none
    │   └── RepeatingError       an error of the network's code or of its data that comes again
    └── LeaseLostError           another attempt is in charge of this run
"""


class CifarrayError(Exception):
    """Anything that cifarray raises on purpose; `str(error)` is one sentence."""

    exit_code = 1

    def __str__(self) -> str:
        """One line, whatever names and values from a file it quotes."""
        return super().__str__().replace("\r", "\\r").replace("\n", "\\n")


class InputError(CifarrayError):
    """What was typed or given cannot work."""

    exit_code = 2


class JobError(InputError):
    """A job file, a profile or a `--set` that cannot be run."""


class ArchiveError(InputError):
    """A published archive that is broken, malicious or not what was named."""


class DatasetError(InputError):
    """A dataset that is missing from the store or is not what its manifest says."""


class CheckpointError(InputError):
    """A checkpoint that is missing, damaged or of another job."""


class RunNotFoundError(InputError):
    """No such run in the store."""


class StoreAddressError(InputError):
    """A store's URI or endpoint that names none."""


class StoreError(CifarrayError):
    """A store that did not do what was asked."""


class KeyMissingError(StoreError):
    """The store has no object under this key."""


class StoreDamagedError(StoreError):
    """The store holds an object that is not what was written; waiting does not change it."""


class StoreAwayError(StoreError):
    """The store does not answer, or cannot do it now: worth waiting for."""


class StoreFullError(StoreAwayError):
    """The store has no space left, until somebody makes some."""


class StoreRefusedError(StoreError):
    """The store answers and says no; asking again gets the same answer."""


class WorkError(CifarrayError):
    """The input was fine, the work failed."""

    exit_code = 1


class ClusterError(WorkError):
    """A node or a Jobs API that does not start, answer or have capacity."""


class UntrustedError(ClusterError):
    """A record that leads to a cluster or a job which the user has not named."""


class RunFailedError(WorkError):
    """A run that ended without a result."""


class DivergedError(RunFailedError):
    """A training whose loss is no number any more; trying again gives the same."""


class NoGpuError(RunFailedError):
    """A worker that was promised a GPU and sees none; trying again gives the same."""


class RepeatingError(RunFailedError):
    """An error of the network's code or of its data; trying again gives the same."""

    rank: int | None = None
    """Of the worker that met it, and the name of that worker's machine."""
    host: str | None = None


class LeaseLostError(WorkError):
    """Another attempt is in charge of this run."""
