"""How rows of missing tokens are made: a registry, and one small file per method.

`parse_method` reads what a user typed, `make.make_rows` runs it. A method is a function
`(problem, *, own options with defaults) -> Plan | Dense`.
"""

from tokenadapt.methods.options import Chosen, parse_method
from tokenadapt.methods.registry import METHODS, Method

__all__ = ["METHODS", "Chosen", "Method", "parse_method"]
