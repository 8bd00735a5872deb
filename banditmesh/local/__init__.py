"""Real servers on one machine without Docker: Kafka, Valkey, an S3 store and HDFS, as child processes on 127.0.0.1.

Used by ``banditmesh up``, the demo and the tests; no service imports it. What a server needs beyond the ``local`` extra
of this package (the jars of Kafka and of Hadoop) is fetched once into a cache, see :mod:`banditmesh.local.cache`.
"""
