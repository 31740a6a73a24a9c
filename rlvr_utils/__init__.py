"""Utilities behind the RLVR course: one module a chapter, from the verifier up to the training run.

Floor by floor (a module imports only from lower floors):

1. no ML imports: ``verifier`` ``problems`` ``prompts`` ``stats`` ``profiles``
2. tensors only: ``grpo``
3. Hugging Face: ``models`` ``memory`` ``decoding`` ``rollouts`` ``pretrain``
4. the run: ``runs`` ``diagnosis`` ``tracking`` ``preflight`` ``training`` ``own_trainer``
5. for people: ``analysis`` ``experiment`` ``plots`` ``widgets`` ``exercises``
6. ``course`` and ``cli``
"""

from pathlib import Path

__version__ = "0.1.0"

#: The repository's root: notebooks and commands resolve every path from here, whatever the working directory.
REPO = Path(__file__).resolve().parent.parent
