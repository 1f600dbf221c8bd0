"""Scientific benchmarks: what is measured, how good a result is, and what it cost."""
