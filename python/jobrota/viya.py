"""SAS Viya beside comparisons: where a login comes from, and what is there.

`Credentials` says where a login comes from, for `ViyaComparisonRunner(tokens=…)` and `ViyaSession`, which asks who it
is and lists job definitions and compute contexts. The command `jobrota viya` is made of the same.
"""

from jobrota._native import CodeLogin, Credentials, ViyaSession

__all__ = ["CodeLogin", "Credentials", "ViyaSession"]
