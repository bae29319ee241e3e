"""What GPUs, the workers' common process group and the host's memory say."""

from cifarray.runs.failures.known import known
from cifarray.runs.failures.networks import LABELS

BATCH = "lower train.global_batch_size, or take more workers"
OTHER_WORKER = "that worker's own error is the cause; the log holds it"
DRIVER = "check the node's driver against the image's CUDA libraries"
HARDWARE = "check the GPU (`nvidia-smi`, Xid messages in the kernel's log), or use another node"
HOST_MEMORY = "take fewer workers on a node, a smaller cache_bytes_per_worker, or more memory"

GPUS = (
    known(
        r"device-side assert triggered.*Assertion `t >= 0 && t < n_classes`|"
        r"Assertion `t >= 0 && t < n_classes`.*device-side assert triggered",
        "CUDA error: device-side assert: a label lies outside the network's outputs",
        LABELS,
        "always",
    ),
    known(
        r"device-side assert triggered",
        "CUDA error: device-side assert: a label or an index lies outside its range",
        f"{LABELS}; gpus_per_worker 0 shows the line that does it",
        "always",
    ),
    known(
        r"CUDA out of memory\. Tried to allocate (?P<size>[\d.]+ \w+)\b"
        r"(?:.*?(?:total capaci?ty of|;) (?P<total>[\d.]+ \w+))?",
        "the GPU has no memory for another {size}{total: (it has %s in all)}",
        f"{BATCH}, or set train.precision to bf16",
        "at first",
    ),
    known(
        r"CUDA error: out of memory",
        "the GPU has no memory left",
        f"{BATCH}, and see in `nvidia-smi` who else uses it",
        "at first",
    ),
    known(
        r"CUDA error: no kernel image is available for execution on the device",
        "this build of torch has no kernels for this GPU",
        "install the torch build of the GPU's generation (docs.pytorch.org/get-started)",
        "always",
    ),
    known(
        r"CUDA error: invalid device ordinal",
        "a worker asked for a GPU that is not there",
        "compare gpus_per_worker and CUDA_VISIBLE_DEVICES with `nvidia-smi`",
        "always",
    ),
    known(
        r"CUDA error: an illegal memory access was encountered",
        "CUDA error: a kernel used memory that is not its own",
        "run again with CUDA_LAUNCH_BLOCKING=1 to see which operation; try without train.compile",
    ),
    known(
        r"CUDA error: (?P<what>uncorrectable ECC error encountered|unspecified launch failure|"
        r"misaligned address|hardware stack error|the launch timed out and was terminated)",
        "CUDA error: {what}",
        HARDWARE,
        "never",
    ),
    known(
        r"CUDA error: .*?CUDA-capable device.*? busy or unavailable",
        "CUDA error: every GPU is in use by another process, or unavailable",
        "end the other process, or take the GPU's exclusive mode off",
        "never",
    ),
    known(
        r"Found no NVIDIA driver on your system|No CUDA GPUs are available",
        "torch sees no GPU on the worker's node",
        f"{DRIVER}, or set gpus_per_worker to 0",
        "always",
    ),
    known(
        r"Torch not compiled with CUDA enabled",
        "this build of torch knows no GPUs",
        "install a CUDA build of torch, or set gpus_per_worker to 0",
        "always",
    ),
    known(
        r"The NVIDIA driver on your system is too old \(found version (?P<version>\d+)\)|"
        r"CUDA driver version is insufficient for CUDA runtime version",
        "the node's NVIDIA driver is older than torch's CUDA{version: (it is of version %s)}",
        "update the driver, or install a torch build for an older CUDA",
        "always",
    ),
    known(
        r"CUBLAS_STATUS_ALLOC_FAILED",
        "cuBLAS found no GPU memory for its workspace",
        f"{BATCH}",
        "at first",
    ),
    known(
        r"CUDA error: (?P<status>CUBLAS_STATUS_\w+) when calling `?(?P<call>\w+)",
        "cuBLAS failed: {status} in {call}",
        "often a label out of range or full GPU memory before it: run with gpus_per_worker 0, "
        "or a smaller train.global_batch_size",
    ),
    known(
        r"CUDNN_STATUS_(?:NOT_INITIALIZED|ALLOC_FAILED)",
        "cuDNN could not begin",
        f"the GPU's memory is often full: {BATCH}; else {DRIVER}",
        "at first",
    ),
    known(
        r"Unable to find an engine to execute this computation|CUDNN_STATUS_NOT_SUPPORTED",
        "cuDNN has no kernel for this layer on this GPU",
        f"{BATCH}; or set train.channels_last or train.precision otherwise",
        "always",
    ),
    known(
        r"cuDNN error: (?P<status>CUDNN_STATUS_\w+)",
        "cuDNN failed: {status}",
        HARDWARE,
    ),
)
"""What CUDA and its libraries say."""

DISTRIBUTED = (
    known(
        r"Duplicate GPU detected : rank (?P<first>\d+) and rank (?P<second>\d+)",
        "NCCL: ranks {first} and {second} share one GPU",
        "give each worker a GPU of its own (gpus_per_worker 1, fewer workers)",
        "always",
    ),
    known(
        r"Watchdog caught collective operation timeout:.*?OpType=(?P<call>\w+).*?"
        r"ran for (?P<ms>\d+) milliseconds",
        "NCCL: {call} was not over within {ms} ms: a worker hangs, or ended without a word",
        "look for the rank that says nothing in the log; NCCL_DEBUG=INFO says where it waits",
        "never",
    ),
    known(
        r"remote process exited or there was a network error|ncclRemoteError",
        "NCCL lost its connection to another worker",
        OTHER_WORKER,
        "never",
        follows=True,
    ),
    known(
        r"NCCL error.*?(?P<what>unhandled (?:system|cuda) error|internal error|invalid usage)"
        r"(?:.*?Last error:\s*(?P<last>[^\n]+))?",
        "NCCL failed: {what}{last:: %s}",
        "set NCCL_DEBUG=INFO; check /dev/shm, NCCL_SOCKET_IFNAME and the driver",
        "never",
    ),
    known(
        r"gloo.*?(?:Connection closed by peer|Connection reset by peer|Broken pipe) ?"
        r"(?P<peer>\[[^\]]+\](?::\d+)?)?",
        "gloo lost its connection to another worker{peer: (%s)}",
        OTHER_WORKER,
        "never",
        follows=True,
    ),
    known(
        r"Timed out waiting (?P<ms>\d+)ms for (?P<what>send|recv) operation to complete",
        "gloo waited {ms} ms for another worker",
        "look for the rank that says nothing in the log; a busy node needs fewer workers",
        "never",
        follows=True,
    ),
    known(
        r"client socket has timed out after (?P<ms>\d+) ?ms while trying to connect to "
        r"\((?P<host>[^,]+), (?P<port>\d+)\)",
        "a worker could not reach rank 0 at {host}:{port} within {ms} ms",
        "check that the workers' nodes reach each other (NetworkPolicy, firewall)",
        "never",
    ),
    known(
        r"server socket has failed to listen on any local network address|EADDRINUSE",
        "rank 0 found its port in use",
        "try again: another process took it in between",
        "never",
    ),
)
"""What the workers' common process group says."""

MEMORY = (
    known(
        r"node running low on memory",
        "Ray ended the worker, since its node ran out of memory",
        f"run less beside it there, or {HOST_MEMORY}",
        "never",
    ),
    known(
        r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory): you tried to allocate "
        r"(?P<size>\d+) bytes|Unable to allocate (?P<array>[\d.]+ \w+) for an array",
        "the host has no memory for another {size:%s bytes}{array:%s}",
        HOST_MEMORY,
        "at first",
    ),
    known(
        r"^MemoryError\b|Errno 12\b|Cannot allocate memory",
        "the host has no memory left",
        HOST_MEMORY,
        "at first",
    ),
    known(
        r"Bus error|insufficient shared memory \(shm\)|No space left on device: '?/dev/shm",
        "the shared memory of the worker's node, /dev/shm, is too small",
        "give the pod an emptyDir of medium Memory at /dev/shm, or the container --shm-size",
        "never",
    ),
    known(
        r"(?:Errno 28|ENOSPC).*?No space left on device(?:: '(?P<path>[^']+)')?",
        "the disk of the worker's node is full{path: (%s)}",
        "make room there, or point TMPDIR to a larger disk",
        "never",
    ),
    known(
        r"(?:Errno 24|EMFILE).*?Too many open files",
        "the worker may not open more files",
        "raise its limit (`ulimit -n 65536`) where the node is started",
        "never",
    ),
    known(
        r"can't start new thread|pthread_create failed.*?Resource temporarily unavailable",
        "the worker may not start more threads",
        "raise `ulimit -u` or the pod's pids limit, or set threads_per_worker",
        "never",
    ),
)
"""What the host runs out of."""
