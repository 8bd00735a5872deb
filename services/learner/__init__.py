"""The Learner: turns examples into models, and publishes them."""

import os

# Before anything imports pyarrow, which looks at it once. Its own allocator, mimalloc, keeps up to 100 MB of what rows
# that waited for the archive have taken, while the pool holds nothing (pyarrow 26.0; benchmarks/steady.md). glibc can
# be told to give back: `runtime.memory.give_back`.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
