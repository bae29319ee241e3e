"""What boto3 and pyarrow say of a store."""

from cifarray.runs.failures.known import known

CREDENTIALS = "check the credentials that the run got, and that they may use the bucket"

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
        "give its authority in AWS_CA_BUNDLE and SSL_CERT_FILE",
        "always",
    ),
    known(
        r"Could not connect to the endpoint URL: \"(?P<url>[^\"?]+)|"
        r"(?:Connect|Read) timeout on endpoint URL: \"(?P<slow>[^\"?]+)|"
        r"AWS Error NETWORK_CONNECTION",
        "the store does not answer{url: at %s}{slow: at %s}",
        "see whether it runs, and whether the workers reach it",
        "never",
    ),
    known(
        r"\((?P<code>SlowDown|ServiceUnavailable|InternalError|503|500|502|504)\)|"
        r"AWS Error (?:SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE)|"
        r"HTTP (?:response code|status) 50[0234]",
        "the store is overloaded or unwell{code: (%s)}",
        "wait for it, then resume",
        "never",
    ),
    known(
        r"Insufficient ?Storage|XMinioStorageFull|HTTP (?:response code|status) 507|QuotaExceeded",
        "the store is full",
        "make room there (`cifarray prune`), then resume",
        "never",
    ),
    known(
        r"Parquet magic bytes not found|Couldn't deserialize thrift|Parquet file size is \d+ bytes",
        "a Parquet file of the dataset is damaged",
        "find it with `cifarray data verify`, and prepare the dataset again",
        "always",
    ),
)
