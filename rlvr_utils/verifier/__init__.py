r"""The verifier checks whether the boxed answer of a response equals the ground truth.

* ``last_boxed`` (``extraction``) returns the content of the last ``\boxed{}`` by counting braces. A response without a
  box, with an empty one or with one that is never closed has no answer. Boxes inside ``<think>`` do not count.
* ``answers_match`` (``verdict``) applies tiers from cheapest to most expensive: identity after normalisation
  (``normalize``), exact plain numbers, words and times (``kinds``), then a tree from our own parser (``tokens``,
  ``parser``, ``trees``) whose structures are compared part by part (``compare``). Values are first reduced to a few
  functions (``definitions``), and then compared by exact algebra (``exact``), or by enclosures with proven error bounds
  at several points (``enclose``). Both use FLINT.
* Every comparison ends as proven equal, proven different, agreeing at several points, or undecided. Only the first and
  the third are rewarded.
* ``verify`` and ``boxed_reward`` (``verdict``) return a verdict with its reason, and a reward for TRL.
* ``CONVENTIONS`` (``conventions``) lists the decisions that are a matter of convention. Tests check every row.

The verifier evaluates only trees from its own parser and checks every bound before it builds anything (``limits``). It
uses no timeouts, signals or ``eval``, so it runs in threads, servers and widgets.

The rules come from MATH's ``is_equiv`` (hendrycks/math, modeling/math_equivalence.py), Minerva's normalisation
(Lewkowycz et al. 2022, appendix D.1) and Tulu 3's verifier (open-instruct, ground_truth_utils.py). Ours is stricter than
Tulu 3's: only the box counts, never a last ``$...$`` or the whole text.
"""

from .conventions import CONVENTIONS, conventions_table
from .extraction import last_boxed
from .verdict import (
    Verdict,
    answers_match,
    boxed_reward,
    completion_text,
    expressions_equal,
    judge,
    make_boxed_reward,
    readable,
    verify,
)
