"""Named experiments as TOML, each with a comment saying which table or figure it reproduces."""
