"""What the command `jobrota` does, for the commands that fill a module of their own."""
