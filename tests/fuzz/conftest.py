"""How many inputs: some in the usual tests, the same each time; `make fuzz` takes the profile "fuzz" and others."""

import tempfile

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(tempfile.gettempdir())  # what Hypothesis keeps for itself; nothing of it belongs to the project
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
COMMON = settings(deadline=None, database=None, suppress_health_check=SLOW)
settings.register_profile("few", COMMON, max_examples=100, derandomize=True)
settings.register_profile("fuzz", COMMON, max_examples=10_000, derandomize=False, print_blob=True)
settings.load_profile("few")
