"""The Learner: turns examples into models, and publishes them."""

import os

# Before anything imports pyarrow, which looks at it once. Its own allocator, mimalloc, keeps what rows that waited for
# the archive have taken: after seven flushes of 13 000 rows, 60 MB more were resident, while the pool held 0.1 MB and
# had never held more than 8 MB (pyarrow 26.0). glibc can be told to give back: `runtime.memory.give_back`.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
