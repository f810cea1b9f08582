"""Pictures and tables of what an experiment found."""
