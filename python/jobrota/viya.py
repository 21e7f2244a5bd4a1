"""Logins to SAS Viya, and its job definitions and compute contexts.

`Credentials` is the source of a login, for `ViyaComparisonRunner(tokens=…)` and `ViyaSession`. A session shows the
user, and lists job definitions and compute contexts. The command `jobrota viya` uses it.
"""

from jobrota._native import CodeLogin, Credentials, ViyaSession

__all__ = ["CodeLogin", "Credentials", "ViyaSession"]
