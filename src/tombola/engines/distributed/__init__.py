"""Each run on several devices: one process for each, started by torchrun, with DistributedDataParallel."""
