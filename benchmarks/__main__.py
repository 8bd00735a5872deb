"""``python -m benchmarks [--json]``: all benchmarks."""

from benchmarks import engine

if __name__ == "__main__":
    engine.main()
