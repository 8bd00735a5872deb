"""What the mesh has learned from, for ever: Parquet files in the store, written once, read by anybody.

``archive/examples/placement=…/dt=YYYY-MM-DD/hour=HH/*.parquet`` has every example once, by the UTC hour of its
impression's broker time; `schema.EXAMPLES` names the columns. ``archive/decisions/placement=…/…`` has sampled decisions
with all their candidates and what became of them; a row there is a row of a decision log (``docs/decision-log.md``).
The placement, the day and the hour stand in the path alone, as Hive, Spark, DuckDB, pyarrow and Polars know it.

To read it in Python:

- `reader.read` gives a placement's rows of a span of time as Arrow record batches, `reader.decisions` as the
  decisions that `banditmesh.decisions.encoder` takes. Both leave out what is not complete, and see no row twice while
  files are being compacted.
- `state.complete_until` says up to which time all of it is there.

Who writes what:

- ``archive/state/KIND/LOG-pPARTITION.json`` (`state`): how far a partition is archived. Changed by compare-and-set
  alone, so that the second of two writers learns that it is the second.
- The files of a range of offsets (`layout`) are named by that range, and written between two such changes: the first
  says what the range is, the second that it is complete. A writer that dies in between is followed by one that writes
  the same files again, under the same names.
- ``…/hour=HH/_index.json`` (`index`): which files of a folder are replaced by a compacted one.
"""
