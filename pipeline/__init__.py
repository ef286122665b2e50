"""Settings, data, jobs, results: what has side effects and needs no equation."""

import os

# The allocator that Arrow 24 and 25 bring along may crash where threads come and go (apache/arrow#50471, #50908).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
