"""How fast the stream is, each service on one core, beside the bare client on the same core in the same run."""
