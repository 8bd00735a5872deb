"""The five services, one package each; they share ``banditmesh`` and never import each other."""

import os

# Before numpy is imported, because OpenBLAS reads it once: a service is given one core and multiplies small matrices,
# and threads that wait for each other on a busy machine cost more than they bring. An operator's own value stands.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
