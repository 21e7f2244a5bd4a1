"""How to install the packages of the extra `report`.

jobrota is installed from a wheel file. No index has it, so `pip install 'jobrota[report]'` finds nothing. The names of
the packages work everywhere.
"""

from __future__ import annotations

__all__ = ["HOW_TO_INSTALL"]

_PACKAGES = "'altair>=5.3,<7' 'jinja2>=3.1,<4' 'markupsafe>=2.1' 'vl-convert-python>=1.9,<2' 'xlsxwriter>=3.2'"
HOW_TO_INSTALL = f"install the packages of the extra 'report': pip install {_PACKAGES} (in a notebook: %pip install …)"
