"""The decision log: one documented format for logged decisions, as JSON lines or Parquet, and its way into batches."""
