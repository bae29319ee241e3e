"""What a network, its labels or its weights do wrong, on any device."""

from cifarray.runs.failures.known import known

LABELS = "compare the network's outputs with the dataset's classes (`cifarray data inspect`)"
SHAPES = "correct the layer's sizes; `cifarray models` tries a network in seconds"

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
        "the network has lazy layers that no image went through before DDP",
        "let forward() pass every lazy layer in eval mode too",
        "always",
    ),
    known(
        r"DistributedDataParallel is not needed when a module doesn't have any parameter",
        "no parameter of the network requires a gradient",
        "let some parameters learn (requires_grad=True)",
        "always",
    ),
    known(
        r"DDP expects same model across all ranks, but Rank (?P<rank>\d+) has (?P<some>\d+) "
        r"params, while rank \d+ has inconsistent (?P<others>\d+) params",
        "the workers built different networks: rank {rank} has {some} parameters, another {others}",
        "let the network depend on its arguments alone, not on the host or a random number",
        "always",
    ),
    known(
        r"mat1 and mat2 shapes cannot be multiplied \((?P<first>\d+x\d+) and (?P<second>\d+x\d+)\)",
        "a linear layer got rows of another length than it takes ({first} by {second})",
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
        "view() was called on a tensor whose values do not lie in order",
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
        "label {label} lies outside the network's outputs",
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
        "tensors lie on two devices{first:, %s}{second: and %s}{one:, %s}{other: and %s}",
        "register constant tensors as buffers, or create them on the images' device",
        "always",
    ),
    known(
        r"Expected more than 1 value per channel when training, got input size "
        r"(?:torch\.Size\()?(?P<size>\[[\d, ]+\])",
        "BatchNorm got one value per channel while it learns ({size})",
        "raise train.global_batch_size, take fewer workers, or drop that BatchNorm",
        "always",
    ),
    known(
        r"does not require grad and does not have a grad_fn",
        "the loss depends on no parameter that learns",
        "let forward() use the parameters without no_grad() or detach()",
        "always",
    ),
    known(
        r"Trying to backward through the graph a second time",
        "a tensor of an earlier step is used again in backward()",
        "detach() whatever forward() keeps from one step for the next",
        "always",
    ),
    known(
        r"modified by an inplace operation: \[(?P<tensor>[^\]]+\])\]",
        "an in-place operation changed a tensor that backward() needs ({tensor})",
        "replace it by one that makes a new tensor, as x = x + y for x += y",
        "always",
    ),
    known(
        r"a leaf Variable that requires grad is being used in an in-place operation",
        "a parameter is changed in place while it learns",
        "change it within torch.no_grad(), before training",
        "always",
    ),
    known(
        r"Error\(s\) in loading state_dict for (?P<network>\w+):\s+(?P<first>[^\n]+)",
        "loading the state_dict of {network} failed: {first}",
        "use the network and the arguments that the weights were trained with",
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
        "torch drew from probabilities that are not numbers: the weights have diverged",
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
        "torch.compile does not take the network: {first}",
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
        "a file of weights holds more than tensors, and is not unpickled",
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
