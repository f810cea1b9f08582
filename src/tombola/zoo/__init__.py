"""Networks and datasets by name, and the order of batches."""
