"""Named networks and data sets, each one small file."""
