"""The command `hpcai500`: scientific workloads as benchmarks of machines and optimizers."""
