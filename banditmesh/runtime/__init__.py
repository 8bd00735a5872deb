"""What every service of the mesh stands on: serving, streams, stores, settings, time, logs, metrics and errors."""
