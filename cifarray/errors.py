"""The errors that cifarray raises; each carries the exit code with which the CLI ends.

CifarrayError                    anything below; its text is one sentence for a person
├── InputError          exit 2   what was typed or given cannot work: mend it and try again
│   ├── JobError                 a job file, a profile or a --set
│   ├── ArchiveError             a published archive that is broken, malicious or another one
│   ├── DatasetError             a dataset that is missing or is not what its manifest says
│   ├── CheckpointError          a checkpoint that is missing, damaged or of another job
│   ├── RunNotFoundError         no such run in the store
│   └── StoreError               a store that cannot be used: missing, refused, or not answering
│       └── KeyMissingError      the store has no object under this key
└── WorkError           exit 1   the input was fine, the work failed
    ├── ClusterError             a node or a Jobs API that does not start, answer or have room
    ├── RunFailedError           a run that ended without a result
    │   ├── DivergedError        a training whose loss is no number any more
    │   └── NoGpuError           a worker that was promised a GPU and sees none
    └── LeaseLostError           another attempt is in charge of this run
"""


class CifarrayError(Exception):
    """Anything that cifarray raises on purpose; `str(error)` is one sentence."""

    exit_code = 1


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


class StoreError(InputError):
    """A store that cannot be used: missing, refused, or not answering."""


class KeyMissingError(StoreError):
    """The store has no object under this key."""


class WorkError(CifarrayError):
    """The input was fine, the work failed."""

    exit_code = 1


class ClusterError(WorkError):
    """A node or a Jobs API that does not start, answer or have room."""


class RunFailedError(WorkError):
    """A run that ended without a result."""


class DivergedError(RunFailedError):
    """A training whose loss is no number any more; trying again gives the same."""


class NoGpuError(RunFailedError):
    """A worker that was promised a GPU and sees none; trying again gives the same."""


class LeaseLostError(WorkError):
    """Another attempt is in charge of this run."""
