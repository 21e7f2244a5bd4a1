"""The rows of `benches/ledger.py`: each measures one thing, both sides in the same run."""
