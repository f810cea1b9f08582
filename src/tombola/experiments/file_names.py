"""Names of files in a results folder, for those who need not read them."""

CONFIGURATION = "experiment.toml"
STATUS = "status.json"
