"""Rules: which units the results of each operator have, and what it ties.

To add an operator, write a function from a `Follower` and the arguments to what is returned, and name it in the
`RULES` of a file here. What an operator without a rule touches stays whole.
"""

from __future__ import annotations

from tombola.graph.follower import Rule
from tombola.graph.rules import attention, elementwise, movement, norms, products, reductions

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **movement.RULES,
    **reductions.RULES,
    **products.RULES,
    **norms.RULES,
    **attention.RULES,
}
"""By the operator's name."""
