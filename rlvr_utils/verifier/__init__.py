r"""The verifier: is the boxed answer of a response equal to the ground truth?

* ``last_boxed`` (``extraction``): the last ``\boxed{}`` by brace counting; no box, an empty one or one that is never
  closed is no answer; boxes in a thought do not count.
* ``answers_match`` (``verdict``), tier by tier, each more expensive than the one before: identity after normalisation
  (``normalize``), exact plain numbers, words and times (``kinds``), then a tree from a parser of our own (``tokens``,
  ``parser``, ``trees``) whose structures are compared part by part (``compare``). Values are first reduced to a few
  functions (``definitions``), and then compared by exact algebra (``exact``), or in balls of proven radius at several
  points (``enclose``). Both use FLINT.
* Every comparison is proven equal, proven different, in agreement at several points, or undecided. Only the first and
  the third are rewarded.
* ``verify`` and ``boxed_reward`` (``verdict``): a verdict with its reason; a reward function for TRL.
* ``CONVENTIONS`` (``conventions``): what is decided where it is a matter of choice; every row is tested.

Nothing is evaluated but trees of our own parser, and every bound is checked before anything is built (``limits``):
no timeout, no signal, no ``eval``, so it runs in threads, servers and widgets.

The rules come from MATH's ``is_equiv`` (hendrycks/math, modeling/math_equivalence.py), Minerva's normalisation
(Lewkowycz et al. 2022, appendix D.1) and Tulu 3's verifier (open-instruct, ground_truth_utils.py), which this one is
stricter than: only the box counts, never a last ``$...$`` or the whole text.
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
