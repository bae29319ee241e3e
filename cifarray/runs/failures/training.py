"""Messages of networks, GPUs, process groups and the host when a training fails."""

from cifarray.runs.failures import known

LABELS = "compare the network's outputs with the dataset's classes (`cifarray data inspect`)"
SHAPES = "correct the layer's sizes; `cifarray models` tries a network in seconds"
BATCH = "lower train.global_batch_size, or use more workers"
OTHER_WORKER = "that worker's own error is the cause; see the log"
DRIVER = "check the node's driver against the image's CUDA libraries"
HARDWARE = "check the GPU (`nvidia-smi`, Xid messages in the kernel's log), or use another node"
HOST_MEMORY = "use fewer workers per node, a smaller cache_bytes_per_worker, or more memory"

NETWORKS = (
    known(
        r"Expected to have finished reduction in the prior iteration"
        r"(?:.*?did not receive grad for rank \d+: (?P<indices>\d[\d ]*))?",
        "DDP has not finished its reduction: parameters were not used in producing the loss"
        "{indices: (their indices: %s)}",
        "remove the layers that forward() does not use, set requires_grad=False on their "
        "parameters, or train on one worker",
        "always",
    ),
    known(
        r"Expected to mark a variable ready only once",
        "DDP met a parameter twice in one step",
        "call each layer once in forward(), without checkpointing a layer that is shared",
        "always",
    ),
    known(
        r"Modules with uninitialized parameters can't be used with",
        "the network has lazy layers that were not used before DDP",
        "use every lazy layer in forward() in eval mode too",
        "always",
    ),
    known(
        r"DistributedDataParallel is not needed when a module doesn't have any parameter",
        "no parameter of the network requires a gradient",
        "set requires_grad=True on some parameters",
        "always",
    ),
    known(
        r"DDP expects same model across all ranks, but Rank (?P<rank>\d+) has (?P<some>\d+) "
        r"params, while rank \d+ has inconsistent (?P<others>\d+) params",
        "the workers built different networks: rank {rank} has {some} parameters, another {others}",
        "make the network depend only on its arguments, not on the host or a random number",
        "always",
    ),
    known(
        r"mat1 and mat2 shapes cannot be multiplied \((?P<first>\d+x\d+) and (?P<second>\d+x\d+)\)",
        "a linear layer got rows of the wrong length ({first} by {second})",
        SHAPES,
        "always",
    ),
    known(
        r"weight of size (?P<weight>\[[\d, ]+\]), expected input\[[\d, ]+\] to have "
        r"(?P<takes>\d+) channels, but got (?P<got>\d+) channels",
        "a convolution that takes {takes} channels got {got}",
        "build the network with the in_channels that it is given",
        "always",
    ),
    known(
        r"Calculated padded input size per channel: \((?P<input>[\dx ]+)\)\. "
        r"Kernel size: \((?P<kernel>[\dx ]+)\)",
        "a kernel of {kernel} is larger than its input of {input}",
        "use fewer strides or a larger preprocess.resize",
        "always",
    ),
    known(
        r"Given input size: \((?P<input>[\dx]+)\)\. Calculated output size: "
        r"\((?P<output>[-\dx]+)\)\. Output size is too small",
        "pooling leaves nothing of an input of {input}",
        "use fewer pooling layers or a larger preprocess.resize",
        "always",
    ),
    known(
        r"shape '(?P<shape>\[[-\d, ]+\])' is invalid for input of size (?P<size>\d+)",
        "a tensor of {size} values cannot take the shape {shape}",
        SHAPES,
        "always",
    ),
    known(
        r"view size is not compatible with input tensor's size and stride",
        "view() was called on a tensor that is not contiguous",
        "use reshape() or flatten() instead of view()",
        "always",
    ),
    known(
        r"The size of tensor a \((?P<first>\d+)\) must match the size of tensor b "
        r"\((?P<second>\d+)\) at non-singleton dimension (?P<dim>\d+)",
        "two tensors differ in dimension {dim}: {first} and {second}",
        SHAPES,
        "always",
    ),
    known(
        r"Sizes of tensors must match except in dimension (?P<dim>\d+)\. "
        r"Expected size (?P<first>\d+) but got size (?P<second>\d+)",
        "tensors that are joined along dimension {dim} differ elsewhere: {first} and {second}",
        SHAPES,
        "always",
    ),
    known(
        r"Target (?P<label>-?\d+) is out of bounds",
        "label {label} is outside the network's outputs",
        LABELS,
        "always",
    ),
    known(
        r"index out of range in self",
        "an embedding or an index got a value outside its range",
        "compare the values with the layer's num_embeddings, or the tensor's size",
        "always",
    ),
    known(
        r"Expected input batch_size \((?P<images>\d+)\) to match target batch_size "
        r"\((?P<labels>\d+)\)",
        "the network gave {images} rows of logits for {labels} labels",
        "keep the first dimension of the images throughout forward()",
        "always",
    ),
    known(
        r"must have the same dtype, but got (?P<first>\w+) and (?P<second>\w+)|"
        r"Input type \((?P<input>[\w.: ]+)\) and (?:bias|weight) type \((?P<weight>[\w.: ]+)\) "
        r"should be the same",
        "a layer got values of another type than its weights{input: (%s)}{first: (%s)}",
        "keep the images float32 in forward(), or convert them to the weights' dtype",
        "always",
    ),
    known(
        r"Expected all tensors to be on the same device, but found at least two devices, "
        r"(?P<first>[\w:]+) and (?P<second>[\w:]+)|"
        r"Tensor on device (?P<one>[\w:]+) is not on the expected device (?P<other>[\w:]+)",
        "tensors are on two devices{first:, %s}{second: and %s}{one:, %s}{other: and %s}",
        "register constant tensors as buffers, or create them on the images' device",
        "always",
    ),
    known(
        r"Expected more than 1 value per channel when training, got input size "
        r"(?:torch\.Size\()?(?P<size>\[[\d, ]+\])",
        "BatchNorm got one value per channel in training mode ({size})",
        "raise train.global_batch_size, use fewer workers, or remove that BatchNorm",
        "always",
    ),
    known(
        r"does not require grad and does not have a grad_fn",
        "the loss depends on no trainable parameter",
        "let forward() use the parameters without no_grad() or detach()",
        "always",
    ),
    known(
        r"Trying to backward through the graph a second time",
        "a tensor of an earlier step is used again in backward()",
        "call detach() on tensors that forward() keeps between steps",
        "always",
    ),
    known(
        r"modified by an inplace operation: \[(?P<tensor>[^\]]+\])\]",
        "an in-place operation changed a tensor that backward() needs ({tensor})",
        "replace it by one that creates a new tensor, as in x = x + y for x += y",
        "always",
    ),
    known(
        r"a leaf Variable that requires grad is being used in an in-place operation",
        "a parameter is changed in place during training",
        "change it within torch.no_grad(), before training",
        "always",
    ),
    known(
        r"Error\(s\) in loading state_dict for (?P<network>\w+):\s+(?P<first>[^\n]+)",
        "loading the state_dict of {network} failed: {first}",
        "use the same network and arguments as for these weights",
        "always",
    ),
    known(
        r"optimizer got an empty parameter list",
        "the network has no parameter to optimize",
        "assign its layers to attributes in __init__, or to nn.ModuleList and nn.ModuleDict",
        "always",
    ),
    known(
        r"probability tensor contains either `inf`, `nan` or element < 0",
        "torch sampled from probabilities that are not numbers: the weights have diverged",
        "lower optimizer.lr, add schedule.warmup_epochs or set train.clip_grad_norm",
        "always",
    ),
    known(
        r"Only Tensors created explicitly by the user \(graph leaves\) support the deepcopy",
        "the network cannot be copied: it keeps a tensor that was computed from its parameters",
        "compute it in forward(), or use torch.nn.utils.parametrizations",
        "always",
    ),
    known(
        r"torch\._dynamo\.exc\.\w+: (?P<first>[^\n]+)",
        "torch.compile does not support the network: {first}",
        "set train.compile to false, or rewrite that part",
        "always",
    ),
    known(
        r"(?:Failed to find C compiler|torch\._inductor\.exc\.\w+: (?P<first>[^\n]+))",
        "torch.compile could not build its kernels{first:: %s}",
        "set train.compile to false, or install a C compiler in the image",
        "always",
    ),
    known(
        r"Weights only load failed",
        "a file of weights contains more than tensors, and is not unpickled",
        "save the state_dict alone: torch.save(network.state_dict(), path)",
        "always",
    ),
    known(
        r"PytorchStreamReader failed reading zip archive",
        "a file of weights is cut off or damaged",
        "copy or download it again",
        "always",
    ),
)

GPUS = (
    known(
        r"device-side assert triggered.*Assertion `t >= 0 && t < n_classes`|"
        r"Assertion `t >= 0 && t < n_classes`.*device-side assert triggered",
        "CUDA error: device-side assert: a label is outside the network's outputs",
        LABELS,
        "always",
    ),
    known(
        r"device-side assert triggered",
        "CUDA error: device-side assert: a label or an index is out of range",
        f"{LABELS}; a run with gpus_per_worker 0 shows the line",
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
        f"{BATCH}, and check with `nvidia-smi` which processes use it",
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
        "a worker requested a GPU that does not exist",
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
        "end the other process, or turn off the GPU's exclusive mode",
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
        "this build of torch has no GPU support",
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
        "cuDNN could not be initialized",
        f"often the GPU's memory is full: {BATCH}; else {DRIVER}",
        "at first",
    ),
    known(
        r"Unable to find an engine to execute this computation|CUDNN_STATUS_NOT_SUPPORTED",
        "cuDNN has no kernel for this layer on this GPU",
        f"{BATCH}; or change train.channels_last or train.precision",
        "always",
    ),
    known(
        r"cuDNN error: (?P<status>CUDNN_STATUS_\w+)",
        "cuDNN failed: {status}",
        HARDWARE,
    ),
)
"""Messages of CUDA and its libraries."""

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
        "NCCL: {call} did not finish within {ms} ms: a worker hangs, or ended without a message",
        "look for the rank without log lines; NCCL_DEBUG=INFO says where it waits",
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
        "look for the rank without log lines; a busy node needs fewer workers",
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
        "try again: another process took the port in between",
        "never",
    ),
)
"""Messages of the workers' process group."""

MEMORY = (
    known(
        r"node running low on memory",
        "Ray ended the worker, since its node ran out of memory",
        f"run less on that node, or {HOST_MEMORY}",
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
        "mount an emptyDir with medium Memory at /dev/shm in the pod, or start the container "
        "with --shm-size",
        "never",
    ),
    known(
        r"(?:Errno 28|ENOSPC).*?No space left on device(?:: '(?P<path>[^']+)')?",
        "the disk of the worker's node is full{path: (%s)}",
        "free space there, or set TMPDIR to a larger disk",
        "never",
    ),
    known(
        r"(?:Errno 24|EMFILE).*?Too many open files",
        "the worker has reached its limit of open files",
        "raise its limit (`ulimit -n 65536`) where the node is started",
        "never",
    ),
    known(
        r"can't start new thread|pthread_create failed.*?Resource temporarily unavailable",
        "the worker has reached its limit of threads",
        "raise `ulimit -u` or the pod's pids limit, or set threads_per_worker",
        "never",
    ),
)
"""Messages about exhausted resources of the host."""
