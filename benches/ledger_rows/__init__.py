"""The lines of `benches/ledger.py`: each measures one thing, and both sides in the same run."""
