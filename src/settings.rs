//! Where a setting comes from: the argument, else the environment (`JOBROTA_…`), else `jobrota.toml`.
