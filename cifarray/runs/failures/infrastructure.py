"""Messages of Ray, Kubernetes and stores about a missing worker, node, pod or object."""

from cifarray.runs.failures import known
from cifarray.runs.failures.training import HOST_MEMORY

CREDENTIALS = "check the run's credentials and their rights on the bucket"

RAY = (
    known(
        r"The worker group startup timed out after (?P<seconds>[\d.]+) seconds waiting for "
        r"(?P<workers>\d+) workers",
        "{workers} workers did not start within {seconds} s",
        "free CPUs, GPUs or memory, or raise worker_start_timeout_s in the profile",
        "never",
    ),
    known(
        r"The following ranks have not joined the collective operation: "
        r"(?P<ranks>\[[\d, ]+\])",
        "ranks {ranks} did not reach a report in time",
        "look in the log for what these ranks wait for",
        "never",
    ),
    known(
        r"actor is dead because its node has died\.(?:.*?the actor's node was terminated "
        r"(?P<how>expectedly|unexpectedly))?(?:[:,]? ?(?P<why>[^\n]+))?",
        "the node of a worker is gone{why:: %s}",
        "find out what ended it (`cifarray cluster status`, the cloud's events); a new node is "
        "used",
        "never",
    ),
    known(
        r"Worker exit type: (?P<type>\w+) Worker exit detail: Worker exits unexpectedly\. "
        r"Worker exits with an exit code (?P<code>\d+)",
        "the worker's process exited with code {code}",
        "look for sys.exit() or a crash of a library in the log",
        "never",
    ),
    known(
        r"worker process has died\. Worker exit type: \w+ Worker exit detail: Worker unexpectedly "
        r"exits with a connection error code|WorkerCrashedError|"
        r"The worker died unexpectedly while executing this task",
        "the worker's process was killed from outside or crashed",
        f"the kernel kills where memory runs out: see `dmesg` or the pod's events; {HOST_MEMORY}",
        "never",
    ),
    known(
        r"it was killed by `ray\.kill`",
        "Ray ended the worker by request",
        "nothing to do: a new worker replaces it",
        "never",
        follows=True,
    ),
    known(
        r"task's local raylet died|LocalRayletDiedError|The actor is unavailable|"
        r"ActorUnavailableError",
        "Ray on the worker's node does not answer",
        "see raylet.out there; a node that has too little memory or CPU loses its raylet",
        "never",
    ),
    known(
        r"Failed to set up runtime environment|RuntimeEnvSetupError",
        "Ray could not set up the worker's environment",
        "see runtime_env_setup in Ray's logs on that node",
        "never",
    ),
    known(
        r"OutOfDiskError|object store is full|Local disk is full",
        "Ray's object store and the disk behind it are full",
        "free space on the node's disk, or give Ray a larger object store",
        "never",
    ),
    known(
        r"Check failed:[^\n]*Timed out waiting for file \S*/(?P<file>\w+)_[0-9a-f]{40,}",
        "Ray's raylet gave up on one of its agents, which was too slow to write {file}",
        "start it again once the machine is less busy",
        "never",
    ),
    known(
        r"The current node timed out during startup",
        "Ray gave up on its raylet, which did not start in time",
        "start it again once the machine is less busy",
        "never",
    ),
    known(
        r"InvalidAuthToken|Authentication token is missing|AuthenticationError|Unauthenticated",
        "Ray refused the token",
        "use the token of that cluster (RAY_AUTH_TOKEN_PATH); `cifarray cluster status` shows it",
        "always",
    ),
    known(
        r"Failed to connect to GCS|failed to connect to gcs|Unable to connect to GCS",
        "Ray's head node does not answer",
        "check whether it runs (`cifarray cluster status`)",
        "never",
    ),
)
"""Messages of Ray about a missing worker, node or cluster."""

KUBERNETES = (
    known(
        r"The node was low on resource: (?P<resource>[\w-]+)",
        "Kubernetes evicted the pod, since its node was low on {resource}",
        "request more of it in the profile, so that the pod gets a node with enough",
        "never",
    ),
    known(
        r"OOMKilled",
        "the kernel ended the container, which used more memory than its limit (OOMKilled)",
        "raise the workers' memory in the profile, or lower cache_bytes_per_worker",
        "never",
    ),
    known(
        r"(?:ImagePullBackOff|ErrImagePull|Back-off pulling image|Failed to pull image)"
        r"(?: \"(?P<image>[^\"]+)\")?",
        "the image cannot be pulled{image: (%s)}",
        "correct kubernetes.image, or give the namespace the registry's pull secret",
        "never",
    ),
    known(
        r"CrashLoopBackOff|back-off .* restarting failed container",
        "a container of the run crashes each time it starts",
        "see its log (`kubectl logs --previous`)",
        "never",
    ),
    known(
        r"exceeded quota: (?P<quota>[\w.-]+)",
        "the pods exceed the namespace's quota {quota}",
        "use fewer or smaller workers, or ask for a larger quota",
        "never",
    ),
    known(
        r"\d+/(?P<nodes>\d+) nodes are available: (?P<why>[^\n]+?)(?:\. preemption|\.? ?$|\n)",
        "no node can take a pod: {why}",
        "use fewer or smaller workers, or add nodes",
        "never",
    ),
    known(
        r"Preempted by (?P<by>[^\n]+?)(?: on node|$|\n)",
        "a pod with higher priority evicted a pod of the run",
        "resume the run, or ask for a higher PriorityClass",
        "never",
    ),
    known(
        r"DeadlineExceeded|active longer than specified deadline",
        "the run took longer than its deadline (kubernetes.max_run_s)",
        "raise it, then resume",
        "never",
    ),
    known(
        r"(?:secret|configmap) \"(?P<name>[^\"]+)\" not found",
        "the pod refers to {name}, which is not in its namespace",
        "run `cifarray cluster up` for that profile again",
        "never",
    ),
)
"""Messages of Kubernetes about pods."""

STORES = (
    known(
        r"NoSuchBucket|AWS Error NO_SUCH_BUCKET",
        "the store has no such bucket",
        "create it, or correct --store",
        "always",
    ),
    known(
        r"\((?P<code>InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken)\)|"
        r"AWS Error (?:INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH)",
        "the store does not accept the credentials{code: (%s)}",
        CREDENTIALS,
        "always",
    ),
    known(
        r"\(AccessDenied\)|AWS Error ACCESS_DENIED|\(403\).*?Forbidden",
        "the store denies access",
        CREDENTIALS,
        "always",
    ),
    known(
        r"RequestTimeTooSkewed|difference between the request time and the current time",
        "the clock of the worker's node differs from the store's",
        "set the node's clock (NTP)",
        "always",
    ),
    known(
        r"Unable to locate credentials|NoCredentialsError",
        "no credentials for the store were found",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in AWS_PROFILE",
        "always",
    ),
    known(
        r"certificate verify failed|SSLCertVerificationError|SSL validation failed",
        "the store's TLS certificate is not trusted",
        "set AWS_CA_BUNDLE and SSL_CERT_FILE to the file of its certificate authority",
        "always",
    ),
    known(
        r"Could not connect to the endpoint URL: \"(?P<url>[^\"?]+)|"
        r"(?:Connect|Read) timeout on endpoint URL: \"(?P<slow>[^\"?]+)|"
        r"AWS Error NETWORK_CONNECTION",
        "the store does not answer{url: at %s}{slow: at %s}",
        "check that it runs and that the workers can reach it",
        "never",
    ),
    known(
        r"\((?P<code>SlowDown|ServiceUnavailable|InternalError|503|500|502|504)\)|"
        r"AWS Error (?:SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE)|"
        r"HTTP (?:response code|status) 50[0234]",
        "the store is overloaded or failing{code: (%s)}",
        "wait for it, then resume",
        "never",
    ),
    known(
        r"Insufficient ?Storage|XMinioStorageFull|HTTP (?:response code|status) 507|QuotaExceeded",
        "the store is full",
        "free space there (`cifarray prune`), then resume",
        "never",
    ),
    known(
        r"Parquet magic bytes not found|Couldn't deserialize thrift|Parquet file size is \d+ bytes",
        "a Parquet file of the dataset is damaged",
        "find it with `cifarray data verify`, and prepare the dataset again",
        "always",
    ),
)
