"""Numbers that both sides of the wire hold each other to."""

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 4
METHODS_MINOR = 1
"""The first minor version whose agents know methods and can encode updates. Older ones train plainly and send parameters as they are."""
TOP_K_MINOR = 3
"""The first minor version whose agents can send the largest differences alone, and keep what they haven't sent."""

PARTIAL_MINOR = 3
"""The first minor version whose agents can end a training early and send what it has come to."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""gRPC's own default limit for one message, kept as protection: everything larger is cut into chunks."""

CHUNK_BYTES = 256 * 1024
"""Payload of one chunk."""
QUICK_CHUNK_BYTES = 4 * CHUNK_BYTES
"""Payload of a chunk of a transfer that moves quickly: two thirds of the processor's time for the same bytes. None has more."""

MAX_CSR_BYTES = 16 * 1024
"""A certificate signing request in PEM."""

MAX_MODEL_BYTES = 4 * 1024**3
MAX_OPEN_BYTES = 64 * 1024**2
"""Length of a tensor whose signature leaves it open."""
MAX_TENSORS = 10_000
MAX_OFFERED_TENSORS = 20_000
"""Of all apps together that one agent offers: each is looked at while others wait."""
MAX_DIMENSIONS = 8
MAX_NAME_LENGTH = 255
NUL = "\0"
"""No name and no value of text holds it: protobuf would carry it, but PostgreSQL keeps none."""

MAX_SCALARS = 256
"""Entries in one map of metrics, configuration or properties."""
MAX_SCALAR_BYTES = 4_096
"""Length of a text or bytes scalar."""
MAX_REASON_LENGTH = 2_000
MAX_UNAVAILABLE_LENGTH = 200
MAX_APPS = 64
MAX_TASKS = 16
"""That one agent works on at once."""
MAX_SERVERS = 8
"""Addresses at which an agent looks for its server, beside that of its enrolment."""
MAX_ADDRESS_LENGTH = 255
MAX_KEPT_RUNS = 16
"""Of which one agent says that it has updates on its disk."""
LATE_SECONDS = "fedui-late-seconds"
"""In the trailing metadata of a refused transfer: the task's deadline passed so long ago."""
MAX_STEPS = 2**31
"""Of one training."""
MAX_GPUS = 16
MAX_HARDWARE_NAME_LENGTH = 80
MAX_LABELS = 100
"""Labels in the histogram of one data card."""
MAX_LABEL_LENGTH = 80
MAX_NUM_EXAMPLES = 10**9
"""More examples than this from one client are refused: no weight may drown the others by a false count."""
MAX_COLUMNS = 256
"""Columns that one app opens to queries."""
MAX_COLUMN_NAME_LENGTH = 63
MAX_EDGES = 2_048
"""Edges of the bins in which one query counts: 16 KiB each way."""
