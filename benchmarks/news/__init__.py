"""What near users click, against what all click and what the words say: benchmarks/news.md."""
