"""The `memattn` command: one file per subcommand."""
