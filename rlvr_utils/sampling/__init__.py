"""Sample responses and evaluate them.

``rollouts`` (start here), ``decoding`` (our decoding loop), ``shared_prefix`` (computes each prompt once).
"""

from .rollouts import Response, Sampling, encode_prompts, evaluate, has_chat_template, prompts_for, sample_responses
