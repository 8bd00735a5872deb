"""Logs that people have, as decision logs (``docs/decision-log.md``): one format a file, all of them streaming."""
