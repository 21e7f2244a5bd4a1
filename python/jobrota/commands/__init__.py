"""The subcommands of `jobrota` that have their own module."""
